# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Entering rescue, and adopting a server that is there already. Private to this collection."""

from __future__ import annotations

import dataclasses
import typing as t

from ..._errors import BadInput, Busy, TargetError, WrongSystem
from .._providers import _base
from .._providers._base import BootOption, Server
from .._ssh._keys import SESSION_KEY_COMMENT
from . import _record
from ._common import Common
from ._evidence import RESCUE, UNKNOWN, Look
from ._record import Record


class Entering(Common):
    """The way into rescue."""

    def _enter(self) -> dict[str, t.Any]:
        record = self.folder.load()
        server, look = self._read_and_look(record)
        if look.client:
            record = self._adopted(record, server, look)
        if record and self._already_there(record, look):
            return self._stay(record, server, look)
        if record and self._is_unseen(record) and look.system == UNKNOWN and not self.options.force:
            option = self._boot_option(server, record)
            if self._is_armed(option) or not self.provider.facts.tells_armed:
                # It is not used by SSH. That it does not answer says nothing.
                return self._result(server, record, look, option, changed=False)
        if record is None and not self.options.force and self._is_somebody_elses(server, look):
            return self._take_over(server, look)
        going_on = record is not None and record.phase in (_record.ARMING, _record.REBOOTING)
        if record and record.phase == _record.RESCUE and look.system == UNKNOWN and not self.options.force \
                and server.boot in (None, (record.boot or {}).get("id")):
            raise TargetError(
                f"The rescue system of {server.name}, which this session brought up, does not answer ({look.heard}).",
                state="It may be at work, with the installed system mounted. Nothing was changed.",
                todo="Look at its console and at the network between; run this again when it answers. If it hangs, "
                     + ("force=true reboots it." if self.provider.facts.hard_reboot else
                        "use state=absent with force=true, and then state=present."))

        option = self.provider.choose(server.name, self.options.rescue)
        if self.provider.is_windows(option):
            self.unseen = True
        elif self.provider.rescue_rank(option) is None:
            raise BadInput(f"{option.name} of {server.name} is no rescue system that can be logged in to by SSH.",
                           todo="Choose another one, or leave the option rescue out.")
        self.provider.check_rights(server.name)
        if not going_on:
            self._refuse_other_work(server, record)
        record = self._new_record(record, server)
        wanted = self._wanted_settings(record, server, option)
        changes = {name: value for name, value in wanted.items()
                   if not self.provider.same_setting(name, server.settings.get(name), value)}
        settings_before, settings_after = dict(server.settings), {**server.settings, **wanted}
        if not wanted:
            # What boots is no setting here, but it is what changes.
            was = self._boot_option(server, record)
            settings_before["boot"], settings_after["boot"] = was.name if was else None, option.name
        if self.check_mode:
            return self._result(server, record if going_on else None, look, option, changed=True,
                                before=settings_before, after=settings_after)

        if look.system == RESCUE and record.reboot is None:
            self._refuse_dirty(record, look)
        if not self.is_separate:
            self._announce(record, server, option)
        elif changes:
            self._arm(record, server, option, changes)
        record.armed = wanted
        record.boot = option.as_result()
        record.unseen = self.unseen
        self.mark("armed")
        look = self._reboot(record, RESCUE, look, option=None if self.is_separate else option)
        self._settle(record, look)
        server = Server(server.name, server.address, option.id, {**server.settings, **wanted})
        result = self._result(server, record, look, self._told(option), changed=True, before=settings_before, after=settings_after)
        result["console_url"] = self._console_url(server.name)
        return result

    def _stay(self, record: Record, server: Server, look: Look) -> dict[str, t.Any]:
        """Already there: remember that, and arm again where somebody set something else to boot next. No reboot."""
        changed = record.phase != _record.RESCUE
        option = self._boot_option(server, record)
        changes: dict[str, t.Any] = {}
        if record.boot and server.boot != record.boot["id"] and self.is_separate:
            option = BootOption(**record.boot)
            changes = self.provider.boot_settings(option)
        after = {**server.settings, **changes}
        if not self.check_mode:
            if changed:
                self._settle(record, look)
            else:
                changed = self._pin(record, look)
            if changes:
                self._write(server.name, changes)
        return self._result(server, record, look, option, changed=changed or bool(changes), before=server.settings, after=after)

    def _is_somebody_elses(self, server: Server, look: Look) -> bool:
        """Whether a rescue system runs that lets us in, and that the provider does not speak against.

        A root file system alone is not enough here: an installed system may have an overlay, too.
        """
        if look.system != RESCUE or look.client is None or look.host_key in self._known(None).familiar:
            return False
        return self._is_armed(self._boot_option(server, None)) is not False

    def _take_over(self, server: Server, look: Look) -> dict[str, t.Any]:
        """Somebody else put it in rescue, and we can log in: that is what was asked for. No reboot, no write at the provider."""
        record = self._empty_record(server)
        record.before = self.provider.restorable_settings(server)
        record.user = look.user or record.user
        record.key_file = self.options.private_key_file
        own = self.options.installed_login
        if record.key_file is None and own and own.user == look.user:
            record.key_file = own.key_file
        option = self._boot_option(server, None)
        record.boot = option.as_result() if option and option.kind == _base.RESCUE else None
        record.found = self._found(server, look)
        self.say("found", f"the rescue system runs already, since {record.found['since']}; somebody else booted it")
        if not self.check_mode:
            self._settle(record, look)
        return self._result(server, record, look, option, changed=True, before=server.settings, after=server.settings)

    def _already_there(self, record: Record, look: Look) -> bool:
        """True where the rescue system of this session runs and lets us in, whatever is set to boot next."""
        if look.system != RESCUE or look.client is None:
            return False
        if record.phase in (_record.RESTORING, _record.LEAVING, _record.ARMING):
            return False
        if record.phase == _record.REBOOTING:
            return bool(record.reboot and look.fresh(record.reboot.asked_at, record.reboot.boot_id_before, self.clock.time()))
        return True

    def _refuse_other_work(self, server: Server, record: Record | None) -> None:
        key = self.provider.armed_key(server) or ""
        if record is None and SESSION_KEY_COMMENT in key and self._is_armed(self._boot_option(server, None)) \
                and not self.options.force:
            name = key[key.index(SESSION_KEY_COMMENT):].split()[0]
            raise Busy(f"Another session ({name}) has set {server.name} to boot its rescue system.",
                       state="This one changed nothing.",
                       todo="Go on where that one was begun, whose controller has its key. If that is lost, run this with "
                            "force=true: it takes the server over, by one reboot more.")
        tasks = self.provider.unfinished_tasks(server.name)
        if tasks:
            raise Busy(f"{self.provider.facts.name} is at work on {server.name}: {', '.join(task.text for task in tasks)}.",
                       state="Nothing was changed.", todo="Somebody else may be rescuing it. Wait until that has ended.",
                       details={"tasks": [task.id for task in tasks]})

    def _new_record(self, old: Record | None, server: Server) -> Record:
        """The record of this session: the old one where it is under way, or one that keeps what the old one must restore."""
        if old and old.phase in (_record.ARMING, _record.REBOOTING):
            return old
        record = self._empty_record(server)
        record.before = dict(old.before) if old else self.provider.restorable_settings(server)
        if old:
            record.installed_host_keys = old.installed_host_keys
            record.key_file, record.own_key = old.key_file, old.own_key
        return record

    def _wanted_settings(self, record: Record, server: Server, option: BootOption) -> dict[str, t.Any]:
        public_key: str | None = None
        if self.unseen:
            pass
        elif not self.by_password:
            public_key = self.public_key(record)
        elif not record.key_file and not self.check_mode:
            # The password is used once, to plant this key.
            self.public_key(record)
        return self.provider.rescue_settings(server, option, public_key, {
            "rescue_mail": self.options.rescue_mail, "hold_interventions": self.options.hold_interventions})

    def _announce(self, record: Record, server: Server, option: BootOption) -> None:
        """Remember what will be asked for, unless a call that died has asked for that very thing."""
        if record.phase == _record.REBOOTING and record.boot and record.boot["id"] == option.id:
            return
        record.boot = option.as_result()
        if self.by_password:
            record.credentials_mark = self.provider.credentials_mark(server.name)
        # What was asked for before was asked for under other settings.
        record.reboot = None
        self.save(record, _record.ARMING)

    def _arm(self, record: Record, server: Server, option: BootOption, changes: t.Mapping[str, t.Any]) -> None:
        record.phase = _record.ARMING
        self._announce(record, server, option)
        self.say("api", f"setting {option.name} to boot next")
        self._write(server.name, changes)
        written = self.provider.read_server(server.name)
        if written.boot != option.id:
            raise WrongSystem(f"The provider took the boot option {option.name} for {server.name} but does not have it set.",
                              state="Nothing was rebooted.", todo="Run this again.")

    def _settle(self, record: Record, look: Look) -> None:
        """The rescue system is proved: pin its host key, leave a copy of the record there, remember."""
        record.rescue_host_key = None
        self._pin(record, look)
        if look.client:
            copy = dataclasses.replace(record, phase=_record.RESCUE)
            look.client.run("umask 077; d=/run/lifeboat; [ -d $d ] || mkdir -p $d; "
                            "read -r line && printf '%s\\n' \"$line\" >$d/session.json", copy.signed().encode() + b"\n")
            look.client.close()
        self.save(record, _record.RESCUE)
