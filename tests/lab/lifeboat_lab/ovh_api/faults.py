# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fault switches of an API."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass

from .answers import ANSWERS, BODIES

TASK_FAULTS = ("task_ends", "task_hangs", "task_purged")


@dataclass
class Fault:
    """One fault; Faults.add says what the fields mean. hits counts how often it struck."""

    method: str
    path: re.Pattern[str]
    kind: str
    times: float
    every: int
    after: int
    seconds: float
    status: str
    resets: bool
    acts: bool
    seen: int = 0
    hits: int = 0

    def strikes(self, method: str, path: str) -> bool:
        """Count this call; tell whether the fault strikes it."""
        if self.method not in ("*", method) or not self.path.search(path):
            return False
        self.seen += 1
        if self.hits >= self.times or self.seen <= self.after or (self.seen - self.after) % self.every:
            return False
        self.hits += 1
        return True


class Faults:
    """The fault switches of an API."""

    def __init__(self, statuses: Iterable[str]) -> None:
        """statuses: those that a task can have."""
        self._statuses = frozenset(statuses)
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, method: str, path_regex: str, kind: str, *, times: int | None = None, every: int | None = None,
            after: int = 0, seconds: float = 0.0, status: str = "", resets: bool | None = None,
            acts: bool = False) -> Fault:
        """Let calls fail.

        method: GET, PUT, POST, DELETE or `*`. path_regex: searched in the path without its version, with its query.
        kind: `delay` (of `seconds`; the call is carried out afterwards), one of answers.ANSWERS and answers.BODIES (`403`,
        `invalid-credential`, `404`, `409`, `429`, `460`, `500` and so on), `503-html`, `reset` (of the connection); or, for
        the task that a call makes
        (POST …/reboot; of a VPS also POST …/start and …/stop, and PUT), `task_ends` (as `status`: ovhError, customerError,
        cancelled; of a VPS error, blocked, cancelled), `task_hangs` (for ever in `status`, default `doing`), `task_purged`
        (404 from the moment that it is done).
        The first `after` matching calls pass; of those that follow, every `every`-th is struck, `times` times (default:
        once, or without end where `every` is given).
        acts: the call is carried out nevertheless, and only its answer is lost. resets: whether the machine of a
        faulty task is reset; default: not when it ends badly.
        """
        if kind not in (*ANSWERS, *BODIES, *TASK_FAULTS, "delay", "503-html", "reset"):
            raise ValueError(f"no such fault: {kind}")
        if status and status not in self._statuses:
            raise ValueError(f"no such status of a task: {status}")
        limit = times if times is not None else 1 if every is None else math.inf
        fault = Fault(method, re.compile(path_regex), kind, limit, every or 1, after, seconds, status,
                      kind != "task_ends" if resets is None else resets, acts)
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """Let everything work again. Tasks under way keep their faults."""
        with self._lock:
            self._faults.clear()

    def strike(self, method: str, path: str) -> list[Fault]:
        """The faults that strike this call: any delays and task faults, and at most one that spoils the answer."""
        struck: list[Fault] = []
        with self._lock:
            for fault in self._faults:
                spoils = fault.kind not in ("delay", *TASK_FAULTS)
                if spoils and any(other.kind not in ("delay", *TASK_FAULTS) for other in struck):
                    continue
                if fault.strikes(method, path):
                    struck.append(fault)
        return struck
