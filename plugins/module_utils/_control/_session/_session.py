# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Entering rescue, leaving it, rebooting: written once, for all providers. Private to this collection.

Every step is announced in the record before it is taken, so that a call after a crash goes on where the last one died:
it never reboots twice for the same wish, and never forgets a server in rescue.
"""

from __future__ import annotations

import contextlib
import typing as t

from ..._errors import Busy
from ..._wait import CLOCK, Clock
from .._providers._base import BootOption, Provider, Server
from . import _boot, _enter, _leave, _observe, _preflight, _result, _words
from ._context import Context, Options
from ._evidence import Observation
from ._record import SessionStore


class Session:
    """One server's way into rescue and out of it: what each module wants of it."""

    def __init__(self, provider: Provider | t.Callable[[], Provider], options: Options, folder: SessionStore,
                 tell: t.Callable[[str], None], check_mode: bool = False, clock: Clock = CLOCK):
        """As for Context."""
        self.context = Context(provider, options, folder, tell, check_mode, clock)

    @property
    def changed(self) -> bool:
        """Whether something was written at the provider, or rebooted."""
        return self.context.changed

    def interrupted(self) -> str:
        """What state the server was left in by a call that failed halfway, for the error's sentence."""
        return _words.interrupted(self.context)

    def enter(self) -> dict[str, t.Any]:
        """Have the rescue system run, and be able to log in to it."""
        _preflight.check(self.context)
        with self.context.locked():
            return _enter.enter(self.context)

    def leave(self) -> dict[str, t.Any]:
        """Have the installed system run, and every setting as it was."""
        _preflight.check_way(self.context)
        with self.context.locked():
            return _leave.leave(self.context)

    def reboot(self) -> dict[str, t.Any]:
        """Reboot into whatever is set to boot next."""
        _preflight.check_way(self.context)
        with self.context.locked():
            return _boot.plain_reboot(self.context)

    def netboot(self, wanted: str) -> dict[str, t.Any]:
        """Set what boots next, and reboot nothing."""
        with self.context.locked():
            return _boot.netboot(self.context, wanted)

    def info(self) -> dict[str, t.Any]:
        """What is armed, what runs. Changes nothing, but that the session of another controller is remembered here, if our key has
        signed it: so each job can go on where another one, on another controller, has ended.
        """
        ctx = self.context
        record = ctx.folder.load()
        server, observation = _observe.observe(ctx, record)
        if record.adopted if record else observation.evidence and observation.evidence.session:
            # Who is at work on the server has a record of its own.
            with contextlib.suppress(Busy), ctx.folder.locked(0.0, lambda line: None, ctx.check_mode, ctx.clock):
                record = _observe.adopted(ctx, ctx.folder.load(), server, observation, only_signed=True)
        result = _result.make(ctx, server, record, observation, _observe.boot_option(ctx, server, record), changed=False)
        result["not_ready"] = _preflight.reasons(ctx, server)
        result["ready"] = not result["not_ready"]
        return result

    def read_provider(self, read: Server | None = None) -> tuple[Server, BootOption | None]:
        """The first of three parts of info(), which takes the calls to the provider. read: what it said just now, if it was asked."""
        ctx = self.context
        server = read or ctx.provider.read_server(ctx.options.server)
        return server, _observe.boot_option(ctx, server, ctx.folder.load())

    def observe(self, server: Server) -> Observation:
        """The second part, which looks at the server and makes no call to the provider."""
        return _observe.observe(self.context, self.context.folder.load(), server)[1]

    def build_result(self, server: Server, option: BootOption | None, observation: Observation) -> dict[str, t.Any]:
        """The third part; a call to the provider only where the server is in rescue."""
        return _result.make(self.context, server, self.context.folder.load(), observation, option, changed=False)
