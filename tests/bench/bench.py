# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The benchmarks, each beside its peer in one run. `./dev bench` runs them, `./dev bench e f` those two. (a) and (b) share a box of the
lab, (c) and (d) a machine, and come together, as `ab` and `cd`.

(a) Seconds from the moment that the rescue system's sshd first accepts a log-in (seen by a prober of its own) to the end of
    the command `ansible … rescue_mode state=present`.
(b) `state=present` on a server that is there already, as a task of a playbook, against a bare Python script that makes the same
    calls. And the command `ansible … rescue_mode`, against `ansible … debug`, which shows what Ansible's own start takes.
(c) Seconds per task through chroot_ssh against ansible.builtin.ssh (tests/bench/chroot_ssh.py).
(d) The whole chain, minus the time in which the machine was rebooting: from the request to the first log-in. And as many modules
    as it runs in the rescue system, all of them ansible.builtin.ping, right after a boot as there: what the machine itself takes.
(e) `state=present` on a server of the lab's Nova that is there already, against the task openstack.cloud.server_info
    (tests/bench/openstack_present.py).
(f) `rescue_mode_info: scope=account` over 500 dedicated servers, whose API answers after 50 ms, and how many calls it makes at once
    (tests/bench/account.py).
(g) storage_info in a rescue system with 100 block devices more, and how that grows with their number (tests/bench/storage_info.py).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import paramiko

from lifeboat_lab.box import Systems
from lifeboat_lab.demo import Demo
from lifeboat_lab.images import ensure
from lifeboat_lab.world import Host, World

BENCH = Path(__file__).parent
GOALS = {"a": 0.5, "b": 1.0, "d": 15.0}
# Those that are programs of their own, with their own goals.
ALONE = {"e": "openstack_present.py", "f": "account.py", "g": "storage_info.py"}

# The peer of (b): what somebody would write who only wants to know whether the server is there.
SCRIPT = """
import sys
import ovh, paramiko
ovh.client.ENDPOINTS[sys.argv[1]] = sys.argv[1]
server = ovh.Client(sys.argv[1]).get("/dedicated/server/" + sys.argv[2])
client = paramiko.SSHClient()
client.load_host_keys(sys.argv[4])
client.connect(server["ip"], int(sys.argv[3]), "root", key_filename=sys.argv[5], look_for_keys=False, allow_agent=False)
_stdin, stdout, _stderr = client.exec_command("cat /proc/sys/kernel/random/boot_id /proc/uptime /proc/mounts")
assert server["bootId"] and stdout.read()
client.close()
"""


# A task that notes the time.
CLOCK = {"ansible.builtin.set_fact": {"clock": "{{ clock | default([]) + [now(utc=true).timestamp()] }}"}}
# storage_mount, reset_root_password, fix_firewall, storage_mount.
MODULES_OF_THE_CHAIN = 4


class Prober(threading.Thread):
    """Tries to log in, over and over, and notes when that first works."""

    def __init__(self, host: Host, key: Path):
        super().__init__(daemon=True)
        self.host, self.key = host, paramiko.Ed25519Key.from_private_key_file(str(key))
        self.accepted_at: float | None = None
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.is_set():
            if self.host.banner(3) is None:
                self.ended.wait(0.1)
                continue
            try:
                with paramiko.Transport((self.host.machine.address, self.host.machine.port)) as transport:
                    transport.banner_timeout = 30
                    transport.start_client(timeout=30)
                    transport.auth_publickey("root", self.key)
                    self.accepted_at = time.monotonic()
                    return
            except (paramiko.SSHException, OSError, EOFError):
                self.ended.wait(0.1)

    def stop(self) -> float:
        """When the log-in first worked."""
        self.ended.set()
        self.join()
        assert self.accepted_at is not None, "the prober never got in"
        return self.accepted_at


def bench_enter(world: World, key: Path, rounds: int) -> list[float]:
    """(a). Ends in the rescue system."""
    figures = []
    for number in range(rounds):
        if number:
            done = world.ansible("web1", "-m", "lifeboat.rescue.rescue_mode", "-a", "state=absent")
            assert done.returncode == 0, done.stdout
        prober = Prober(world.hosts["web1"], key)
        prober.start()
        done = world.ansible("web1", "-m", "lifeboat.rescue.rescue_mode", "-a", f"state=present private_key_file={key}")
        returned = time.monotonic()
        assert done.returncode == 0, done.stdout
        figures.append(returned - prober.stop())
    return figures


def bench_present(world: World, key: Path, directory: Path, rounds: int) -> dict[str, list[float]]:
    """(b)"""
    host = world.hosts["web1"]
    known_hosts = next(world.sessions.rglob("known_hosts"))
    call = {"lifeboat.rescue.rescue_mode": {"state": "present", "private_key_file": str(key)}}
    book = directory / "present.json"
    book.write_text(json.dumps([{"hosts": "web1", "gather_facts": False, "tasks": [
        CLOCK, call, CLOCK, {"ansible.builtin.debug": {"msg": "TOOK={{ clock[1] - clock[0] }}="}}]}]))
    commands = {
        "script": [sys.executable, "-c", SCRIPT, world.api.url, host.server.name, str(host.machine.port), str(known_hosts), str(key)],
        "task": world.command("ansible-playbook", [str(book)]),
        "command": world.command("ansible", ["web1", "-m", "lifeboat.rescue.rescue_mode", "-a",
                                             f"state=present private_key_file={key}"]),
        "debug": world.command("ansible", ["web1", "-m", "ansible.builtin.debug"]),
    }
    figures: dict[str, list[float]] = {name: [] for name in commands}
    for _round in range(rounds):
        for name, argv in commands.items():
            began = time.monotonic()
            done = subprocess.run(argv, env=world.ansible_environment(), capture_output=True, text=True, check=False, timeout=120)
            took = time.monotonic() - began
            assert done.returncode == 0, done.stdout + done.stderr
            if name == "task":
                assert "changed=0" in done.stdout, done.stdout
                took = float(done.stdout.split("TOOK=")[1].split("=")[0])
            figures[name].append(took)
    return figures


def bench_ping(world: World, key: Path, directory: Path) -> float:
    """The peer of (d): seconds of modules that do nothing, the first of which finds Python cold."""
    book = directory / "ping.json"
    book.write_text(json.dumps([{"hosts": "web1", "gather_facts": False, "tasks": [
        {"ansible.builtin.include_role": {"name": "lifeboat.rescue.enter_rescue"}}, CLOCK,
        *[{"ansible.builtin.ping": None, "delegate_to": "web1.rescue"}] * MODULES_OF_THE_CHAIN, CLOCK,
        {"ansible.builtin.debug": {"msg": "TOOK={{ clock[1] - clock[0] }}="}}]}]))
    done = world.ansible_playbook(str(book), "-e", f"lifeboat_private_key_file={key}")
    assert done.returncode == 0, done.stdout
    return float(done.stdout.split("TOOK=")[1].split("=")[0])


def bench_chroot(world: World, key: Path, tasks: int) -> dict[str, dict[str, float]]:
    """(c), with the target mounted."""
    host = world.hosts["web1"]
    done = world.ansible_playbook("lifeboat.rescue.enter", "-e", "rescue_hosts=web1", "-e", f"lifeboat_private_key_file={key}")
    assert done.returncode == 0, done.stdout
    done = subprocess.run([sys.executable, str(BENCH / "chroot_ssh.py"), "--host", host.machine.address, "--port",
                           str(host.machine.port), "--key", str(key), "--known-hosts", str(next(world.sessions.rglob("known_hosts"))),
                           "--tasks", str(tasks), "--json"],
                          env=world.ansible_environment(), capture_output=True, text=True, check=False, timeout=3600)
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(done.stdout)["seconds_per_task"])


def bench_chain(world: World, key: Path, directory: Path) -> dict[str, float]:
    """(d). The machine reboots from when that is asked for until it first accepts a log-in."""
    host = world.hosts["web1"]
    variables = directory / "vault.yml"
    variables.write_text(json.dumps({"reset_root_password_password": "correct horse battery 8"}))
    argv = world.command("ansible-playbook", [
        "lifeboat.rescue.rescue", "-e", "rescue_hosts=web1", "-e", "rescue_tasks=reset_root_password,fix_firewall",
        "-e", f"@{variables}", "-e", f"lifeboat_private_key_file={key}"])
    began = time.monotonic()
    # Its lines are the clock: they must come when they are said.
    environment = {**world.ansible_environment(), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    said, asked, probers = [], [], []
    for line in process.stdout:
        said.append(line)
        if ": asking " in line and "reboot" in line:
            asked.append(time.monotonic())
            # The key of the rescue system is not that of the installed one.
            probers.append(Prober(host, key if len(asked) == 1 else world.admin_key))
            probers[-1].start()
    assert process.wait(60) == 0, "".join(said)
    total = time.monotonic() - began
    assert len(asked) == 2, "".join(said)
    booting = [prober.stop() - when for prober, when in zip(probers, asked, strict=True)]
    return {"total": total, "into rescue": booting[0], "back": booting[1], "chain": total - sum(booting)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help="ab, cd, e, f or g; default: all of them")
    parser.add_argument("--rounds", type=int, default=5, help="of (a) and (b)")
    parser.add_argument("--tasks", type=int, default=50, help="of (c)")
    options = parser.parse_args()
    there_are = ["ab", "cd", *ALONE]
    parts = options.parts or there_are
    if not set(parts) <= set(there_are):
        parser.error(f"The parts are {', '.join(there_are)}.")
    print(f"{os.cpu_count()} cores; seconds unless said otherwise; min (median) where there are two", flush=True)
    # The probers' failures are what they are for.
    logging.getLogger("paramiko").addHandler(logging.NullHandler())
    if "ab" in parts:
        bench_on_a_box(options.rounds)
    if "cd" in parts:
        bench_on_a_machine(options.tasks)
    for part, program in ALONE.items():
        if part in parts:
            subprocess.run([sys.executable, str(BENCH / program)], check=True, timeout=3600)


@contextlib.contextmanager
def one_server(boxes: Systems | None) -> Iterator[tuple[World, Path, Path]]:
    """A world with one server whose installed system runs, a key of the user's, and a directory."""
    images = ensure(lambda line: print(line, file=sys.stderr, flush=True))
    with tempfile.TemporaryDirectory(prefix="lifeboat-bench-") as name:
        directory = Path(name)
        key = directory / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        with World(directory / "world", images=images, boxes=boxes) as world:
            world.hosts["web1"].machine.power_on()
            world.hosts["web1"].wait_for_ssh(300)
            yield world, key, directory


def bench_on_a_box(rounds: int) -> None:
    """(a) and (b)."""
    with one_server(Systems()) as (world, key, directory):
        after_accept = bench_enter(world, key, rounds)
        present = bench_present(world, key, directory, rounds)
    low, middle = ({name: function(values) for name, values in present.items()} for function in (min, statistics.median))
    print(f"(a) from the first log-in accepted to the return of rescue_mode: {min(after_accept):.2f} "
          f"({statistics.median(after_accept):.2f}), goal {GOALS['a']}")
    print(f"(b) state=present when there already: script {low['script']:.2f} ({middle['script']:.2f}), task {low['task']:.2f} "
          f"({middle['task']:.2f}), ratio {low['task'] / low['script']:.2f} ({middle['task'] / middle['script']:.2f}), "
          f"goal {GOALS['b']}")
    print(f"    the whole command {low['command']:.2f} ({middle['command']:.2f}), of which Ansible's own start "
          f"{low['debug']:.2f} ({middle['debug']:.2f})")


def bench_on_a_machine(tasks: int) -> None:
    """(c) and (d)."""
    with one_server(None) as (world, key, directory):
        # In the order in which one machine can serve them: (d) from a locked system, the others in rescue.
        Demo(world.hosts["web1"], time.monotonic()).lock_out()
        chain = bench_chain(world, key, directory)
        pings = bench_ping(world, key, directory)
        chroot = bench_chroot(world, key, tasks)
    for mode, row in chroot.items():
        print(f"(c) per task, {mode}: ssh {row['ssh_min']:.3f} ({row['ssh_median']:.3f}), chroot_ssh {row['chroot_ssh_min']:.3f} "
              f"({row['chroot_ssh_median']:.3f}), ratio {row['ratio_min']:.3f} ({row['ratio_median']:.3f}), goal {row['goal']}")
    print(f"(d) the chain without the reboots: {chain['chain']:.1f}, goal {GOALS['d']:.0f} "
          f"(in all {chain['total']:.1f}; into rescue {chain['into rescue']:.1f}, back {chain['back']:.1f})")
    print(f"    of which {MODULES_OF_THE_CHAIN} modules that do nothing would take {pings:.1f}")


if __name__ == "__main__":
    main()
