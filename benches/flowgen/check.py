# SPDX-License-Identifier: Apache-2.0
"""Judges captures of the generator's frames: check.py [tcp|connect|new] FLOWS LENGTH|imix ORIGINALS REPLIES."""

import struct
import sys

IMIX = {60: 7, 566: 4, 1514: 1}  # of twelve frames


def frames(path, length, limit):
    with open(path, "rb") as file:
        data = file.read(24 + limit * (16 + (1514 if length == "imix" else length)))
    at = 24
    while at + 16 <= len(data):
        captured = struct.unpack_from("<I", data, at + 8)[0]
        frame = data[at + 16 : at + 16 + captured]
        if len(frame) < captured:
            return  # cut by the limit, or by the end of the capture
        yield frame
        at += 16 + captured


def checksum(data):
    data += b"\0" * (len(data) & 1)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def five_tuple(frame, length):
    ip, udp = frame[14:34], frame[34:]
    if length == "imix":
        length = len(frame)
        assert length in IMIX, frame.hex()
    assert frame[42:] == bytes(i & 0xFF for i in range(42, length)), frame.hex()
    assert len(frame) == length and frame[12:14] == b"\x08\x00", frame.hex()
    assert struct.unpack_from(">BxH", ip) == (0x45, length - 14) and ip[9] == 17, frame.hex()
    assert struct.unpack_from(">H", udp, 4)[0] == length - 34, frame.hex()
    assert checksum(ip) == 0xFFFF, frame.hex()
    assert udp[6:8] != b"\0\0" and checksum(ip[12:] + struct.pack(">HH", 17, len(udp)) + udp) == 0xFFFF, frame.hex()
    return ip[12:16], udp[0:2], ip[16:20], udp[2:4]


def lives(paths, flows, length):
    """Connections without data, `flows` at a time, each of six segments with the right flags and numbers."""
    steps = [[(0x02, 0, None), (0x10, 1, 1), (0x11, 1, 1), (0x10, 2, 2)], [(0x12, 0, 1), (0x11, 1, 2)]]
    first = {}  # of each end, its ISN
    segments = []
    for reply, path in enumerate(paths):
        for n, frame in enumerate(frames(path, length, max(9 * flows, 8192))):
            ip, tcp = frame[14:34], frame[34:54]
            assert len(frame) == length and ip[0] == 0x45 and ip[9] == 6 and checksum(ip) == 0xFFFF, frame.hex()
            assert struct.unpack_from(">H", ip, 2)[0] == 40, frame.hex()
            assert checksum(ip[12:] + struct.pack(">HH", 6, 20) + tcp) == 0xFFFF, frame.hex()
            ports = struct.unpack_from(">HH", tcp)
            ends = (ip[12:16], ports[0]), (ip[16:20], ports[1])
            step = steps[reply][n // flows % len(steps[reply])]
            sequence, acknowledgment = struct.unpack_from(">II", tcp, 4)
            assert tcp[13] == step[0], f"{n}: {frame.hex()}"
            if step[1] == 0:
                assert ends not in first, f"the connection of {n} is not new"
                first[ends] = sequence
            segments.append((ends, step, sequence, acknowledgment))
    for ends, step, sequence, acknowledgment in segments:
        assert sequence == (first[ends] + step[1]) & 0xFFFFFFFF, ends
        if step[2] is not None and ends[::-1] in first:
            assert acknowledgment == (first[ends[::-1]] + step[2]) & 0xFFFFFFFF, ends
    assert len(first) >= 2 * flows, len(first)
    print(f"{len(first) // 2} connections opened and closed, {flows} at a time, {length} bytes")


def connections(paths, flows, length):
    """Each connection's segments in order of each direction, checked: handshake first, then data that follows on data."""
    next_of, lengths = {}, []
    for path, reply in zip(paths, (False, True)):
        for n, frame in enumerate(frames(path, length, max(4 * flows, 8192))):
            ip, tcp = frame[14:34], frame[34:]
            total = struct.unpack_from(">H", ip, 2)[0]
            own = len(frame)
            if length == "imix":
                lengths += [own] * (n >= flows)
                assert own in IMIX, frame.hex()
            else:
                assert own == length, frame.hex()
            assert ip[0] == 0x45 and ip[9] == 6 and checksum(ip) == 0xFFFF, frame.hex()
            tcp = tcp[: total - 20]
            assert checksum(ip[12:] + struct.pack(">HH", 6, len(tcp)) + tcp) == 0xFFFF, frame.hex()
            ports = struct.unpack_from(">HH", tcp)
            sequence, acknowledgment = struct.unpack_from(">II", tcp, 4)
            ends = (ip[12:16], ports[0]), (ip[16:20], ports[1])
            first = (0x12 if reply else 0x02) if n < flows else 0x18
            assert tcp[13] == first and total == (40 if n < flows else own - 14), frame.hex()
            if ends in next_of:
                assert sequence == next_of[ends], f"a gap at {n}: {frame.hex()}"
            next_of[ends] = (sequence + (1 if n < flows else len(tcp) - 20)) & 0xFFFFFFFF
            if reply and n < flows:
                other = next_of[ends[::-1]]
                assert (other - acknowledgment) & 0xFFFFFFFF < 1 << 31, frame.hex()
    assert len(next_of) == 2 * flows, len(next_of)
    if length == "imix":
        expect_imix(lengths)
    print(f"{flows} connections, {length} bytes")


def expect_imix(lengths):
    """Seven, four and one of twelve; a pass of all flows need not end with a mix."""
    assert len(lengths) >= 4096, len(lengths)
    for length, of_twelve in IMIX.items():
        share = lengths.count(length) / len(lengths)
        assert abs(share - of_twelve / 12) < 0.005, f"{share:.4f} of the frames have {length} bytes"


def new_flows(path, length):
    """Each packet a flow of its own."""
    tuples = [five_tuple(f, length) for f in frames(path, length, 100000)]
    assert len(tuples) > 8192 and len(set(tuples)) == len(tuples), len(tuples)
    print(f"{len(tuples)} new flows, {length} bytes")


def main(flows, length, paths):
    # A pass is `flows` packets, each flow once; two passes are looked at.
    seen, lengths = [], []
    for path in paths:
        captured = list(frames(path, length, max(2 * flows, 8192)))
        lengths += [len(f) for f in captured]
        seen.append([five_tuple(f, length) for f in captured])
    if length == "imix":
        expect_imix(lengths)
    originals, replies = seen
    for tuples in seen:
        assert len(tuples) >= max(2 * flows, 4096), f"only {len(tuples)} frames"
        for start in (0, flows):
            assert len(set(tuples[start : start + flows])) == flows, "a pass that leaves out a flow"
    assert set(originals) == {(b, q, a, p) for a, p, b, q in replies}, "replies that do not mirror originals"
    if flows >= 4096:
        assert originals[:flows] != originals[flows : 2 * flows], "two passes in one order"
    print(f"{flows} flows, {length} bytes: {len(originals)} originals, {len(replies)} replies")


if __name__ == "__main__":
    kind = sys.argv.pop(1) if not sys.argv[1].isdigit() else "udp"
    count, frame_length, files = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    frame_length = frame_length if frame_length == "imix" else int(frame_length)
    if kind == "tcp":
        connections(files, count, frame_length)
    elif kind == "connect":
        lives(files, count, frame_length)
    elif kind == "new":
        new_flows(files[0], frame_length)
    else:
        main(count, frame_length, files)
