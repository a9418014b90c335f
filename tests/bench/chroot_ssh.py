# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a task through chroot_ssh costs, against ansible.builtin.ssh on the same machine.

Give it a rescue system with the target mounted:

    python tests/bench/chroot_ssh.py --host 127.0.0.1 --port 2222 --key id_ed25519 --known-hosts known_hosts

or two hosts of an inventory:

    python tests/bench/chroot_ssh.py --inventory inventory.yml --rescue web1.rescue --target web1.target

Tasks alternate between the two, so that what else the machine does hits both. The clock is the playbook's own, from the end of
one task to the end of the next; the first two, which connect, are left out.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

GOALS = {"pipelined": 1.05, "not pipelined": 1.15}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inventory", help="inventory that has both hosts; else one is made of the options below")
    parser.add_argument("--rescue", default="rescue", help="host of the inventory, by ansible.builtin.ssh")
    parser.add_argument("--target", default="target", help="host of the inventory, by lifeboat.rescue.chroot_ssh")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int, default=22)
    parser.add_argument("--user", default="root")
    parser.add_argument("--key")
    parser.add_argument("--known-hosts")
    parser.add_argument("--path", default="/mnt/target")
    parser.add_argument("--namespace", help="file of the mount namespace; '' for one for each command")
    parser.add_argument("--python", default="/usr/bin/python3", help="interpreter on both hosts")
    parser.add_argument("--tasks", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--timeout", type=int, default=1800, help="seconds for one playbook")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parsed = parser.parse_args()
    if bool(parsed.inventory) == bool(parsed.host):
        parser.error("give either --inventory or --host")
    return parsed


def inventory(options: argparse.Namespace) -> dict[str, object]:
    ssh = ["-o", "IdentitiesOnly=yes"]
    if options.known_hosts:
        ssh += ["-o", f"UserKnownHostsFile={os.path.abspath(options.known_hosts)}"]
    common: dict[str, object] = {
        "ansible_host": options.host, "ansible_port": options.port, "ansible_user": options.user,
        "ansible_ssh_common_args": " ".join(ssh), "ansible_python_interpreter": options.python}
    if options.key:
        common["ansible_ssh_private_key_file"] = os.path.abspath(options.key)
    target = {"ansible_connection": "lifeboat.rescue.chroot_ssh", "ansible_chroot_path": options.path}
    if options.namespace is not None:
        target["ansible_chroot_namespace"] = options.namespace
    return {"all": {"vars": common, "hosts": {options.rescue: {"ansible_connection": "ansible.builtin.ssh"},
                                              options.target: target}}}


def play(hosts: list[str], tasks: int) -> list[dict[str, object]]:
    """Each task on one host, then on the other, with a look at the clock after each: what the machine does besides hits both."""
    clock = {"name": "Look at the clock", "ansible.builtin.set_fact": {"clock": "{{ clock | default([]) + [now(utc=true).timestamp()] }}"}}
    commands = [{"name": f"Task {number} on {host}", "ansible.builtin.command": "true", "changed_when": False, "delegate_to": host}
                for number in range(tasks + 1) for host in hosts]
    return [{"name": "Bench", "hosts": hosts[0], "gather_facts": False,
             "tasks": [clock, *(task for command in commands for task in (command, clock)),
                       {"name": "Tell", "ansible.builtin.debug": {"msg": "CLOCK={{ clock | to_json }}="}}]}]


def seconds_per_task(book: Path, timeout: int, environment: dict[str, str]) -> tuple[list[float], list[float]]:
    """The seconds that each task took on the one and on the other host; those that connect first are left out."""
    done = subprocess.run(["ansible-playbook", str(book)], env=environment, capture_output=True, text=True,
                          check=False, timeout=timeout)
    found = re.search(r"CLOCK=(\[.*?\])=", done.stdout)
    if done.returncode or not found:
        sys.exit(f"The playbook failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    clock = json.loads(found.group(1))
    took = [after - before for before, after in itertools.pairwise(clock)][2:]
    return took[::2], took[1::2]


def main() -> None:
    options = arguments()
    if not shutil.which("ansible-playbook"):
        sys.exit("ansible-playbook is not on the PATH.")
    results: dict[str, dict[str, list[float]]] = {mode: {"ssh": [], "chroot_ssh": []} for mode in GOALS}
    with tempfile.TemporaryDirectory(prefix="bench.") as name:
        work = Path(name)
        hosts = Path(options.inventory) if options.inventory else work / "inventory.json"
        if not options.inventory:
            hosts.write_text(json.dumps(inventory(options)))
        book = work / "play.json"
        book.write_text(json.dumps(play([options.rescue, options.target], options.tasks)))
        environment = {**os.environ, "ANSIBLE_INVENTORY": str(hosts.resolve()), "ANSIBLE_NOCOLOR": "1",
                       "ANSIBLE_SSH_CONTROL_PATH_DIR": str(work / "cp"),
                       "ANSIBLE_SSH_ARGS": "-o ControlMaster=auto -o ControlPersist=2s"}
        for _round in range(options.rounds):
            for mode, figures in results.items():
                environment["ANSIBLE_PIPELINING"] = str(mode == "pipelined")
                for connection, took in zip(figures, seconds_per_task(book, options.timeout, environment), strict=True):
                    figures[connection] += took
    report(results, options)


def report(results: dict[str, dict[str, list[float]]], options: argparse.Namespace) -> None:
    summary = {}
    for mode, figures in results.items():
        row = {f"{connection}_{what}": round(function(values), 4) for connection, values in figures.items()
               for what, function in (("min", min), ("median", statistics.median))}
        row["ratio_min"] = round(min(figures["chroot_ssh"]) / min(figures["ssh"]), 3)
        row["ratio_median"] = round(row["chroot_ssh_median"] / row["ssh_median"], 3)
        row["goal"] = GOALS[mode]
        summary[mode] = row
    if options.json:
        print(json.dumps({"tasks": options.tasks, "rounds": options.rounds, "seconds_per_task": summary}))
        return
    print(f"seconds per task, {options.tasks} tasks, {options.rounds} rounds: min (median)")
    for mode, row in summary.items():
        print(f"{mode:14}  ssh {row['ssh_min']:.3f} ({row['ssh_median']:.3f})"
              f"  chroot_ssh {row['chroot_ssh_min']:.3f} ({row['chroot_ssh_median']:.3f})"
              f"  ratio {row['ratio_min']:.3f} ({row['ratio_median']:.3f}), goal {row['goal']}")


if __name__ == "__main__":
    main()
