# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whole jobs on machines that really boot. PYTHONPATH has the collection's tree and tests/lab."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lifeboat_lab.demo import LOCKED_OUT
from lifeboat_lab.images import File
from lifeboat_lab.server import Installed
from lifeboat_lab.world import World

PASSWORD = "correct horse battery 8"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """One server that is off; its installed system lets the administrator in."""
    with World(tmp_path / "world") as made:
        yield made


@pytest.fixture
def cheap_world(world: World) -> World:
    """The same; its boots are cheap, for whose claim is no boot."""
    world.cheapen_boots()
    return world


@pytest.fixture
def locked_world(tmp_path: Path) -> Iterator[World]:
    """One server that is off; its installed system's firewall lets nobody in by SSH, and its root password is unknown.

    Its boots are cheap.
    """
    with World(tmp_path / "world", files={"/etc/nftables.conf": File(LOCKED_OUT.encode(), 0o755)}) as made:
        made.cheapen_boots()
        yield made


@pytest.fixture
def booted(world: World) -> World:
    """One server whose installed system has booted."""
    host = world.hosts["web1"]
    host.machine.power_on(Installed())
    host.wait_for_ssh(240)
    return world


@pytest.fixture
def running(cheap_world: World) -> World:
    """One server whose installed system runs, and whose rescue system will: both are resumed from snapshots, and boot no more."""
    world, host = cheap_world, cheap_world.hosts["web1"]
    host.machine.power_on(world.running())
    host.wait_for_ssh(240)
    return world


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    """Variables with the new root password, as a vault would hold them."""
    path = tmp_path / "vault.yml"
    path.touch(0o600)
    path.write_text(json.dumps({"reset_root_password_password": PASSWORD}))
    return path
