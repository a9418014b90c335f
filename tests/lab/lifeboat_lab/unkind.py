# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How unkind a provider's API may be, in the same words for each of them.

    server.unkind = Unkind(queue_seconds=30, list_lag=3, lost_answers=1)

Each server of the lab's APIs has an Unkind of its own; the default one is kind. Nobody recorded how the real APIs behave in most
of this, so a client has to survive both.
"""

from __future__ import annotations

import contextlib
import random
import time
import typing as t
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

# How long a task is in a state that no documentation has.
UNKNOWN_STATE_SECONDS = 2.0

Value = t.TypeVar("Value")

# By which all that is late is late.
_clock: list[t.Callable[[], float]] = [time.monotonic]


def now() -> float:
    """Seconds on the clock of all that is late."""
    return _clock[0]()


@contextlib.contextmanager
def counted_by(clock: t.Callable[[], float]) -> t.Iterator[None]:
    """Lateness is counted by another clock, meanwhile. It is one for the whole process."""
    _clock.insert(0, clock)
    try:
        yield
    finally:
        _clock.pop(0)


@dataclass
class Unkind:
    """How an API treats one server.

    queue_seconds: how much longer a task waits before it begins, in the provider's word for that.
    list_lag: seconds until a new task is shown, in lists and by its id.
    setting_lag: seconds until what was written is read back; it takes effect at once.
    boot_lag: seconds in which a boot still follows the boot option of before; a key is another thing.
    ignored_writes: how many more settings are written with success and never applied.
    lost_answers: how many more requests that begin a job are carried out, while the connection breaks.
    no_null: null is refused where it is written.
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
    no_null: bool = False
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
        """Whether a task is shown that was made then, by now()."""
        return now() >= made_at + self.list_lag

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
        self._written.append((now(), dict(before)))

    def seen(self, current: Mapping[str, t.Any], lag: float) -> dict[str, t.Any]:
        """The settings as of `lag` seconds ago. current: as they are."""
        seen = dict(current)
        moment = now() - lag
        for written_at, before in reversed(self._written):
            if written_at > moment:
                seen.update(before)
        return seen


# Mixtures of it

OVH = ("ovh_dedicated", "ovh_vps")
SOFTLAYER = ("softlayer", "softlayer_hardware")
PROVIDERS = ("openstack", *OVH, *SOFTLAYER)
DIRECTIONS = ("enter", "leave")

# What an API may do, singly: by name, at which providers, and the values of Unkind that are drawn from. A boot takes 2 s there, and a
# list or a setting that lags does so for 2 to 3 s.
QUIRKS: dict[str, tuple[Sequence[str], Mapping[str, Sequence[t.Any]]]] = {
    "queue": (PROVIDERS, {"queue_seconds": (4.0, 7.0)}),
    "late-list": (PROVIDERS, {"list_lag": (2.0, 3.0)}),
    "late-setting": (("openstack", *OVH), {"setting_lag": (2.0, 3.0)}),
    "late-boot-option": (("ovh_dedicated",), {"boot_lag": (3.0,)}),
    "ignored-write": (OVH, {"ignored_writes": (1,)}),
    "lost-answer": (PROVIDERS, {"lost_answers": (1,)}),
    "no-null": (("ovh_dedicated",), {"no_null": (True,)}),
    "slow-answers": (PROVIDERS, {"answer_seconds": (0.7, 1.5)}),
    "conflict": (("ovh_dedicated",), {"conflict": (True,)}),
    "text-ids": ((*OVH, *SOFTLAYER), {"text_ids": (True,)}),
    "no-order": (PROVIDERS, {"unordered": (True,)}),
    "unknown-state": (PROVIDERS, {"unknown_state": ("planned",)}),
    "early-done": (PROVIDERS, {"early_seconds": (3.0,)}),
    "new-fields": (PROVIDERS, {"new_fields": ({"brandNew": {"a": [1, None]}},)}),
    "null-task": (OVH, {"null_fields": (("comment", "startDate", "lastUpdate", "date", "progress"),)}),
    "missing-task": (OVH, {"missing_fields": (("comment", "function", "startDate", "date", "progress", "type"),)}),
    "null-server": (("ovh_dedicated", "openstack"), {"null_fields": (
        ("noIntervention", "powerState", "state", "OS-EXT-STS:power_state", "OS-SRV-USG:launched_at"),)}),
    "missing-server": (("openstack", *OVH, *SOFTLAYER), {"missing_fields": (
        ("iam", "state", "powerState", "keymap", "zone", "fault", "OS-EXT-STS:power_state", "lastTransaction"),)}),
    "hidden-key": (("ovh_dedicated",), {"missing_fields": (("rescueSshKey",),)}),
}
# What stands behind the address: what is drawn for it.
SERVERS = ("plain", "penalties", "slow-banner", "rsa", "ecdsa")
# Whether the user can log in to the installed system, and how a reboot is asked for.
WAYS = ("soft", "hard", "locked-out")


@dataclass(frozen=True)
class Mixture:
    """What one test is up against.

    direction: in which the API is unkind. quirks: names of QUIRKS with the fields of Unkind that they set. server: one of SERVERS.
    way: one of WAYS.
    """

    provider: str
    direction: str
    quirks: Mapping[str, Mapping[str, t.Any]]
    server: str = "plain"
    way: str = "hard"
    seed: int | None = None

    @property
    def name(self) -> str:
        """It in words, as the name of a test."""
        words = [f"{name}:{value:g}" if isinstance(value, float) else name
                 for name, fields in self.quirks.items() for value in fields.values()]
        seed = [] if self.seed is None else [str(self.seed)]
        return "-".join([*seed, self.provider, self.direction, self.server, self.way, *(words or ["kind"])])

    @property
    def unkind(self) -> Unkind:
        """All of it at once, a new object each time."""
        merged: dict[str, t.Any] = {}
        for fields in self.quirks.values():
            for name, value in fields.items():
                merged[name] = (*merged.get(name, ()), *value) if name in ("null_fields", "missing_fields") else value
        return Unkind(**merged)


def singly() -> list[Mixture]:
    """Each quirk alone, at each provider that may have it, in each direction."""
    return [Mixture(provider, direction, {name: {field_name: values[-1] for field_name, values in fields.items()}})
            for name, (providers, fields) in QUIRKS.items() for provider in providers for direction in DIRECTIONS]


def draw(seed: int) -> Mixture:
    """The mixture of a seed: the same one each time."""
    dice = random.Random(seed)
    provider = dice.choice(PROVIDERS)
    possible = [name for name, (providers, _values) in QUIRKS.items() if provider in providers]
    quirks = {name: {field_name: dice.choice(values) for field_name, values in QUIRKS[name][1].items()}
              for name in sorted(dice.sample(possible, dice.choice((1, 2, 3, 4, 5))))}
    return Mixture(provider, dice.choice(DIRECTIONS), quirks, dice.choice(SERVERS), dice.choice(WAYS), seed)
