# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Settings at the provider: written, and read back. Private to this collection."""

from __future__ import annotations

import typing as t

from ..._errors import TimedOut
from ..._wait import Backoff
from .._providers._base import Server

if t.TYPE_CHECKING:
    from ._context import Context

# How long what was written to a provider may take to be shown, and after how long it is written once more.
SETTING_SECONDS = 20.0
REWRITE_SECONDS = 5.0


def differing(ctx: Context, server: Server, wanted: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Those of the wanted settings that the server does not have."""
    return {name: value for name, value in wanted.items()
            if not ctx.provider.same_setting(name, server.settings.get(name), value)}


def write_and_read(ctx: Context, name: str, changes: t.Mapping[str, t.Any], until: t.Mapping[str, t.Any]) -> Server:
    """Write settings, and read the server until it has those of `until`, or the time for that is up.

    That a provider accepted something proves nothing: it may not apply it, or show it some seconds later. So it is written more
    than once, which settings can be.
    """
    again = ctx.clock.pace(Backoff(REWRITE_SECONDS, REWRITE_SECONDS))

    def poll() -> Server | None:
        if again.due():
            ctx.write(name, changes)
        server = ctx.provider.read_server(name)
        return None if differing(ctx, server, until) else server

    try:
        wait = ctx.clock.wait(SETTING_SECONDS, Backoff(0.5, 3.0))
        return t.cast(Server, wait.until(poll, lambda: TimedOut("The provider has not set it.")))
    except TimedOut:
        return ctx.provider.read_server(name)
