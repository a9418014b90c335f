# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What `rescue_mode_info: scope=account` costs for many dedicated servers at OVH, and how many calls it makes at once.

The lab's OVH API answers each call 50 ms late. By SSH every server answers: with a host key, and to nobody's log-in, as servers do
for one who knows only the account. API and SSH server are processes of their own (the latter is paramiko's). How many calls were
under way at once is told by the API's log: from when it had read a request until it had the answer.

Beside it the bare script that somebody would write with OVH's client: the list, and then one server after the other, with its boot
option. It looks at nothing by SSH. It is run for some of the servers, and what it took is scaled to all of them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import typing as t
from collections.abc import Iterator, Sequence
from pathlib import Path

import paramiko

from lifeboat_lab.ovh_api import Call, OvhApi, Server

GOAL_SECONDS = 10.0
GOAL_CALLS = 10
DELAY = 0.05

SCRIPT = """
import sys
import ovh
ovh.client.ENDPOINTS[sys.argv[1]] = sys.argv[1]
client = ovh.Client(sys.argv[1])
names = client.get("/dedicated/server")
for name in names[:int(sys.argv[2])]:
    server = client.get("/dedicated/server/" + name)
    assert client.get("/dedicated/server/%s/boot/%s" % (name, server["bootId"]))["bootType"]
"""


class Nobody(paramiko.ServerInterface):
    """Lets nobody in."""


def serve_ssh() -> None:
    """An SSH server on loopback, in this process, until its standard input ends. Prints its port."""
    key = paramiko.RSAKey.generate(2048)
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    print(listener.getsockname()[1], flush=True)

    def serve(connection: socket.socket) -> None:
        transport = paramiko.Transport(connection)
        transport.add_server_key(key)
        # Who comes for the host key hangs up when he has it.
        with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
            transport.start_server(threading.Event(), Nobody())

    def accept() -> None:
        while True:
            serve(listener.accept()[0])

    threading.Thread(target=accept, daemon=True).start()
    sys.stdin.read()
    os._exit(0)


@contextlib.contextmanager
def ssh_server() -> Iterator[int]:
    """Such a server in a process of its own; its port."""
    with subprocess.Popen([sys.executable, __file__, "--serve-ssh"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()
            process.wait(20)


def most_at_once(calls: Sequence[Call]) -> int:
    """How many calls were under way at the busiest moment. One that ends when another begins is not beside it."""
    steps = sorted([(call.time, 1) for call in calls] + [(call.time + call.seconds, -1) for call in calls])
    under_way, most = 0, 0
    for _when, step in steps:
        under_way += step
        most = max(most, under_way)
    return most


def command(directory: Path, api: OvhApi, port: int) -> list[str]:
    """A playbook of the one task, which says what it took."""
    clock = {"ansible.builtin.set_fact": {"clock": "{{ clock | default([]) + [now(utc=true).timestamp()] }}"}}
    task = {"lifeboat.rescue.rescue_mode_info": {"scope": "account", "provider": "ovh_dedicated", "rescue_port": port,
                                                 "session_dir": str(directory / "sessions")}, "register": "account"}
    book = directory / "account.json"
    book.write_text(json.dumps([{"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": [
        clock, task, clock,
        {"ansible.builtin.debug": {"msg": "TOOK={{ {'seconds': clock[1] - clock[0], 'servers': account.servers | length, "
                                          "'heard': account.servers | map(attribute='evidence.host_key') | select | length, "
                                          "'boot': account.servers | map(attribute='boot.name') | unique} | to_json }}="}}]}]))
    return ["ansible-playbook", "-i", "localhost,", str(book)]


def run(argv: Sequence[str], environment: dict[str, str]) -> tuple[float, str]:
    """The seconds that a command took, and what it said."""
    began = time.monotonic()
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=900)
    took = time.monotonic() - began
    assert done.returncode == 0, done.stdout + done.stderr
    return took, done.stdout


def measure(directory: Path, servers: int, sample: int, rounds: int) -> dict[str, object]:
    """Seconds of the task and of the script by turns, and the calls of one task."""
    api = OvhApi([Server(f"ns{number}.ip-192-0-2.eu", ip="127.0.0.1", serverId=number) for number in range(100001, 100001 + servers)])
    api.credential.rules.append(("GET", "/dedicated/server"))
    credentials = {f"OVH_{name.upper()}": value for name, value in api.credential.client_arguments().items()}
    home = directory / "ansible"
    environment = {**os.environ, **credentials, "OVH_ENDPOINT": api.url, "HOME": str(directory), "ANSIBLE_HOME": str(home),
                   "ANSIBLE_NOCOLOR": "1"}
    api.faults.add("*", "", "delay", every=1, seconds=DELAY)
    figures: dict[str, list[float]] = {"account": [], "script": [], "answer": []}
    calls, most = 0, 0
    with api, ssh_server() as port:
        for _round in range(rounds):
            api.log.clear()
            said = run(command(directory, api, port), environment)[1]
            told = json.loads(said.split("TOOK=")[1].split("}=")[0].replace('\\"', '"') + "}")
            assert (told["servers"], told["heard"], told["boot"]) == (servers, servers, ["hd"]), told
            figures["account"].append(told["seconds"])
            figures["answer"].append(statistics.median(call.seconds for call in api.log))
            calls, most = len(api.log), max(most, most_at_once(api.log))
            figures["script"].append(run([sys.executable, "-c", SCRIPT, api.url, str(sample)], environment)[0])
    return {"servers": servers, "sample": sample, "seconds": figures, "calls": calls, "most_at_once": most}


def report(figures: dict[str, t.Any]) -> str:
    """The figures in words."""
    low, middle = ({name: function(values) for name, values in figures["seconds"].items()} for function in (min, statistics.median))
    more = figures["servers"] / figures["sample"]
    return (f"(f) an account of {figures['servers']} servers: {low['account']:.1f} ({middle['account']:.1f}), goal {GOAL_SECONDS:.0f}; "
            f"{figures['calls']} calls, answered after {middle['answer']:.3f}, at most {figures['most_at_once']} at once, "
            f"goal {GOAL_CALLS}\n"
            f"    a bare script, one call after the other, without SSH: {low['script'] * more:.1f} ({middle['script'] * more:.1f}), "
            f"scaled from {figures['sample']} servers")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", type=int, default=500)
    parser.add_argument("--sample", type=int, default=50, help="how many servers the bare script reads")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--serve-ssh", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve_ssh:
        serve_ssh()
    with tempfile.TemporaryDirectory(prefix="lifeboat-bench-") as name:
        figures = measure(Path(name), options.servers, options.sample, options.rounds)
    print(json.dumps(figures) if options.json else report(figures))


if __name__ == "__main__":
    main()
