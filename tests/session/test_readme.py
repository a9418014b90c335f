# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of the README, as they are printed there."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import typing as t
from collections.abc import Callable
from pathlib import Path

import pytest

from lifeboat_lab.box import Systems
from lifeboat_lab.world import REPOSITORY, Host, World, result_of

from lifeboat_lab.person import ACCOUNTS, Person


def _lines(heading: str) -> list[str]:
    """The lines of the first console block below a heading."""
    below = (REPOSITORY / "README.md").read_text().split(f"## {heading}\n", 1)[1]
    block = re.search(r"```console\n(.*?)```", below, re.DOTALL)
    assert block
    return block[1].splitlines()


def _printed(heading: str) -> list[list[str]]:
    """The same, as words."""
    return [shlex.split(line) for line in _lines(heading)]


def _run(world: World, words: list[str], *more: str) -> tuple[int, str]:
    """Run a command with this world's inventory: its exit status and what it printed."""
    program, *arguments = words
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
        [line, *_others] = [line for line in (REPOSITORY / "README.md").read_text().splitlines()
                            if line.strip().startswith("web1 lifeboat_")]
        names = [word.split("=")[0] for word in line.split()]
        # As an ordinary user no server of the lab has the port 22.
        written = [word.split("=")[0] for word in world.inventory.read_text().split()]
        assert [name for name in written if name not in ("ansible_port", "lifeboat_rescue_port")] == names
        host.machine.power_on()
        host.wait_for_ssh(60)
        yield host


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The collection as it is published."""
    directory = tmp_path_factory.mktemp("collection")
    subprocess.run(["ansible-galaxy", "collection", "build", str(REPOSITORY), "--output-path", str(directory)], check=True)
    [built] = directory.glob("*.tar.gz")
    return built


@pytest.fixture(params=ACCOUNTS)
def person(request: pytest.FixtureRequest, readme_host: Host, collection: Path) -> t.Iterator[Person]:
    """Somebody who has installed what the README says, and has the inventory and the credentials that it asks for."""
    world = readme_host.world
    made = Person(world.directory / "person", request.param)
    (made.directory / ".ssh").mkdir(mode=0o700)
    (made.directory / ".ssh/config").write_text("User root\n")
    for source, target in ((world.inventory, "inventory"), (world.known_hosts, ".ssh/known_hosts"), (world.admin_key, ".ssh/id_ed25519"),
                           (collection, collection.name)):
        shutil.copy(source, made.directory / target)
    made.own()
    try:
        [command] = [line for line in _lines("Installation") if line.endswith(" lifeboat.rescue")]
        # Galaxy is not at hand.
        done = made.run(command.replace("lifeboat.rescue", collection.name), {})
        assert done.returncode == 0, done.stdout
        yield made
    finally:
        made.own(0)


def test_at_three_in_the_morning(readme_host: Host, person: Person) -> None:
    """Each line does what it says, one after the other. A box has no disk to be mounted; tests/e2e/test_chain.py does that."""
    info, enter, leave, reboot, netboot, enter_playbook, leave_playbook = _lines("At three in the morning")
    kinds = ["installed"]
    host, environment = readme_host, readme_host.world.environment()
    for line, module, changed, runs, boots in (
            (info, "rescue_mode_info", False, "installed", []), (enter, "rescue_mode", True, "rescue", ["rescue"]),
            (info, "rescue_mode_info", False, "rescue", []), (leave, "rescue_mode", True, "installed", ["installed"]),
            (reboot, "reboot", True, "installed", ["installed"]), (netboot, "netboot", False, None, [])):
        done = person.run(line, environment)
        kinds += boots
        assert f"lifeboat.rescue.{module}" in line and done.returncode == 0, done.stdout
        result = result_of(done.stdout)
        assert result["changed"] is changed and result.get("running") == runs, done.stdout
        assert [boot.kind for boot in host.machine.boots] == kinds, done.stdout
    for line, boot in ((f"{enter_playbook} -e rescue_mount=false", "rescue"), (leave_playbook, "installed")):
        done = person.run(line, environment)
        kinds.append(boot)
        assert done.returncode == 0 and [each.kind for each in host.machine.boots] == kinds, done.stdout
    person.own(0)
    assert not [path for path in (person.directory / ".ansible/lifeboat").rglob("*") if path.is_file() and not path.name.endswith("lock")]


def test_an_inventory_as_in_the_readme(readme_host: Host) -> None:
    info, enter, *_others = _printed("At three in the morning")
    for words, changed, runs in ((info, False, "installed"), (enter, True, "rescue"), (enter, False, "rescue"), (info, False, "rescue")):
        status, output = _run(readme_host.world, words)
        result = result_of(output)
        assert status == 0 and (result["changed"], result["running"], result["address"]) == (
            changed, runs, readme_host.machine.address), output
    assert [boot.kind for boot in readme_host.machine.boots] == ["installed", "rescue"]
    assert readme_host.server.reboots == [], "the running system was asked first"


def test_leaving_with_an_inventory_as_in_the_readme(readme_host: Host) -> None:
    _info, enter, leave, *_others = _printed("At three in the morning")
    assert _run(readme_host.world, enter)[0] == 0
    status, output = _run(readme_host.world, [*leave[:-1], f"{leave[-1]} boot_timeout=10 soft_timeout=10"])
    assert readme_host.machine.wait_for_boot(3, 10).kind == "installed"
    assert status == 0 and result_of(output)["running"] == "installed", output
