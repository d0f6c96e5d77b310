# SPDX-License-Identifier: Apache-2.0
"""What every script needs: failures, the frame around a measurement, the control API, the machine."""

import contextlib
import ctypes
import http.client
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ROOT = os.path.dirname(HERE)


class Failure(Exception):
    """What ends the run with one clear line."""


def log(text):
    print(text, file=sys.stderr, flush=True)


PR_SET_PDEATHSIG = 1


def die_with_parent():
    """For a child that is about to run: it goes when this process does, however that goes."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def own_autogroup():
    """For a child that is about to run: all CPUs, and before everybody else on them; it ends with this process."""
    die_with_parent()
    # A session of its own is an autogroup of its own, and under autogroups only the group's nice value counts.
    os.sched_setaffinity(0, range(os.cpu_count()))
    try:
        os.setpriority(os.PRIO_PROCESS, 0, -20)
        with open("/proc/self/autogroup", "w") as file:
            file.write("-20")
    except OSError:
        pass  # a kernel without autogroups


def measure_from(cpus):
    """For the measuring process itself: on these CPUs, and as little kept waiting there as those that it measures."""
    with contextlib.suppress(PermissionError):
        os.setsid()  # refused to the first process of a group, which has its session already
    own_autogroup()
    os.sched_setaffinity(0, cpus)


def supervise(name, options, cpus, measure, write):
    """Calls `measure(directory)`, from these CPUs, then `write(publish)`: after a failure, too, for what was measured until
    then is not lost. Returns the exit status. Nothing is left behind, however it ends."""
    work = tempfile.mkdtemp(prefix=f"haechi-{name}.", dir=options.work)

    def interrupted(signum, _frame):
        raise SystemExit(128 + signum)

    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, interrupted)
    measure_from(cpus)
    try:
        measure(work)
        write(options.publish)
    except Failure as failure:
        write(False)
        log(f"{name}: {failure}")
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        if not options.keep:
            shutil.rmtree(work, ignore_errors=True)
    return 0


class Api:
    """A haechi node's control API: HTTP and JSON over its Unix socket."""

    def __init__(self, path):
        self.path = path

    def get(self, what):
        return self.ask("GET", what)

    def ask(self, method, what, seconds=10):
        connection = http.client.HTTPConnection("localhost", timeout=seconds)
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(seconds)
        try:
            connection.sock.connect(self.path)
            connection.request(method, what)
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise Failure(f"haechi's API answers {what} with {response.status}: {body[:200]!r}")
        return json.loads(body)


def machine():
    def first(pattern, path):
        with open(path) as file:
            found = re.search(pattern, file.read(), re.MULTILINE)
        return found.group(1) if found else "?"

    def command(*line):
        try:
            return subprocess.run(line, check=False, capture_output=True, text=True, cwd=ROOT).stdout.strip()
        except OSError:
            return "?"

    return {
        "cpu": first(r"^model name\s*: (.*)$", "/proc/cpuinfo"),
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "dpdk": command("pkg-config", "--modversion", "libdpdk"),
        "ovs": command("dpkg-query", "-W", "-f", "${Version}", "openvswitch-switch-dpdk"),
        "commit": command("git", "describe", "--always", "--dirty"),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
