# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Leaving rescue. Private to this collection."""

from __future__ import annotations

import typing as t

from ..._errors import LifeboatError, TargetError, TimedOut
from ..._wait import Backoff
from .._providers._base import BootOption, Server
from . import _common, _record
from ._common import Common
from ._evidence import INSTALLED, RESCUE, UNKNOWN
from ._reboot import NAMES
from ._record import Record


class Leaving(Common):
    """The way out of rescue."""

    def _leave(self) -> dict[str, t.Any]:
        record = self.folder.load()
        server, look = self._read_and_look(record)
        if look.client:
            record = self._adopted(record, server, look)
        option = self._boot_option(server, record)
        if record is None and look.system != RESCUE and not self._is_armed(option):
            return self._result(server, None, look, option, changed=False)

        if record is None:
            record = self._empty_record(server)
            record.before = self.provider.restorable_settings(server)
            record.phase = _record.RESCUE
            record.rescue_host_key = look.host_key.line if look.host_key and look.system == RESCUE else None
        record.installed_host_keys = list({*record.installed_host_keys, *self.options.installed_host_keys})
        if look.system == RESCUE:
            # Refused while something is mounted, whatever the phase: only a request to reboot goes before it.
            self._refuse_dirty(record, look)
        elif record.phase == _record.RESCUE and look.system == UNKNOWN and not self.options.force:
            if not self.is_separate and self._is_armed(option) is False:
                raise TargetError(
                    f"{server.name} is no longer in rescue, for {self.provider.facts.name} has it boot {option.name if option else ''}, "
                    f"and nobody answers there by SSH ({look.heard}).",
                    state="This call changed nothing. Somebody ended the rescue, or the provider did after its own time for it.",
                    todo="Look at its console. state=present brings it into rescue again; force=true reboots it once more into its own "
                         "system, which installed_host_keys or proof_port tell where it lets nobody in by SSH.")
            set_to = "" if option is None else f"; the server is set to boot {option.name}"
            raise TargetError(
                f"The rescue system of {server.name} does not answer ({look.heard}), so nobody can say whether "
                "something of the installed system is still mounted there.",
                state=f"Nothing was changed{set_to}.",
                todo="Look at its console; run this again when it answers, or with force=true.")
        changes = {name: value for name, value in record.before.items()
                   if not self.provider.same_setting(name, server.settings.get(name), value)}
        # While arming nothing was rebooted; a reboot asked for since then may still bring the rescue system.
        # Where that is one with the reboot, restoring is what follows it: the installed system was proved to run, and may be
        # off again by now, as it was before.
        is_back = not self.is_separate and record.phase == _record.RESTORING
        must_reboot = (look.system == RESCUE or record.phase in (_record.REBOOTING, _record.LEAVING)
                       or (look.system == UNKNOWN and record.phase != _record.ARMING and not is_back)
                       or (not self.is_separate and self._is_armed(option) is True))
        if self.check_mode:
            return self._result(server, record, look, option, changed=True,
                                before=server.settings, after=record.before)
        settings_before = dict(server.settings)
        if changes and self.is_separate:
            if record.phase != _record.LEAVING:
                self.save(record, _record.RESTORING if must_reboot else record.phase)
            self.say("api", "restoring the provider's settings")
            self._write(server.name, changes)
            server = self.provider.read_server(server.name)
        self.mark("restored")
        if must_reboot:
            if record.phase != _record.LEAVING:
                record.reboot = None
                self.save(record, _record.LEAVING)
            look = self._reboot(record, INSTALLED, look, option=self._way_out(server))
        if not self.is_separate:
            if must_reboot:
                self.save(record, _record.RESTORING)
            server = self._restored(record)
        left = {name: server.settings.get(name) for name, value in record.before.items()
                if not self.provider.same_setting(name, server.settings.get(name), value)}
        if look.client:
            look.client.close()
        if not left:
            self.folder.clear()
        option = self._boot_option(server, None)
        result = self._result(server, record if left else None, look, option, changed=True,
                              before=settings_before, after=server.settings)
        result["tasks"] = record.tasks
        if must_reboot:
            # That is what was waited for.
            result["fresh"] = True
        if left:
            raise LifeboatError(f"The provider did not take back the settings {', '.join(sorted(left))} of {server.name}.",
                                state=f"{NAMES[look.system].capitalize()} runs.", todo="Run this again, or set them by hand.",
                                details={"settings": left})
        return result

    def _way_out(self, server: Server) -> BootOption | None:
        """What to have booted for leaving; None where any reboot does, because the provider's settings are right by then."""
        if self.is_separate or not self.provider.facts.boot_option_lasts:
            return None
        return self.provider.choose(server.name, "harddisk")

    def _restored(self, record: Record) -> Server:
        """Restore what is left to restore once the installed system is back, where that comes with a reboot of the provider's."""
        asked: list[bool] = []

        def look() -> Server | None:
            server = self.provider.read_server(record.server)
            changes = {name: value for name, value in record.before.items()
                       if not self.provider.same_setting(name, server.settings.get(name), value)}
            if changes and not asked:
                asked.append(True)
                self.say("api", "restoring the provider's settings")
                self._write(server.name, changes)
            return None if changes else server

        wait = self.clock.wait(_common.EXPECTED_SECONDS, Backoff(1.0, 5.0))
        try:
            return t.cast(Server, wait.until(look, lambda: TimedOut("The provider has not restored its settings.")))
        except TimedOut:
            # The caller tells what was not taken back.
            return self.provider.read_server(record.server)
