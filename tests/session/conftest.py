# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whole calls, on boxes: entering and leaving rescue, faults, kills, providers. PYTHONPATH has the collection's tree and tests/lab."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lifeboat_lab.box import Systems
from lifeboat_lab.server import Installed
from lifeboat_lab.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """One server that is off; its installed system lets the administrator in."""
    with World(tmp_path / "world", boxes=Systems()) as made:
        yield made


@pytest.fixture
def running(world: World) -> World:
    """One server whose installed system runs."""
    host = world.hosts["web1"]
    host.machine.power_on(Installed())
    host.wait_for_ssh(60)
    return world
