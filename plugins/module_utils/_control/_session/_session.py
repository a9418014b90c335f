# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Entering rescue, leaving it, rebooting: written once, for all providers. Private to this collection.

Every step is announced in the record before it is taken, so that a call after a crash goes on where the last one died:
it never reboots twice for the same wish, and never forgets a server in rescue.
"""

from __future__ import annotations

import typing as t

from ..._errors import BadInput
from .._providers import _base
from .._providers._base import BootOption, Server
from ._enter import Entering
from ._evidence import INSTALLED, RESCUE, Look
from ._leave import Leaving


class Session(Entering, Leaving):
    """One server's way into rescue and out of it: the five wishes, and the two of them that are short."""

    def enter(self) -> dict[str, t.Any]:
        """Have the rescue system run, and be able to log in to it."""
        self._check_options()
        with self._locked():
            return self._enter()

    def leave(self) -> dict[str, t.Any]:
        """Have the installed system run, and every setting as it was."""
        with self._locked():
            return self._leave()

    def reboot(self) -> dict[str, t.Any]:
        """Reboot into whatever is set to boot next."""
        with self._locked():
            return self._plain_reboot()

    def netboot(self, wanted: str) -> dict[str, t.Any]:
        """Set what boots next, and reboot nothing."""
        with self._locked():
            return self._netboot(wanted)

    def info(self) -> dict[str, t.Any]:
        """What is armed, what runs. Changes nothing."""
        record = self.folder.load()
        server, look = self._read_and_look(record)
        option = self._boot_option(server, record)
        return self._result(server, record, look, option, changed=False)

    def asked(self, read: Server | None = None) -> tuple[Server, BootOption | None]:
        """The first of three parts of info(), which takes the calls to the provider. read: what it said just now, if it was asked."""
        server = read or self.provider.read_server(self.options.server)
        return server, self._boot_option(server, self.folder.load())

    def seen(self, server: Server) -> Look:
        """The second part, which looks at the server and makes no call to the provider."""
        return self._read_and_look(self.folder.load(), server)[1]

    def told(self, server: Server, option: BootOption | None, look: Look) -> dict[str, t.Any]:
        """The third part; a call to the provider only where the server is in rescue."""
        return self._result(server, self.folder.load(), look, option, changed=False)

    # -- the boot option, and a reboot without a change of system

    def _netboot(self, wanted: str) -> dict[str, t.Any]:
        name = self.options.server
        if not self.is_separate:
            raise BadInput(f"{self.provider.facts.name} cannot set what boots next without rebooting at once.",
                           state="Nothing was changed.",
                           todo="Use rescue_mode, which does both: state=present for the rescue system, state=absent for the disk.")
        server = self.provider.read_server(name)
        option = self.provider.choose(name, wanted)
        if option.kind == _base.POWEROFF and wanted != "poweroff":
            raise BadInput(f"{option.name} powers {name} off at each boot.", state="Nothing was changed.",
                           todo="If that is what you want, say boot=poweroff.")
        changed = server.boot != option.id
        before = self._boot_option(server, None) if changed else option
        if changed and not self.check_mode:
            self._write(name, self.provider.boot_settings(option))
        return {"changed": changed, "provider": self.provider.facts.name, "server": name, "boot": option.as_result(),
                "armed": self._is_armed(option), "session": self._session_result(self.folder.load()),
                "diff": {"before": {"boot": before.as_result() if before else None}, "after": {"boot": option.as_result()},
                         "before_header": f"{name} next boot", "after_header": f"{name} next boot"}}

    def _plain_reboot(self) -> dict[str, t.Any]:
        record = self.folder.load()
        server, look = self._read_and_look(record)
        option = self._boot_option(server, record)
        work = record or self._empty_record(server)
        if look.system == RESCUE:
            self._refuse_dirty(work, look)
        if option is not None and option.kind == _base.POWEROFF:
            raise BadInput(f"{server.name} is set to power off at its next boot.", state="Nothing was rebooted.",
                           todo="Set another boot option with the module netboot first.")
        goal = RESCUE if self._is_armed(option) else INSTALLED
        if self.check_mode:
            return self._result(server, record, look, option, changed=True)
        # Within a session it is one of its steps. Otherwise nothing is to be remembered of it.
        self._remember = record is not None and goal == RESCUE
        work.reboot = None
        work.tasks = []
        look = self._reboot(work, goal, look, plain=record is None)
        if self._remember:
            self._settle(work, look)
        result = self._result(server, record, look, option, changed=True)
        result["fresh"] = True
        result["tasks"] = work.tasks
        return result
