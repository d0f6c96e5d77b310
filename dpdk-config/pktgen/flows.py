#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes originals.pcap and replies.pcap for flows-pcap.lua: one UDP frame of each flow in each direction, checksums right.

    flows.py [--flows 1000] [--size 64] [--seed 1] [DIRECTORY]

Clients are of 10.0.0.0/8, servers of 198.18.0.0/22. Each capture has its flows in an order of its own, so that a session
table gains nothing from the order in which it was filled.
"""

import argparse
import os
import random
import struct

CLIENT, SERVER = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF


def frame(flow, length, reply):
    """The flow's frame without FCS."""
    client, server = 0x0A000001 + flow, 0xC6120001 + flow % 1022
    port = 32768 + flow * 40503 % 32768
    source, destination = (server, client) if reply else (client, server)
    ports = (443, port) if reply else (port, 443)
    payload = bytes(i & 0xFF for i in range(length - 42))
    udp = struct.pack(">HHHH", *ports, length - 34, 0) + payload
    pseudo = struct.pack(">IIHH", source, destination, 17, len(udp))
    udp = udp[:6] + struct.pack(">H", checksum(pseudo + udp) or 0xFFFF) + udp[8:]
    ip = struct.pack(">BBHHHBBHII", 0x45, 0, length - 14, 0, 0x4000, 64, 17, 0, source, destination)
    ip = ip[:10] + struct.pack(">H", checksum(ip)) + ip[12:]
    return (CLIENT + SERVER if reply else SERVER + CLIENT) + b"\x08\x00" + ip + udp


def write(path, flows, length, reply, seed):
    order = list(range(flows))
    random.Random(2 * seed + reply).shuffle(order)
    with open(path, "wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for flow in order:
            file.write(struct.pack("<IIII", 0, 0, length, length) + frame(flow, length, reply))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flows", type=int, default=1000, help="1 to 4194304 (default 1000)")
    parser.add_argument("--size", type=int, default=64, help="frame size with FCS, 64 to 1518 (default 64)")
    parser.add_argument("--seed", type=int, default=1, help="of the orders")
    parser.add_argument("directory", nargs="?", default=".")
    options = parser.parse_args()
    if not 1 <= options.flows <= 1 << 22 or not 64 <= options.size <= 1518:
        parser.error("--flows: 1 to 4194304, --size: 64 to 1518")
    for name, reply in (("originals.pcap", False), ("replies.pcap", True)):
        write(os.path.join(options.directory, name), options.flows, options.size - 4, reply, options.seed)


if __name__ == "__main__":
    main()
