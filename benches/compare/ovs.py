# SPDX-License-Identifier: Apache-2.0
"""Open vSwitch with DPDK and its userspace conntrack, in a directory of its own: database, sockets, logs, bridge."""

import os
import re
import subprocess
import time

from . import rules
from .common import Failure, die_with_parent
from .contestant import Contestant

VSWITCHD = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk"
SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
ZONE = 1
BRIDGE = "br0"
UDP_STATES = ("udp_first", "udp_single", "udp_multiple")


class Ovs(Contestant):
    """One PMD thread; conntrack before every decision: `ct(commit)` for what is new and allowed, `+est` passes."""

    name = "ovs"
    settings = ()
    database = None
    before = None

    def paths(self):
        return {f"OVS_{kind}DIR": self.work for kind in ("RUN", "LOG", "DB", "SYSCONF")}

    def environment(self):
        return {**super().environment(), **self.paths()}

    def before_exec(self):
        """All threads but the PMD's, which pins itself, stay where control is."""
        super().before_exec()
        os.sched_setaffinity(0, self.case.control_cpus())

    def command(self):
        # In a network namespace of its own: a datapath has a TAP with a fixed name.
        return ["unshare", "--net", VSWITCHD, "unix:db.sock", f"--unixctl={self.work}/vswitchd.ctl"]

    def tool(self, *line, text=None, seconds=60):
        """Runs one of OVS' programs against this instance."""
        environment = {**os.environ, **self.paths()}
        done = subprocess.run(
            line, check=False, env=environment, cwd=self.work, input=text, text=True, capture_output=True, timeout=seconds
        )
        if done.returncode != 0:
            raise Failure(f"{self.name}: {' '.join(line)[:200]}: {done.stderr.strip()}\n{self.tail()}")
        return done.stdout

    def vsctl(self, *words):
        return self.tool("ovs-vsctl", "--db=unix:db.sock", "--timeout=60", *words)

    def appctl(self, *words):
        return self.tool("ovs-appctl", "-t", f"{self.work}/vswitchd.ctl", *words)

    def ofctl(self, command, *words, text=None):
        return self.tool("ovs-ofctl", command, f"unix:{self.work}/{BRIDGE}.mgmt", *words, text=text)

    def tail(self):
        return super().tail() if os.path.exists(self.output) else ""

    def start_database(self):
        self.tool("ovsdb-tool", "create", "conf.db", SCHEMA)
        with open(os.path.join(self.work, "ovsdb.output"), "wb") as output:
            self.database = subprocess.Popen(
                ["ovsdb-server", "conf.db", "--remote=punix:db.sock", f"--unixctl={self.work}/ovsdb.ctl"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.paths()},
                cwd=self.work,
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509 (no threads here)
            )
        end = time.monotonic() + 30
        while not os.path.exists(os.path.join(self.work, "db.sock")):
            if self.database.poll() is not None or time.monotonic() > end:
                raise Failure(f"{self.name}: ovsdb-server does not start")
            time.sleep(0.01)

    def configure(self):
        control = sum(1 << cpu for cpu in self.case.control_cpus())
        extra = f"--no-pci --in-memory --iova-mode=va --file-prefix={self.case.file_prefix}-{self.name}"
        self.vsctl("--no-wait", "init")
        self.vsctl(
            *("--no-wait", "set", "Open_vSwitch", "."),
            "other_config:dpdk-init=true",
            f'other_config:dpdk-extra="{extra}"',
            f"other_config:dpdk-lcore-mask={control:#x}",
            f"other_config:pmd-cpu-mask={1 << self.case.cpu:#x}",
            # It is stopped for seconds at a time: what it knows of the traffic shall outlast that.
            "other_config:max-idle=600000",
            *self.settings,
        )

    def start(self):
        self.start_database()
        self.configure()
        self.launch()
        self.vsctl("add-br", BRIDGE, "--", "set", "Bridge", BRIDGE, "datapath_type=netdev", "fail-mode=secure")
        self.set_timeouts()
        # One after the other: the first device that is started gets the originals.
        for i, device in enumerate(self.devices()):
            added = ("set", "Interface", f"p{i}", "type=dpdk", f'options:dpdk-devargs="{device}"', f"ofport_request={i + 1}")
            self.vsctl("add-port", BRIDGE, f"p{i}", "--", *added)
            error = self.vsctl("get", "Interface", f"p{i}", "error").strip()
            if error not in ("[]", '""'):
                raise Failure(f"{self.name}: {device}: {error}")
        self.ofctl("add-flows", "-", text="\n".join(rules.openflow(self.case.rules, ZONE)) + "\n")
        if self.case.max_sessions:
            self.appctl("dpctl/ct-set-maxconns", str(self.case.max_sessions))
        self.wait(self.polls, "polls both ports", 120)

    def set_timeouts(self):
        """A zone's timeouts: those of the case, else long enough for a contestant that is stopped while others run."""
        seconds = dict.fromkeys(UDP_STATES, "300")
        if "udp_new" in self.case.timeouts:
            seconds.update(dict.fromkeys(UDP_STATES[:2], self.case.timeouts["udp_new"].rstrip("s")))
        if "tcp_time_wait" in self.case.timeouts:
            seconds.update(tcp_time_wait="1", tcp_close="1", tcp_fin_wait="1", tcp_close_wait="1", tcp_last_ack="1")
        pairs = [f"{key}={value}" for key, value in seconds.items()]
        self.vsctl(
            "--", "--id=@d", "create", "Datapath", "datapath_version=0", "--", "set", "Open_vSwitch", ".", "datapaths:netdev=@d"
        )
        self.vsctl("add-zone-tp", "netdev", f"zone={ZONE}", *pairs)

    def sessions(self):
        return int(self.appctl("dpctl/ct-get-nconns").split()[-1])

    def flush(self):
        self.appctl("dpctl/flush-conntrack")

    def warm_up(self):
        self.page.run(True)
        if self.case.source == "connect":
            seconds = time.monotonic() + 3
            self.wait(lambda: time.monotonic() > seconds, "opens and closes connections", 20)
        elif self.case.source != "new":
            passes = 2 if self.case.source == "tcp" else 1
            self.wait(lambda: self.page.port(1)["passes"] >= passes or self.replied(), "has seen every flow's reply", 300)
            self.wait(lambda: self.sessions() == self.case.flows, f"holds {self.case.flows} connections", 60)
        self.rest()
        self.before = self.counters()

    def replied(self):
        return self.case.source == "pcap" and self.page.port(1)["packets"] > 2 * self.case.flows

    def counters(self):
        """At rest. The device goes on to offer packets that the generator takes back, so received is what came to the rules."""
        sent = re.findall(r"tx pkts=(\d+)", self.ofctl("dump-ports"))
        return {"generated": self.page.packets(), "sent": sum(map(int, sent)), "flows": self.flow_packets()}

    def flow_packets(self):
        """Packets of the flows; `new` includes those of all rules. These counts follow the datapath by a second or so."""
        found, last = None, None
        for _ in range(40):
            last, found = found, self.flow_packets_now()
            if found == last:
                break
            time.sleep(0.5)
        return found

    def flow_packets_now(self):
        packets = dict.fromkeys(rules.COOKIES, 0)
        names = {number: name for name, number in rules.COOKIES.items()}
        for cookie, table, count in re.findall(r"cookie=(0x[0-9a-f]+), .*?table=(\d), n_packets=(\d+)", self.ofctl("dump-flows")):
            name = names.get(int(cookie, 16), "new" if table == "1" else None)
            if name:
                packets[name] += int(count)
        return packets

    def finish(self):
        self.rest()
        found = self.sessions()
        if not self.case.opens and found != self.case.flows:
            raise Failure(f"{self.name} holds {found} connections at the end, not {self.case.flows}")
        before, after = self.before, self.counters()
        self.kill()
        return self.judge(before, after)

    def judge(self, before, after):
        """Every packet since the warm-up was received and sent, by the flow that a known connection matches."""
        flows = {name: count - before["flows"][name] for name, count in after["flows"].items()}
        report = {key: after[key] - before[key] for key in ("generated", "sent")}
        report["received"] = flows.pop("received")
        if report["received"] != report["generated"] or report["sent"] != report["generated"]:
            raise Failure(f"{self.name} did not forward every packet: {report}, by flows: {flows}")
        known = flows["established_out"] + flows["established_in"]
        if not self.case.opens and (known != report["generated"] or flows["new"]):
            raise Failure(f"{self.name} forwarded {report['generated']} packets, but not as of established connections: {flows}")
        return {**report, "flows": flows, "sessions": self.case.flows}

    def kill(self):
        super().kill()
        if self.database is not None and self.database.poll() is None:
            self.database.terminate()
            try:
                self.database.wait(10)
            except subprocess.TimeoutExpired:
                self.database.kill()
                self.database.wait()


class OvsNoEmc(Ovs):
    """The same without its exact match cache, which many flows only thrash."""

    name = "ovs-noemc"
    settings = ("other_config:emc-insert-inv-prob=0",)
