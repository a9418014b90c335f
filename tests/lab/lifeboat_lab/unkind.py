# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How unkind a provider's API may be, in the same words for each of them.

    server.unkind = Unkind(queue_seconds=30, list_lag=3, lost_answers=1)

Each server of the lab's APIs has an Unkind of its own; the default one is kind. Nobody recorded how the real APIs behave in most
of this, so a client has to survive both.
"""

from __future__ import annotations

import time
import typing as t
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

# How long a task is in a state that no documentation has.
UNKNOWN_STATE_SECONDS = 2.0

Value = t.TypeVar("Value")


@dataclass
class Unkind:
    """How an API treats one server.

    queue_seconds: how much longer a task waits before it begins, in the provider's word for that.
    list_lag: seconds until a new task is shown, in lists and by its id.
    setting_lag: seconds until what was written is read back; it takes effect at once.
    boot_lag: seconds in which a boot still follows the settings of before.
    ignored_writes: how many more settings are written with success and never applied.
    lost_answers: how many more requests that change something are carried out, while the connection breaks.
    answer_seconds: how long each answer takes.
    conflict: what is asked for while a task is open is refused (409).
    text_ids: ids are text. unordered: lists have no order. unknown_state: a state that a task has for a while before it begins.
    early_seconds: how long before the reboot the task is done.
    null_fields, missing_fields: of a server and of a task. new_fields: shown besides.
    """

    queue_seconds: float = 0.0
    list_lag: float = 0.0
    setting_lag: float = 0.0
    boot_lag: float = 0.0
    ignored_writes: int = 0
    lost_answers: int = 0
    answer_seconds: float = 0.0
    conflict: bool = False
    text_ids: bool = False
    unordered: bool = False
    unknown_state: str = ""
    early_seconds: float = 0.0
    null_fields: Sequence[str] = ()
    missing_fields: Sequence[str] = ()
    new_fields: Mapping[str, t.Any] = field(default_factory=dict)

    def shown(self, data: Mapping[str, t.Any], ids: Sequence[str] = ()) -> dict[str, t.Any]:
        """An object as this API shows it. ids: the names of its fields that are ids."""
        found = {**data, **self.new_fields}
        for name in ids:
            if name in found and found[name] is not None:
                found[name] = self.id(found[name])
        found.update((name, None) for name in self.null_fields if name in data)
        return {name: value for name, value in found.items() if name not in self.missing_fields}

    def id(self, number: t.Any) -> t.Any:
        """An id as this API shows it."""
        return str(number) if self.text_ids else number

    def listed(self, items: Sequence[Value]) -> list[Value]:
        """A list as this API shows it: where it has no order, neither the first nor the last item is where a client may look for it."""
        return [*items[1::2], *reversed(items[::2])] if self.unordered else list(items)

    def is_shown(self, made_at: float) -> bool:
        """Whether a task is shown that was made then, on the monotonic clock."""
        return time.monotonic() >= made_at + self.list_lag

    def takes(self, name: str) -> bool:
        """Count down one of the fields that count; whether there was one left."""
        left: int = getattr(self, name)
        setattr(self, name, max(0, left - 1))
        return left > 0


class Past:
    """What settings were before they were written, so that they can be read as they were some seconds ago."""

    def __init__(self) -> None:
        self._written: list[tuple[float, dict[str, t.Any]]] = []

    def note(self, before: Mapping[str, t.Any]) -> None:
        """To be called when settings are written, with what these were before."""
        self._written.append((time.monotonic(), dict(before)))

    def seen(self, now: Mapping[str, t.Any], lag: float) -> dict[str, t.Any]:
        """The settings as of `lag` seconds ago. now: as they are."""
        seen = dict(now)
        moment = time.monotonic() - lag
        for written_at, before in reversed(self._written):
            if written_at > moment:
                seen.update(before)
        return seen
