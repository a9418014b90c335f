# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one place of the lab and of the tests that waits for something to come."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from .recipe import LabError

T = TypeVar("T")


def until(question: Callable[[], T], seconds: float = 20.0, otherwise: str | Callable[[], str] = "What was waited for did not come.",
          every: float = 0.005) -> T:
    """Ask again and again until the answer is true; give it back. Raises LabError with `otherwise` after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (answer := question()):
        if time.monotonic() > deadline:
            raise LabError(otherwise if isinstance(otherwise, str) else otherwise())
        time.sleep(every)
    return answer
