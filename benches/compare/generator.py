# SPDX-License-Identifier: Apache-2.0
"""The generator's side of things: the page that flowgen shares (flowgen/flowgen.h), and capture files for net_pcap."""

import mmap
import random
import struct

MAGIC = 0x31304E4547574C46
PORTS = 2
FIELDS = ("packets", "calls", "paused", "passes", "taken_back", "tid", "port_id", "opened", "behind")


class Page:
    """The page of struct flowgen_ctl, shared with one contestant."""

    def __init__(self, path, ports=PORTS):
        with open(path, "w+b") as file:
            file.truncate(64 * (1 + ports))
            self.map = mmap.mmap(file.fileno(), 64 * (1 + ports))

    def ready(self):
        return struct.unpack_from("<Q", self.map, 0)[0] == MAGIC

    def tsc_hz(self):
        return struct.unpack_from("<Q", self.map, 8)[0]

    def run(self, on):
        struct.pack_into("<I", self.map, 16, 1 if on else 0)

    def limit(self, flows):
        """New flows are opened until so many are; 0: for ever."""
        struct.pack_into("<Q", self.map, 24, flows)

    def rate(self, flows_per_second):
        """New flows a second from the next `run(True)` on; 0: as fast as they are taken."""
        struct.pack_into("<Q", self.map, 32, flows_per_second)

    def port(self, index):
        return dict(zip(FIELDS, struct.unpack_from("<QQQQQIIQQ", self.map, 64 * (1 + index))))

    def packets(self):
        return sum(self.port(i)["packets"] for i in range(PORTS))

    def opened(self):
        return self.port(0)["opened"]

    def behind(self):
        return self.port(0)["behind"]

    def taken_back(self):
        return sum(self.port(i)["taken_back"] for i in range(PORTS))

    def tid(self):
        return self.port(0)["tid"]


def flow_tuple(flow, seed):
    """Client, server and client's port of a flow: the same as in flowgen.c."""
    client = 0x0A000000 | ((flow * 0x9E3779B1 + seed) & 0xFFFFFF)
    server = 0xC6120000 | ((flow * 0x85EBCA77 & 0xFFFFFFFF) >> 22)
    return client, server, 0x8000 | ((flow * 0xC2B2AE3D & 0xFFFFFFFF) >> 17)


def write_pcap(path, case, reply):
    """One frame of each flow in one direction, in an order of its own for each direction."""

    def folded(total):
        total = (total & 0xFFFF) + (total >> 16)
        return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF

    length, payload = case.length, bytes(i & 0xFF for i in range(42, case.length))
    macs = bytes([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]) if reply else bytes([2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1])
    words = struct.unpack(f">{(len(payload) + 1) // 2}H", payload + b"\0" * (len(payload) & 1))
    ip_constant = 0x4500 + length - 14 + 0x4000 + (64 << 8) + 17
    udp_constant = 443 + 2 * (length - 34) + 17 + sum(words)
    head = struct.Struct(">12sHHHHHHHIIHHHH")
    record = struct.pack("<IIII", 0, 0, length, length)
    order = list(range(case.flows))
    random.Random(case.seed + reply).shuffle(order)
    with open(path, "wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for flow in order:
            client, server, port = flow_tuple(flow, case.seed)
            addresses = (client >> 16) + (client & 0xFFFF) + (server >> 16) + (server & 0xFFFF)
            source, destination, ports = (server, client, (443, port)) if reply else (client, server, (port, 443))
            file.write(record)
            file.write(
                head.pack(
                    macs,
                    0x0800,
                    0x4500,
                    length - 14,
                    0,
                    0x4000,
                    (64 << 8) | 17,
                    folded(ip_constant + addresses),
                    source,
                    destination,
                    *ports,
                    length - 34,
                    folded(udp_constant + addresses + port) or 0xFFFF,
                )
            )
            file.write(payload)
