# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the API keeps: credentials, mails, secrets and a log; and what it has to do with machines."""

from __future__ import annotations

import re
import secrets
import time
import typing as t
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

from .answers import ANSWERS


class Power(t.Protocol):
    """The power button of a machine."""

    def reset(self) -> None:
        """Cut the power and boot again, or boot a machine that is off. Returns at once."""


class Service(t.Protocol):
    """What is paid for."""

    service_status: str


AnyService = t.TypeVar("AnyService", bound=Service)


def find_service(services: Mapping[str, AnyService], name: str, even_expired: bool) -> AnyService:
    """The one whose name stands in a path. Raises what the API answers where there is none, or none any more."""
    service = services.get(unquote(name))
    if service is None:
        raise ANSWERS["404"]()
    if service.service_status == "expired" and not even_expired:
        raise ANSWERS["460"]()
    return service


@dataclass(frozen=True)
class NextBoot:
    """What a machine boots, as it asked for it.

    kind: `installed`, `rescue` (Linux, SSH answers), and of a dedicated server also `poweroff` (the machine goes off) and
    `windows` and `ipxe-shell` (the machine is on and nothing answers; another netboot kernel, which the lab has not,
    counts as the latter).
    boot_id: None for a VPS, whose kernel is its netboot mode.
    ssh_key, password: what lets root into the rescue system; at most one of them is set.
    at: seconds since the epoch, by the lab's own clock.
    """

    kind: str
    boot_id: int | None
    kernel: str
    ssh_key: str | None
    password: str | None = field(repr=False)
    at: float


@dataclass
class MailOptions:
    """How a server's rescue mail looks. delay in seconds after the boot, math.inf for no mail at all.

    unrelated: how many other mails come in just before. custom_hidden: a mail to an address that is not the account's
    own (`rescueMail`) does not appear in the account's history; nobody is sure about the real API, so both exist.
    """

    language: str = "en"
    plain_password: bool = False
    delay: float = 0.0
    unrelated: int = 0
    custom_hidden: bool = True


@dataclass
class Credential:
    """An application with a consumer key and its rules, as (method, path with *).

    A status other than `validated` is refused.
    """

    rules: list[tuple[str, str]]
    status: str = "validated"
    application_key: str = field(default_factory=lambda: secrets.token_hex(8))
    application_secret: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    consumer_key: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    credential_id: int = field(default_factory=lambda: secrets.randbelow(10**9))
    created: float = field(default_factory=time.time)
    last_use: float | None = None

    def client_arguments(self) -> dict[str, str]:
        """The keyword arguments of ovh.Client."""
        return {"application_key": self.application_key, "application_secret": self.application_secret,
                "consumer_key": self.consumer_key}

    def grants(self, method: str, path: str) -> bool:
        """Whether a rule covers this call. `*` stands for anything, also for slashes and for nothing."""
        return any(method == allowed and re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), path)
                   for allowed, pattern in self.rules)


@dataclass
class Mail:
    """A mail that was sent. in_history: whether the account's history shows it."""

    id: int
    date: str
    subject: str
    body: str = field(repr=False)
    to: str = ""
    in_history: bool = True


@dataclass
class Secret:
    """What `/secret/retrieve` gives out: 30 days long, 7 days after the first reading."""

    value: str = field(repr=False)
    expires: float
    reads: int = 0


@dataclass(frozen=True)
class Call:
    """One line of the log. path has its version and query; status is None where the connection was reset."""

    time: float
    method: str
    path: str
    body: t.Any
    status: int | None
    fault: str | None
    seconds: float
