# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a task of the API goes on, and what it does to the machine."""

from __future__ import annotations

import sys
import traceback
import typing as t
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .faults import TASK_FAULTS, Fault

if t.TYPE_CHECKING:
    from .api import OvhApi


def task_fault(faults: Sequence[Fault]) -> Fault | None:
    """The first fault that is one of the task that a call makes."""
    return next((fault for fault in faults if fault.kind in TASK_FAULTS), None)


@dataclass
class Course:
    """The course of one task: its statuses one after the other, and then `done` or, by a fault, another end.

    statuses: those before the end, in their order. seconds: how long each of them lasts. act_at: on which status, or on
    `done`, act() is called, which may touch the machine. act_late: so many seconds later than that. bad_end: the usual status
    of a task that failed. enter: called under the API's lock with each status and whether the task has ended with it. broken:
    called where act() raised something, unless it came late.
    """

    api: OvhApi
    statuses: Sequence[str]
    seconds: Mapping[str, float]
    act_at: str
    bad_end: str
    enter: Callable[[str, bool], None]
    act: Callable[[], None]
    broken: Callable[[], None]
    fault: Fault | None = None
    act_late: float = 0.0

    def begin(self) -> None:
        """Begin, on the clock's thread: a machine is never touched under our lock, it may have to ask for its next boot."""
        self.api.clockwork.call_in(0, lambda: self._go_to(self.statuses[0]))

    def _go_to(self, status: str) -> None:
        fault, ended = self.fault, status not in self.statuses
        with self.api.lock:
            self.enter(status, ended)
        if (status == self.act_at or (ended and self.act_at == "done")) and (fault is None or fault.resets):
            if self.act_late:
                self.api.clockwork.call_in(self.act_late, self.act)
                self._follow(status, ended)
                return
            try:
                self.act()
            except Exception:  # as the real API would have it: the task fails, and the API goes on
                traceback.print_exc(file=sys.stderr)
                self.broken()
                if not ended:
                    self._go_to(self.bad_end)
                return
        self._follow(status, ended)

    def _follow(self, status: str, ended: bool) -> None:
        fault = self.fault
        if ended or (fault and fault.kind == "task_hangs" and (fault.status or "doing") == status):
            return
        follows = (*self.statuses, "done")[self.statuses.index(status) + 1]
        if follows == "done" and fault and fault.kind == "task_ends":
            follows = fault.status or self.bad_end
        self.api.clockwork.call_in(self.seconds[status], lambda: self._go_to(follows))
