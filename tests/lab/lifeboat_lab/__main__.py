# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What `./dev demo`, `./dev lab` and `./dev bench` run."""

from __future__ import annotations

import argparse
import os
import runpy
import signal
import sys
import tempfile
import threading
from pathlib import Path

from .accounts import PROVIDERS
from .demo import demo
from .images import LabError, ensure
from .world import REPOSITORY, World


def lab(arguments: argparse.Namespace) -> int:
    """Start the lab and wait for Ctrl-C."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_details: ended.set())
    images = ensure(_say)
    names = [f"web{number}" for number in range(1, arguments.hosts + 1)]
    with tempfile.TemporaryDirectory(prefix="lifeboat-lab-") as directory, \
            World(Path(directory), dict.fromkeys(names, arguments.provider), layout=arguments.layout, images=images) as world:
        for host in world.hosts.values():
            host.machine.power_on()
        print(world.inventory.read_text())
        print(f"That is {world.inventory}. The machines are booting; a log-in takes half a minute.\n"
              "In another terminal:\n\n"
              f"  . {world.environment_file}\n"
              f"  export ANSIBLE_COLLECTIONS_PATH={':'.join(_collections())} PATH={Path(sys.executable).parent}:$PATH\n"
              f"  ansible -i {world.inventory} web1 -m lifeboat.rescue.rescue_mode_info\n"
              f"  ansible -i {world.inventory} web1 -m lifeboat.rescue.rescue_mode -a state=present\n"
              f"  ansible -i {world.inventory} web1 -m lifeboat.rescue.rescue_mode -a state=absent\n\n"
              f"The API's log is {world.directory}/api.log, the consoles are {world.directory}/web1/console-*.log.\n"
              "Ctrl-C ends all of it.", flush=True)
        ended.wait()
        print("Ending.", flush=True)
    return 0


def bench(arguments: argparse.Namespace) -> int:
    """Run the benchmarks."""
    sys.argv = ["bench", *arguments.rest]
    runpy.run_path(str(REPOSITORY / "tests" / "bench" / "bench.py"), run_name="__main__")
    return 0


def _collections() -> list[str]:
    return os.environ.get("ANSIBLE_COLLECTIONS_PATH", "").split(":")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    """Read the command line. Exit status: 0, or 1 with the reason on standard error."""
    parser = argparse.ArgumentParser(prog="./dev", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("demo").set_defaults(function=lambda _arguments: demo(_say))
    lab_parser = commands.add_parser("lab")
    lab_parser.add_argument("--hosts", type=int, default=1, help="how many machines (default: 1)")
    lab_parser.add_argument("--provider", choices=PROVIDERS, default="ovh_dedicated", help="whose they are (default: ovh_dedicated)")
    lab_parser.add_argument("--layout", choices=["gpt", "mbr"], default="gpt", help="of their disks (default: gpt)")
    lab_parser.set_defaults(function=lab)
    commands.add_parser("bench", add_help=False).set_defaults(function=bench)
    arguments, rest = parser.parse_known_args()
    if rest and arguments.command != "bench":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    arguments.rest = rest
    try:
        return int(arguments.function(arguments))
    except LabError as error:
        _say(f"lab: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
