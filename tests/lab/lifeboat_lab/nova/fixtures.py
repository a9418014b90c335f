# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What tests against Nova share. A test file that says pytest_plugins = "lifeboat_lab.nova.fixtures" has it.

With LIFEBOAT_CLOUD=openstack-full in the environment it is Nova among all of OpenStack's services, for the tests without the
mark one_process.
"""

from __future__ import annotations

import contextlib
import os
import typing as t
from collections.abc import Callable, Iterator

import pytest

from ..openstack_full import RealCloud
from . import Nova
from .cloud import Cloud, Event


class Power:
    """Remembers what the machines were told, and does as the test says meanwhile."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.then: Callable[[Event], t.Any] | None = None

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if self.then:
            self.then(event)

    def names(self, server: str) -> list[str]:
        """What one server was told."""
        return [event["event"] for event in self.events if event["server"] == server]


@pytest.fixture(scope="session")
def nova_power() -> Power:
    return Power()


@pytest.fixture(scope="session")
def running_nova(tmp_path_factory: pytest.TempPathFactory, nova_power: Power) -> Iterator[Cloud]:
    """One for all tests of a run: it takes seconds to start."""
    kind = RealCloud if os.environ.get("LIFEBOAT_CLOUD") == "openstack-full" else Nova
    with kind(tmp_path_factory.mktemp("nova"), nova_power) as nova:
        yield nova


@pytest.fixture
def nova(running_nova: Cloud, nova_power: Power) -> Iterator[Cloud]:
    """It, with nothing left of the test before."""
    running_nova.reset()
    nova_power.events.clear()
    nova_power.then = None
    before = set(running_nova.images())
    yield running_nova
    nova_power.then = None
    running_nova.reset()
    for image in set(running_nova.images()) - before:
        running_nova.remove_image(image)


@pytest.fixture
def make_server(nova: Cloud) -> Iterator[Callable[..., str]]:
    """Make servers as create_server() does; each is deleted after the test."""
    made: list[str] = []

    def make(name: str = "web1", **options: t.Any) -> str:
        made.append(nova.create_server(name, **options))
        return made[-1]

    yield make
    for server in made:
        nova.delete_server(server)


@pytest.fixture
def connect(nova: Cloud) -> Iterator[Callable[..., t.Any]]:
    """Connections of openstacksdk; each is closed after the test."""
    with contextlib.ExitStack() as stack:
        def make(user: str = "member", **settings: t.Any) -> t.Any:
            return stack.enter_context(nova.connection(user, **settings))

        yield make
