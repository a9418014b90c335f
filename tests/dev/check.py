# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the parts of ./dev test; the last line says how many tests passed, failed and were skipped."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import timings
from guard import Guard
from running import Outcome, Runner, Step, Totals, sum_of
from steps import PARTS, Workspace

QUICK = tuple(name for name in PARTS if name not in ("openstack-full", "unkind", "matrix"))


def check(work: Workspace, parts: Sequence[str], guard: Guard) -> list[Outcome]:
    """Run these parts."""
    steps: dict[str, Step] = {}
    skipped = []
    for part in parts:
        for step in PARTS[part](work):
            if step.root and os.geteuid():
                print(f"skip {step.name}: it needs root", flush=True)
                skipped.append(Outcome(step.name, Totals(skipped=1), None, 0, 0))
            else:
                steps.setdefault(step.name, step)  # two parts may need the same images
    file = work.cache / "timings.json"
    runner = Runner(work.directory, timings.load(file), guard)
    try:
        runner.run(list(steps.values()))
    finally:
        if work.select is None and not work.quick:
            timings.save(file, runner.outcomes)
        print("\n".join(timings.report(runner.outcomes)), flush=True)
    return [*runner.outcomes, *skipped]


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Run the parts named in the arguments; 0 if all tests passed."""
    parser = argparse.ArgumentParser(prog="./dev test", description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("-k", metavar="EXPRESSION", help="only tests that match, as pytest takes it; of other steps, a part of their name")
    parser.add_argument("parts", nargs="+", choices=[*PARTS, "quick"])
    arguments = parser.parse_args()
    quick = "quick" in arguments.parts
    signal.signal(signal.SIGTERM, _interrupt)
    # A shell has what it runs in the background ignore it; but that is how steps are ended.
    signal.signal(signal.SIGINT, _interrupt)
    with tempfile.TemporaryDirectory(prefix="lifeboat.", ignore_cleanup_errors=True) as directory, Guard(Path(directory)) as guard:
        try:
            work = Workspace(arguments.cache, Path(directory), arguments.k, quick)
            totals = sum_of(check(work, QUICK if quick else arguments.parts, guard))
        except KeyboardInterrupt:
            print("Interrupted.", file=sys.stderr)
            return 130
    if totals.xfailed:
        print(f"{totals.xfailed} tests show known faults that are still there (xfailed)")
    print(totals)
    return 1 if totals.failed or not totals.passed else 0


if __name__ == "__main__":
    sys.exit(main())
