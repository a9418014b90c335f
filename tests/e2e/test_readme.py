# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The first rescue of the README, step by step, as it is printed there. tests/session/test_readme.py has the single modules."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lifeboat_lab.demo import Demo
from lifeboat_lab.person import ACCOUNTS, Person, blocks, command, commands
from lifeboat_lab.world import Host, World

FIRST, DISKS, MORNING = "Your first rescue", "Your disks", "At three in the morning"
PASSWORD, VAULT_PASSWORD = "correct horse battery 8", "staple"


@pytest.fixture
def locked_out(tmp_path: Path) -> Iterator[Host]:
    """A server that runs and lets nobody in any more. The inventory has what the README tells to write into it."""
    with World(tmp_path / "world", inventory="readme") as world:
        world.cheapen_boots()
        host = world.hosts["web1"]
        host.machine.power_on(world.running())
        host.wait_for_ssh(240)
        Demo(host, 0).lock_out()
        yield host


@pytest.fixture(params=ACCOUNTS)
def person(request: pytest.FixtureRequest, locked_out: Host) -> Iterator[Person]:
    """Somebody with a vault for the new root password, and with the plays of the README in files."""
    with Person(locked_out.world, request.param) as made:
        [by_hand] = blocks(FIRST, "yaml")
        [disks, _keys] = blocks(DISKS, "yaml")
        for name, text in (("vault.yml", f"reset_root_password_password: {PASSWORD}\n"), ("by-hand.yml", by_hand), ("disks.yml", disks)):
            (made.directory / name).write_text(text)
        made.own()
        done = made.type("ansible-vault encrypt vault.yml", {"New Vault password: ": VAULT_PASSWORD, "Confirm New": VAULT_PASSWORD})
        assert done.returncode == 0, done.stdout
        yield made


def _green(done: subprocess.CompletedProcess[str]) -> str:
    """What it printed, whose end says that nothing failed."""
    assert done.returncode == 0 and "failed=0" in done.stdout, done.stdout
    return " ".join(done.stdout.split())


def test_your_first_rescue(locked_out: Host, person: Person) -> None:
    host, writes = locked_out, locked_out.world.api.writes
    plan, do = (line for line in commands(FIRST) if "rescue_tasks" in line)

    assert "Would boot web1 into rescue12-customer" in _green(person.run(plan))
    assert writes() == [] and len(host.machine.boots) == 1

    said = _green(person.type(do, {"Vault password: ": VAULT_PASSWORD}))
    assert [boot.kind for boot in host.machine.boots] == ["installed", "rescue", "installed"] and PASSWORD not in said
    Demo(host, 0).log_in(PASSWORD)

    before = len(writes())
    said = _green(person.type(do, {"Vault password: ": VAULT_PASSWORD}))
    assert re.search(r"web1 : ok=\d+ changed=0 ", said) and len(writes()) == before and len(host.machine.boots) == 3, said
    assert person.session_files() == [] and host.server.armed().bootType == "harddisk"


@pytest.mark.parametrize("person", ["plain"], indirect=True)
def test_step_by_step(locked_out: Host, person: Person) -> None:
    """The plays, and what is left at three in the morning: the playbooks that mount."""
    host = locked_out
    kinds = ["installed"]
    enter, leave = (command(MORNING, f"lifeboat.rescue.{name} ") for name in ("enter", "leave"))
    for line, says, boots in (
            ("ansible-playbook -i inventory by-hand.yml", "Run any module inside the installed system", ["rescue", "installed"]),
            ("ansible-playbook -i inventory disks.yml", "Debian GNU/Linux 12", ["rescue"]),
            (enter, "a shell in the installed system", []), (leave, "web1", ["installed"])):
        kinds += boots
        assert says in _green(person.run(line))
        assert bool(person.session_files()) is (kinds[-1] == "rescue")
        assert [boot.kind for boot in host.machine.boots] == kinds
    host.wait_for_ssh(60)
    assert person.session_files() == [] and host.server.armed().bootType == "harddisk"
