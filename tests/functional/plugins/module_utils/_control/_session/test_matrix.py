# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each call to each provider's API fails, in each way, once or for good, on the way in and on the way out.

What a call comes to is success with the right system, or an error that has a name and says what state the server is in; and the same call
again, with nothing failing, is the way on. No reboot more than without the fault, and nothing is left when the server is out again.

Time is simulated. `./dev test matrix` runs all of it (LIFEBOAT_MATRIX=all). Another run has what costs least: each call by its name, and
not after each other one, fails once, over lists in step.
"""

from __future__ import annotations

import collections
import itertools
import json
import os

import pytest

from lifeboat_lab import failing, unkind
from lifeboat_lab.ovh_api import Server
from lifeboat_lab.simulated import SimulatedClockwork

from .conftest import PROVIDERS

pytest_plugins = "lifeboat_lab.nova.fixtures"

IS_WHOLE = os.environ.get("LIFEBOAT_MATRIX") == "all"
# How late lists are that are late, in seconds.
LATE = 3.0
# So many calls in a row are to be enough, where one may say that it is to be made again.
MOST_CALLS = 5
# What is tried at Nova each time.
DEAR = ("reset, done", "500, not done", "409", "empty")
SECRETS = ("ovh_application_secret", "ovh_consumer_key", "softlayer_api_key")
WAYS = {"present": ("rescue", ["rescue"]), "absent": ("installed", ["rescue", "installed"])}


@pytest.fixture
def clockwork():
    return SimulatedClockwork()


@pytest.fixture
def server():
    return Server("ns100001.ip-192-0-2.eu", ip="127.0.0.1", task_seconds={"init": 1.0, "todo": 1.0, "doing": 1.0})


@pytest.fixture(autouse=True)
def late_by_the_same_clock(clockwork):
    with unkind.counted_by(lambda: clockwork.now):
        yield


class Cells:
    """A server that goes there and back, while one call of each way fails: two cells at a time.

    bad: what was wrong in which cell, a line each. counts: how the first calls ended, by the code of the failure, or "ok".
    """

    def __init__(self, world, fault):
        self.world, self.fault = world, fault
        self.bad, self.counts = [], collections.Counter()

    def run(self, state, number, call):
        """One cell. number: of the site that fails, or None for none."""
        cell = f"{state}, at {number}: {call}"
        runs, boots = WAYS[state]
        first = self.world.run(state, fault=number and {**self.fault, "site": number})
        if number:
            self.bad += [f"{cell}: {words}" for words in self.classify(first, runs)]
        told = [first["result"]]
        self.world.settle()
        while told[-1].get("failed") and len(told) < MOST_CALLS and (len(told) == 1 or self.world.may_wait(told[-1])):
            told.append(self.world.run(state)["result"])
        if told[-1].get("failed"):
            self.bad.append(f"{cell}: it does not go on: {[each['msg'] for each in told]}")
        if (self.world.machine.system, self.world.machine.boots) != (runs, boots):
            self.bad.append(f"{cell}: {self.world.machine.system} runs, and what was booted: {self.world.machine.boots}")
        if state == "absent" and (not self.world.is_as_before() or self.world.record):
            self.bad.append(f"{cell}: something was left")

    def classify(self, first, runs):
        """What is wrong with the end of a call that met a fault."""
        result = first["result"]
        if not result:
            return ["no result"]
        failure = result.get("failure") or {}
        self.counts[failure.get("code", "ok")] += 1
        wrong = []
        if not result.get("failed") and (result["running"], self.world.machine.system) != (runs, runs):
            wrong.append(f"success, and {self.world.machine.system} runs")
        if result.get("failed") and ("Internal error" in result["msg"] or failure["code"] == "error" or not failure["todo"]):
            wrong.append(f"no name for it: {result['msg']}")
        if result.get("failed") and result["changed"] and not failure["state"]:
            wrong.append(f"no word of the state: {result['msg']}")
        text = json.dumps(first)
        return wrong + [f"{name} is shown" for name in SECRETS if self.world.params.get(name, "(none)") in text]


def sites_of(run):
    """The sites at which a call of this run can fail, as (number, call)."""
    found = list(enumerate(run["sites"], 1))
    return found if IS_WHOLE else [(number, call) for number, call in found if call not in run["sites"][:number - 1]]


def cells():
    """What each test is about, for those that this run has: kind, whether for good, provider, how late."""
    for kind, for_good, provider, lag in itertools.product(failing.KINDS, (False, True), PROVIDERS, (0.0, LATE)):
        # Nova's lateness would be of real time; tests/session/test_unkind.py has it.
        is_possible = provider != "openstack" or not lag
        # Each of Nova's own calls costs as much as ten of the lab's APIs.
        is_cheap = not for_good and not lag and (provider != "openstack" or kind in DEAR)
        if is_possible and (IS_WHOLE or is_cheap):
            yield kind, for_good, provider, lag


@pytest.mark.parametrize(("kind", "for_good", "world", "lag"), list(cells()), indirect=["world"])
def test_each_call_fails(world, kind, for_good, lag, record_property):
    world.be_late(lag)
    sites = {state: sites_of(world.run(state)) for state in WAYS}
    cells = Cells(world, {"kind": kind, "for_good": for_good})
    for way_in, way_out in itertools.zip_longest(*sites.values(), fillvalue=(None, "")):
        world.machine.boots.clear()
        cells.run("present", *way_in)
        cells.run("absent", *way_out)
    record_property("cells", sum(map(len, sites.values())))
    print(f"{sum(map(len, sites.values()))} cells: {dict(cells.counts)}")
    assert not cells.bad, "\n".join(cells.bad)
    assert all(len(each) > 2 for each in sites.values())
