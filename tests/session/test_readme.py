# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of the README, as they are printed there."""

from __future__ import annotations

import json
import shlex
import typing as t
from collections.abc import Callable
from pathlib import Path

import pytest

from lifeboat_lab.box import Systems
from lifeboat_lab.person import ACCOUNTS, Person, blocks, commands
from lifeboat_lab.world import Host, World, result_of

MORNING = "At three in the morning"


def _run(world: World, line: str, *more: str) -> tuple[int, str]:
    """Run a command with this world's inventory: its exit status and what it printed."""
    program, *arguments = shlex.split(line)
    place = arguments.index("-i")
    assert arguments[place + 1] == "inventory"
    runs: dict[str, Callable[..., t.Any]] = {"ansible": world.ansible, "ansible-playbook": world.ansible_playbook}
    done = runs[program](*arguments[:place], *arguments[place + 2:], *more)
    return done.returncode, done.stdout


@pytest.fixture
def readme_host(tmp_path: Path) -> t.Iterator[Host]:
    """A server that runs. The inventory has what the README tells to write into it, and nothing more."""
    with World(tmp_path / "world", boxes=Systems(), inventory="readme") as world:
        host = world.hosts["web1"]
        [line] = blocks("Your first rescue", "ini")
        names = [word.split("=")[0] for word in line.split()]
        # As an ordinary user no server of the lab has the port 22.
        written = [word.split("=")[0] for word in world.inventory.read_text().split()]
        assert [name for name in written if name not in ("ansible_port", "lifeboat_rescue_port")] == names
        host.machine.power_on()
        host.wait_for_ssh(60)
        yield host


@pytest.fixture(params=ACCOUNTS)
def person(request: pytest.FixtureRequest, readme_host: Host) -> t.Iterator[Person]:
    with Person(readme_host.world, request.param) as made:
        yield made


def test_at_three_in_the_morning(readme_host: Host, person: Person) -> None:
    """Each line does what it says, one after the other. A box has no disk to be mounted; tests/e2e/test_readme.py has one."""
    info, enter, leave, reboot, netboot, enter_playbook, leave_playbook = commands(MORNING)
    kinds = ["installed"]
    host = readme_host
    for line, module, changed, runs, boots in (
            (info, "rescue_mode_info", False, "installed", []), (enter, "rescue_mode", True, "rescue", ["rescue"]),
            (info, "rescue_mode_info", False, "rescue", []), (leave, "rescue_mode", True, "installed", ["installed"]),
            (reboot, "reboot", True, "installed", ["installed"]), (netboot, "netboot", False, None, [])):
        done = person.run(line)
        kinds += boots
        assert f"lifeboat.rescue.{module}" in line and done.returncode == 0, done.stdout
        result = result_of(done.stdout)
        assert result["changed"] is changed and result.get("running") == runs, done.stdout
        assert [boot.kind for boot in host.machine.boots] == kinds, done.stdout
    for line, boot in ((f"{enter_playbook} -e rescue_mount=false", "rescue"), (leave_playbook, "installed")):
        done = person.run(line)
        kinds.append(boot)
        assert done.returncode == 0 and [each.kind for each in host.machine.boots] == kinds, done.stdout
    assert person.session_files() == []


def test_an_inventory_as_in_the_readme(readme_host: Host) -> None:
    info, enter, *_others = commands(MORNING)
    for line, changed, runs in ((info, False, "installed"), (enter, True, "rescue"), (enter, False, "rescue"), (info, False, "rescue")):
        status, output = _run(readme_host.world, line)
        result = result_of(output)
        assert status == 0 and (result["changed"], result["running"], result["address"]) == (
            changed, runs, readme_host.machine.address), output
    assert [boot.kind for boot in readme_host.machine.boots] == ["installed", "rescue"]
    assert readme_host.server.reboots == [], "the running system was asked first"


def test_leaving_with_an_inventory_as_in_the_readme(readme_host: Host) -> None:
    _info, enter, leave, *_others = commands(MORNING)
    assert _run(readme_host.world, enter)[0] == 0
    status, output = _run(readme_host.world, leave.replace("state=absent", "'state=absent boot_timeout=10 soft_timeout=10'"))
    assert readme_host.machine.wait_for_boot(3, 10).kind == "installed"
    assert status == 0 and result_of(output)["running"] == "installed", output


def test_a_healthy_server_is_asked_at_the_address_that_the_provider_knows(readme_host: Host) -> None:
    """The name in the inventory is one that nothing resolves."""
    wanted = {"reset_root_password_authorized_keys": [readme_host.world.admin_key.with_suffix(".pub").read_text().strip()]}
    done = readme_host.world.ansible_playbook("lifeboat.rescue.rescue", "-e", "rescue_hosts=web1", "-e", "rescue_tasks=reset_root_password",
                                              "-e", json.dumps(wanted))
    assert done.returncode == 0 and "nothing of what was asked for is needed" in done.stdout, done.stdout
    assert [boot.kind for boot in readme_host.machine.boots] == ["installed"]
