# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller is killed at each call to each provider's API, on the way in and on the way out.

A process of its own dies by SIGKILL, over the lab's APIs and real Nova, with a machine of two sshds behind. The next one must
finish what was begun, must not reboot a second time, and must never have forgotten a server.

Time is simulated, so each waits as long as it does by itself, and the order of what happens does not depend on this machine.
"""

from __future__ import annotations

import pytest

from lifeboat_lab.ovh_api import Server
from lifeboat_lab.simulated import SimulatedClockwork

pytest_plugins = "lifeboat_lab.nova.fixtures"


@pytest.fixture
def clockwork():
    return SimulatedClockwork()


@pytest.fixture
def server():
    return Server("ns100001.ip-192-0-2.eu", ip="127.0.0.1", task_seconds={"init": 1.0, "todo": 1.0, "doing": 1.0})


@pytest.mark.parametrize(("when", "later"), [("before", 0.0), ("after", 0.0), ("after", 900.0)], ids=["before", "after", "after, late"])
@pytest.mark.parametrize("state", ["present", "absent"])
def test_killed_at_each_call(world, state, when, later):
    """before: at each call that is to change something. after: at each call of all. later: seconds after which the next one comes."""
    runs, boots = {"present": ("rescue", ["rescue"]), "absent": ("installed", ["rescue", "installed"])}[state]
    deaths, untouched = [], False
    while True:
        if not untouched:
            # From the start: what runs, and was booted, is as if nothing had ever been.
            world.machine.boots.clear()
            if state == "absent":
                world.finish("present", "")
        before = world.traces()
        first = world.run(state, {"when": when, "number": len(deaths) + 1})
        if not first["died"]:
            assert first["result"] and not first["result"].get("failed"), first
            break
        died = f"killed {when} {first['calls'][-1]}"
        deaths.append(first["calls"][-1])
        assert len(deaths) < 60, deaths
        if state == "present":
            assert world.record or world.writes() == before[0], f"{died}; it was forgotten"
        untouched = world.traces() == before
        if untouched:
            # It only looked. The next one starts where this one did.
            continue
        world.settle()
        world.machine.clockwork.advance(later)
        result = world.finish(state, died)
        assert (result["running"], world.machine.system, world.machine.boots) == (runs, runs, boots), (died, result)
        if state == "present":
            assert world.finish("absent", "")["running"] == "installed"
        assert world.is_as_before() and not world.record, died
    # It was not for nothing: killed at each of those that change something, and at more of them where it was at all.
    writes = world.asks[state]
    assert [call for call in deaths if any(word in call for word in writes)], deaths
    assert len(deaths) == len(writes) if when == "before" else len(deaths) > len(writes) + 1, deaths
