# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long steps and tests take: kept from run to run to order the lanes, and shown at the end of one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from running import Outcome

SLOWEST = 20
SHOWN = 1.0  # seconds; what is quicker is not worth a line


def load(file: Path) -> dict[str, float]:
    """Return the seconds that each step took when it last passed, by its name; what cannot be read counts as nothing."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return {str(name): float(seconds) for name, seconds in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def save(file: Path, outcomes: Iterable[Outcome]) -> None:
    """Keep what these steps took, if they passed."""
    new = {outcome.step: round(outcome.seconds, 1) for outcome in outcomes if not outcome.problem}
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f"{file.name}.{os.getpid()}")
    draft.write_text(json.dumps({**load(file), **new}, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    draft.replace(file)


def report(outcomes: Iterable[Outcome]) -> Iterator[str]:
    """Yield lines: what each part took, and the slowest tests."""
    outcomes = list(outcomes)
    parts: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        parts.setdefault(outcome.step.partition(" ")[0], []).append(outcome)
    yield "What each part took: wall time of its steps, CPU time of their processes"
    for part, its in sorted(parts.items(), key=lambda item: -sum(outcome.seconds for outcome in item[1])):
        yield f"{sum(o.seconds for o in its):8.1f} s {sum(o.cpu for o in its):8.1f} s CPU  {part}"
    tests = sorted((test for outcome in outcomes for test in outcome.tests if test.seconds >= SHOWN), key=lambda test: -test.seconds)
    if tests:
        yield "The slowest tests"
        for test in tests[:SLOWEST]:
            yield f"{test.seconds:8.1f} s  {test.step}: {test.name}"
