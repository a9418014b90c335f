# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How many calls to the provider's API each way takes, as docs/providers.md has them. Time is simulated, so each run has as many."""

from __future__ import annotations

import pathlib

import pytest

from lifeboat_lab.ovh_api import Server
from lifeboat_lab.simulated import SimulatedClockwork

from .conftest import PROVIDERS

pytest_plugins = "lifeboat_lab.nova.fixtures"

PAGE = pathlib.Path(__file__).parents[6] / "docs/providers.md"
HEADING = "| provider | enter | once more | leave | once more |"


@pytest.fixture
def clockwork():
    return SimulatedClockwork()


@pytest.fixture
def server():
    return Server("ns100001.ip-192-0-2.eu", ip="127.0.0.1", task_seconds={"init": 1.0, "todo": 1.0, "doing": 1.0})


def documented():
    """The numbers of the page, by provider."""
    below = PAGE.read_text().split(HEADING, 1)[1].strip().splitlines()[1:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in below[:len(PROVIDERS)]]
    return {name.strip("`"): [int(number) for number in numbers] for name, *numbers in rows}


def test_calls_of_each_way(world, request):
    """A server whose boot takes 30 s, each state of a task one."""
    counts = []
    for state, is_changed in (("present", True), ("present", False), ("absent", True), ("absent", False)):
        done = world.run(state)
        assert done["result"]["changed"] is is_changed, done["result"]
        counts.append(len(done["calls"]))
    assert documented()[request.node.callspec.params["world"]] == counts
