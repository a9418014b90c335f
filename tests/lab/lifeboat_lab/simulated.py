# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Simulated time: it passes only when somebody waits for it, and then at once.

How fast this machine is, and what else runs on it, changes nothing of the order of what happens.
"""

from __future__ import annotations

import heapq
import itertools
import math
import selectors
import threading
import time
import typing as t
from collections.abc import Callable

from ansible_collections.lifeboat.rescue.plugins.module_utils._wait import Clock

from .clockwork import Clockwork

# How long a real sshd that took a connection has to say something, in real seconds, before simulated time passes.
MOST_REAL_SECONDS = 20.0


class SimulatedClockwork(Clockwork):
    """A Clockwork whose functions are called by advance(), in the thread that calls it, and never by themselves.

    now: seconds since the epoch. followers: are told each new time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = float(int(time.time()))
        self.followers: list[Callable[[float], None]] = []
        self._waiting: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._guard = threading.Lock()

    def start(self) -> None:
        pass

    def stop(self) -> None:
        """Call nothing any more."""
        with self._guard:
            self._waiting.clear()

    def call_in(self, seconds: float, function: Callable[[], None]) -> None:
        if math.isinf(seconds):
            return
        with self._guard:
            heapq.heappush(self._waiting, (self.now + seconds, next(self._order), function))

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass, and do what is due meanwhile, in its order."""
        end = self.now + seconds
        while True:
            with self._guard:
                if not self._waiting or self._waiting[0][0] > end:
                    break
                self.now, _number, function = heapq.heappop(self._waiting)
            function()
        self.now = end
        for follow in self.followers:
            follow(end)


class World(t.Protocol):
    """What has a time. A SimulatedClockwork, or what stands for one in another process."""

    now: float

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass."""


class SimulatedClock(Clock):
    """The clock of a controller in such a world.

    It is its own thread, the one that made it, that lets time pass. Other threads look ahead meanwhile, for a moment of real
    time. What is connected is real, and answers in real time, which is no time here.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._owner = threading.get_ident()
        self._began = time.monotonic()

    @property
    def _is_owner(self) -> bool:
        return threading.get_ident() == self._owner

    def time(self) -> float:
        return self._world.now

    def monotonic(self) -> float:
        return self._world.now + (0.0 if self._is_owner else time.monotonic() - self._began)

    def pause(self, seconds: float) -> None:
        if self._is_owner:
            self._advance(seconds)
        else:
            super().pause(seconds)

    def select(self, selector: selectors.BaseSelector, seconds: float) -> list[tuple[selectors.SelectorKey, int]]:
        if not self._is_owner:
            return super().select(selector, seconds)
        ready = selector.select(MOST_REAL_SECONDS if selector.get_map() else 0)
        if not ready:
            self._advance(seconds)
        return ready

    def _advance(self, seconds: float) -> None:
        # What is left until a deadline may be too little to make a difference to the time, as it is a float.
        self._world.advance(max(seconds, 0.001))
