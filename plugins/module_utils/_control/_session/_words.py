# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sentences that more than one step needs. Private to this collection."""

from __future__ import annotations

import time
import typing as t

from ..._errors import LifeboatError, TargetError
from . import _record
from ._evidence import INSTALLED, RESCUE, UNKNOWN

if t.TYPE_CHECKING:
    from .._providers._base import Server
    from ._context import Context
    from ._evidence import Observation
    from ._record import Record

NAMES = {RESCUE: "the rescue system", INSTALLED: "the installed system", UNKNOWN: "an unknown system"}


def interrupted(ctx: Context) -> str:
    """What state the server was left in by a call that failed halfway, for the error's sentence."""
    record = ctx.folder.load()
    if record is None:
        return "Some settings were changed already; no session is open."
    is_set = record.boot and record.phase in (_record.REBOOTING, _record.RESCUE)
    armed = f", with {record.boot['name']} set to boot next" if is_set and record.boot else ""
    return f"The session stopped in its phase {record.phase!r}{armed}; run this again to resume from there."


def console_words(ctx: Context, name: str) -> str:
    """Where to look at the screen, for the advice in an error."""
    url = console_url(ctx, name)
    return f"Look at its console{': ' + url if url else '.'}"


def console_url(ctx: Context, name: str) -> str | None:
    """Where a person can look at the screen, or None."""
    try:
        return ctx.provider.console_url(name)
    except LifeboatError:
        # It is only for people, who have other ways to it.
        return None


def session_words(record: Record | None) -> dict[str, t.Any]:
    """The warning that a session is open, for a result of what does not end it; nothing if there is none."""
    if record is None:
        return {}
    since = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(record.started_at))
    return {"warnings": [f"A rescue session of {record.server} is open since {since}, in its phase {record.phase!r}. "
                         "This does not end it; rescue_mode with state=absent does."]}


def silent(ctx: Context, server: Server, observation: Observation) -> TargetError:
    """Why a rescue system that this session brought up, and that says nothing, is not rebooted."""
    return TargetError(
        f"The rescue system of {server.name}, which this session brought up, does not answer ({observation.heard}).",
        state="It may be at work, with the installed system mounted. Nothing was changed.",
        todo="Look at its console and at the network between; run this again when it answers. If it hangs, "
             + (f"{ctx.options.by_force} reboots it." if ctx.provider.facts.hard_reboot else
                "use state=absent with force=true (exit_rescue_force=true for the playbooks), and then state=present."))
