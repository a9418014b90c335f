# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Entering and leaving while the provider's API and the server's sshd are unkind, by the vendors' own clients, on boxes.

Each cell is one server with one mixture of unkindness (see lifeboat_lab.unkind), there and back; all cells of a run wait at the same
time. What is asserted is what must be true whatever the API does. Seeds are fixed; LIFEBOAT_UNKIND=N draws N new ones instead,
LIFEBOAT_UNKIND=seeds:1,2,3 takes those, and LIFEBOAT_UNKIND=singly takes each quirk alone. A seed is the first word of a test's name.
"""

from __future__ import annotations

import concurrent.futures
import os
import random
import types

import pytest

from lifeboat_lab.box import Systems
from lifeboat_lab.server import Installed
from lifeboat_lab.unkind import DIRECTIONS, PROVIDERS, QUIRKS, Mixture, Unkind, draw, singly
from lifeboat_lab.world import World, result_of

from .cells import AT_A_TIME, Bench, Case

MOST_SEEDS = 200


def by_ansible(directory, provider):
    """The same by Ansible itself, whose start costs more than all the rest."""
    with World(directory, {"web1": provider}, boxes=Systems()) as world:
        host = world.hosts["web1"]
        host.server.unkind = Unkind(queue_seconds=4.0, list_lag=2.0, answer_seconds=0.3, unordered=True, unknown_state="planned",
                                    new_fields={"brandNew": [None]})
        host.machine.power_on(Installed())
        for state, runs in (("present", "rescue"), ("absent", "installed")):
            done = world.ansible("web1", "-m", "lifeboat.rescue.rescue_mode", "-a", f"state={state} reboot_method=hard")
            assert done.returncode == 0, done.stdout
            result = result_of(done.stdout)
            assert (result["changed"], result["running"], result["fresh"]) == (True, runs, True), done.stdout
            assert host.machine.boots[-1].kind == runs
        assert [boot.kind for boot in host.machine.boots] == ["installed", "rescue", "installed"]
        assert not world.session_files()


@pytest.fixture(scope="module")
def ended(request, tmp_path_factory):
    """All that this run is to do, by name, done at once: what it does is to wait."""
    bench = Bench(tmp_path_factory.mktemp("unkind"))
    params = [item.callspec.params for item in request.session.items if item.path == request.path and hasattr(item, "callspec")]
    # Those that take longest begin first.
    cases = sorted((each["case"] for each in params if isinstance(each.get("case"), Case)), key=lambda case: bool(case.fault), reverse=True)
    with bench.stack, concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
        ansible = {each["provider"]: pool.submit(by_ansible, bench.directory / each["provider"], each["provider"])
                   for each in params if "provider" in each}
        done = {**ansible, **{case.name: pool.submit(bench.run, case, number) for number, case in enumerate(cases, 1)}}
        # pytest sets PYTEST_CURRENT_TEST for each test, and no thread may read the environment meanwhile, as libraries do.
        concurrent.futures.wait(done.values())
        yield done


def quirks(*names, **fields):
    """Quirks by name with the last of their values, or with these."""
    found = {name: {field: values[-1] for field, values in QUIRKS[name][1].items()} for name in names}
    return {**found, **{name.replace("_", "-"): value for name, value in fields.items()}}


def no_boot_id(cell):
    """Nobody ever set what the server boots, which comes to the same as its disk."""
    cell.server.bootId = None


def late_list_and_no_reboot(cell):
    """The list of tasks shows nothing until the request to reboot on the way out breaks before it arrives; then, the one of before."""
    fault = cell.bench.ovh.faults.add("POST", f"/{cell.server.name}/reboot$", "503-html", after=1)

    class UntilThen(Unkind):
        def is_shown(self, made_at):
            return fault.hits > 0

    cell.server.unkind = UntilThen()
    cell.be = lambda unkind: None


def no_address(cell):
    cell.server.ip = None


def rescue_once_more(cell):
    """What was to boot its own system boots the rescue system once more, with new host keys and without our key."""
    inner, left = cell.server.next_boot, [1]

    def next_boot():
        boot = inner()
        if boot.kind == "rescue" or not cell.kinds().count("rescue") or not left:
            return boot
        left.clear()
        return types.SimpleNamespace(kind="rescue", ssh_key=None, password=None)

    cell.server.next_boot = next_boot
    cell.server.refusal_seconds = 0.0  # between two reboots of hardware


QUEUE = {"queue_seconds": 20.0}
# What was done wrong once, each with a cell that shows just it.
MENDED = [
    *(Case(Mixture(provider, "enter", quirks(queue=QUEUE), "slow-banner", "locked-out"),
           "S1: silence counts as a reboot, and a second one is asked for") for provider in PROVIDERS),
    Case(Mixture("softlayer", "enter", quirks("early-done"), "slow-banner", "locked-out"),
         "S1: silence counts as a reboot, and a second one is asked for"),
    Case(Mixture("ovh_dedicated", "enter", quirks(queue={"queue_seconds": 3.0})),
         "S1: a second reset comes after the rescue system was proved", {"boot_timeout": 10.0}, 8.0),
    *(Case(Mixture(provider, "enter", quirks(queue={"queue_seconds": 25.0}), "penalties", "locked-out"),
           "S2: log-ins that fail are refused, which counts as a reboot") for provider in PROVIDERS),
    Case(Mixture("ovh_dedicated", "reboot", quirks(queue=QUEUE), "slow-banner", "locked-out"), "S3: silence counts as a reboot"),
    Case(Mixture("ovh_dedicated", "leave", quirks("late-boot-option")), "S4: the rescue system boots once more and is called installed"),
    *(Case(Mixture(provider, "relapse", {}), "S4: the rescue system boots once more and is called installed",
           {"boot_timeout": 20.0}, prepare=rescue_once_more)
      for provider in PROVIDERS),
    Case(Mixture("openstack", "enter", quirks("late-setting")), "S6: a state that lags counts as a failed rescue, asked for again"),
    Case(Mixture("openstack", "leave", quirks("late-setting")), "S6: a state that lags counts as a failed end of the rescue"),
    *(Case(Mixture(provider, direction, quirks("lost-answer", "late-list")), "S6: asked for twice, because the list lags")
      for provider in PROVIDERS for direction in DIRECTIONS),
    Case(Mixture("ovh_dedicated", "leave", {}), "S7: the reboot on the way in is taken for the one on the way out",
         {"boot_timeout": 10.0, "wait_timeout": 15.0}, prepare=late_list_and_no_reboot),
    Case(Mixture("ovh_dedicated", "enter", quirks(queue=QUEUE)), "S8: a task that waits longer than a boot is asked for again",
         {"boot_timeout": 8.0}),
    Case(Mixture("ovh_dedicated", "leave", quirks("ignored-write")), "S11: reboots into rescue though the boot option was not applied"),
    Case(Mixture("ovh_vps", "enter", quirks("ignored-write")), "S11: what was not applied is never asked for again",
         {"boot_timeout": 10.0, "wait_timeout": 15.0}),
    Case(Mixture("ovh_vps", "leave", quirks("ignored-write")), "S11: says that settings are restored that were not applied",
         {"boot_timeout": 10.0, "wait_timeout": 15.0}),
    Case(Mixture("ovh_dedicated", "netboot", quirks("ignored-write")), "S11: says that it is armed, and it is not"),
    Case(Mixture("ovh_dedicated", "enter", quirks("hidden-key")), "S13: a key that is not shown is lost"),
    Case(Mixture("ovh_dedicated", "enter", quirks("no-null")), "S13: where no boot option was ever set, there is no way out",
         prepare=no_boot_id),
    Case(Mixture("ovh_dedicated", "info", {}, way="locked-out"), "S14: without an address, this machine is looked at", prepare=no_address),
]

# What seeds do not draw.
OTHERS = [Case(Mixture("softlayer", "resume", quirks("slow-answers")))]


# Chosen so that each quirk is there at each provider that may have it, in each direction, and each kind of server at each provider.
SEEDS = [
    1, 3, 5, 9, 14, 17, 24, 51, 54, 71, 74, 75, 86, 95, 98, 114, 138, 195, 262, 332, 408, 686, 731, 744, 778, 999, 1518, 1865,
    2502, 2758, 4765, 4818,
]


def drawn():
    """The mixtures of this run."""
    given = os.environ.get("LIFEBOAT_UNKIND", "")
    if given == "singly":
        return singly()
    seeds = SEEDS
    if given.startswith("seeds:"):
        seeds = [int(seed) for seed in given[6:].split(",")]
    elif given:
        seeds = random.sample(range(10**6), min(int(given), MOST_SEEDS))
    return [draw(seed) for seed in seeds]


@pytest.mark.parametrize("provider", ["ovh_dedicated", "ovh_vps", "softlayer"])
def test_by_ansible(ended, provider):
    ended[provider].result()


@pytest.mark.parametrize("case", [pytest.param(Case(mixture), id=mixture.name) for mixture in drawn()])
def test_there_and_back(ended, case):
    print(ended[case.name].result())


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in [*OTHERS, *MENDED]])
def test_what_no_seed_draws(ended, case):
    print(ended[case.name].result())
