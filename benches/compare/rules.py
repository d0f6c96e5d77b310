# SPDX-License-Identifier: Apache-2.0
"""The same rules for haechi and for Open vSwitch: the last one lets the generator's flows through, none before it does."""

NAME = "lan-out"


def others(count):
    """Rules that do not match: (source, destination, protocol, port), None for any. Each kind fails in another field."""
    for i in range(count):
        high, low = divmod(i // 4, 256)
        yield (
            (f"172.{16 + high}.{low}.0/24", None, "udp", 443),
            (None, f"203.0.{112 + high}.{low}/32", "tcp", 443),
            (None, f"198.{19 + high}.{low}.0/24", "udp", 443),
            ("10.0.0.0/8", "198.18.0.0/22", ("udp", "tcp")[i // 4 % 2], 1024 + i // 4),
        )[i % 4]


def haechi(count):
    """Lines of TOML: `count` rules, of which the last matches."""
    lines = []
    for i, (source, destination, protocol, port) in enumerate(others(count - 1)):
        lines += ["[[rule]]", f'name = "other-{i + 1}"', 'from = "trust"', 'to = "untrust"', f'service = ["{protocol}/{port}"]']
        lines += [f'source = ["{source}"]'] if source else []
        lines += [f'destination = ["{destination}"]'] if destination else []
        lines += ['action = "allow"']
    return lines + ["[[rule]]", f'name = "{NAME}"', 'from = "trust"', 'to = "untrust"', 'action = "allow"']


COOKIES = {"received": 1, "established_out": 2, "established_in": 3, "new": 4}


def openflow(count, zone):
    """Flows of a bridge with LAN at port 1 and WAN at port 2: what is known passes, and of what is new, what a rule allows."""
    opens = f"actions=ct(commit,zone={zone}),output:2"
    lines = [
        f"cookie={COOKIES['received']},table=0,priority=100,ip,ct_state=-trk,actions=ct(zone={zone},table=1)",
        "table=0,priority=90,arp,in_port=1,actions=output:2",
        "table=0,priority=90,arp,in_port=2,actions=output:1",
        f"cookie={COOKIES['established_out']},table=1,priority=65000,ip,ct_state=+trk+est-inv,in_port=1,actions=output:2",
        f"cookie={COOKIES['established_in']},table=1,priority=65000,ip,ct_state=+trk+est-inv,in_port=2,actions=output:1",
    ]
    for i, (source, destination, protocol, port) in enumerate(others(count - 1)):
        match = f"table=1,priority={60000 - i},{protocol},ct_state=+trk+new-inv,in_port=1,tp_dst={port}"
        match += f",nw_src={source}" if source else ""
        match += f",nw_dst={destination}" if destination else ""
        lines.append(f"{match},{opens}")
    return [*lines, f"cookie={COOKIES['new']},table=1,priority=1,ip,ct_state=+trk+new-inv,in_port=1,{opens}"]
