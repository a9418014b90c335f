# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Entering rescue, leaving it, rebooting: written once, for all providers. Private to this collection.

Every step is announced in the record before it is taken, so that a call after a crash goes on where the last one died:
it never reboots twice for the same wish, and never forgets a server in rescue.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import tempfile
import time
import typing as t

from .._errors import BadInput, Busy, LifeboatError, LoginRefused, NotFound, TargetError, TimedOut, WrongSystem
from .._providers import _base
from .._providers._base import BootOption, Credentials, Provider, Server
from .._ssh import (
    SESSION_KEY_COMMENT,
    HostKey,
    Login,
    check_public_key,
    derive_password,
    make_key_pair,
    public_key_of,
    read_known_hosts,
    read_private_key,
)
from .._wait import Backoff, Deadline, Wait
from . import _record
from ._evidence import INSTALLED, RESCUE, TEMPORARY_ROOTS, UNKNOWN, Ahead, Known, Look, Watch
from ._reboot import NAMES, Rebooting
from ._record import Folder, Record

# How long a rescue system that was proved to run has for its banner, in seconds.
EXPECTED_SECONDS = 60.0


@dataclasses.dataclass
class Options:
    """What the caller wants. Times in seconds; see the modules' documentation for each."""

    server: str
    address: str | None = None
    rescue_port: int = 22
    rescue: str = "best"
    rescue_user: str = "root"
    public_key: str | None = None
    private_key_file: str | None = None
    login: str = "key"
    credentials_file: str | None = None
    rescue_mail: str | None = None
    hold_interventions: bool = True
    reboot_method: str = "auto"
    soft_timeout: float = 120.0
    boot_timeout: float = 420.0
    wait_timeout: float = 1200.0
    connect_timeout: float = 5.0
    force: bool = False
    proof_port: int | None = None
    installed_host_keys: t.Sequence[str] = ()
    # How the user himself logs in to the installed system; only for a soft reboot and for evidence.
    installed_address: str | None = None
    installed_port: int = 22
    installed_login: Login | None = None
    known_hosts_files: t.Sequence[str] = ("~/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts")


class Session:
    """One server's way into rescue and out of it.

    tell: takes one line of progress. check_mode: nothing is written or rebooted, anywhere.
    """

    def __init__(self, provider: Provider | t.Callable[[], Provider], options: Options, folder: Folder,
                 tell: t.Callable[[str], None], check_mode: bool = False):
        """provider: or what makes it, once it is needed: by then the server's SSH port is being looked at."""
        self._provider: Provider | None = None if callable(provider) else provider
        self._make_provider = provider
        self.options = options
        self.folder = folder
        self.check_mode = check_mode
        # Whether something was written at the provider, or rebooted: a failure must not hide that.
        self.changed = False
        self._remember = True
        # Whether nobody is to log in to the rescue system by SSH, so that the provider's word is all there is.
        self.unseen = options.login == "console"
        # Where the provider says that the server answers, once it was asked.
        self._provider_address: str | None = None
        self._tell = tell
        self._said: dict[str, str] = {}
        self._started = time.monotonic()
        self._timings: dict[str, float] = {}

    @property
    def provider(self) -> Provider:
        if self._provider is None:
            assert callable(self._make_provider)
            self._provider = self._make_provider()
        return self._provider

    # -- the five wishes

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

    def interrupted(self) -> str:
        """What state the server was left in by a call that failed halfway, for the error's sentence."""
        record = self.folder.load()
        if record is None:
            return "Something was changed already, and no session is open."
        is_set = record.boot and record.phase in (_record.REBOOTING, _record.RESCUE)
        armed = f", with {record.boot['name']} set to boot next" if is_set and record.boot else ""
        return f"The session stopped in its phase {record.phase!r}{armed}; running this again goes on from there."

    # -- helpers: talk, record, evidence

    def _locked(self) -> t.ContextManager[None]:
        return self.folder.locked(self.options.wait_timeout, self._tell, self.check_mode)

    def say(self, topic: str, text: str) -> None:
        """One line when something changes; the same text on the same topic is said once."""
        if self._said.get(topic) != text:
            self._said[topic] = text
            self._tell(f"{self.options.server}: {text}")

    def mark(self, name: str) -> None:
        self._timings[name] = round(time.monotonic() - self._started, 3)

    def save(self, record: Record, phase: str) -> None:
        record.phase = phase
        if self._remember:
            self.folder.save(record)

    def _write(self, name: str, changes: t.Mapping[str, t.Any]) -> None:
        self.changed = True
        self.provider.write_settings(name, changes)

    def _check_options(self) -> None:
        if self.options.public_key:
            check_public_key(self.options.public_key)
        if self.options.private_key_file:
            # Both halves: the public one is given to the provider, but it is the private one that must let us in.
            read_private_key(self.options.private_key_file)
            public_key_of(self.options.private_key_file)
        if self.options.credentials_file:
            directory = os.path.dirname(os.path.expanduser(self.options.credentials_file)) or "."
            if not os.access(directory, os.W_OK | os.X_OK):
                raise BadInput(f"credentials_file cannot be written: {directory} is no directory that can be written to.")
            if os.path.isdir(os.path.expanduser(self.options.credentials_file)):
                raise BadInput(f"credentials_file cannot be written: {self.options.credentials_file} is a directory.")
        if self.options.rescue in ("harddisk", "poweroff"):
            raise BadInput(f"{self.options.rescue!r} is no rescue system.", todo="Use the module netboot to set it.")

    @property
    def is_separate(self) -> bool:
        """Whether setting what boots, and rebooting, are two steps at this provider."""
        return self.provider.facts.reboot == "separate"

    @property
    def by_password(self) -> bool:
        """Whether the provider's password for the rescue system is needed: to log in and plant the key, or for the user's file."""
        asked = self.options.login == "password" or bool(self.options.credentials_file)
        return asked or (self.options.login == "key" and not self.unseen and "key" not in self.provider.facts.credentials)

    def given_password(self, record: Record) -> str | None:
        """The password that goes with the call to the provider, where it takes one. Made of the key, so that it is kept nowhere."""
        if "given" not in self.provider.facts.credentials or not record.key_file:
            return None
        return derive_password(record.key_file, record.id)

    def credentials(self, record: Record) -> Credentials | None:
        """The log-in by password to the rescue system, or None while there is none."""
        if "given" in self.provider.facts.credentials:
            password = self.given_password(record)
            return Credentials(self.options.rescue_user, password) if password else None
        return self.provider.read_credentials(record.server, record.credentials_mark)

    def write_credentials(self, record: Record, credentials: Credentials) -> None:
        """Put the rescue system's log-in into the file that the user asked for, which nobody else can read."""
        if not self.options.credentials_file:
            return
        path = os.path.expanduser(self.options.credentials_file)
        text = json.dumps({"host": record.address, "user": credentials.user, "password": credentials.password}, indent=1)
        handle, temporary = tempfile.mkstemp(prefix=".lifeboat-", dir=os.path.dirname(path) or ".")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(text + "\n")
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):  # it has its name already
                os.unlink(temporary)
            raise
        self.say("credentials", f"the log-in to the rescue system is in {path}")

    def console_words(self, name: str) -> str:
        """Where to look at the screen, for the advice in an error."""
        url = self._console_url(name)
        return f"Look at its console{': ' + url if url else '.'}"

    def _console_url(self, name: str) -> str | None:
        try:
            return self.provider.console_url(name)
        except LifeboatError:
            # It is only for people, who have other ways to it.
            return None

    def _known(self, record: Record | None) -> Known:
        installed: list[HostKey] = list(record.known_installed_keys()) if record else []
        installed += [key for key in map(HostKey.from_line, self.options.installed_host_keys) if key]
        familiar: list[HostKey] = []
        for name in self.options.known_hosts_files:
            for address in {self.options.installed_address, self._provider_address} - {None}:
                familiar += read_known_hosts(name, address or "", self.options.installed_port)
        if record and record.reboot and record.reboot.host_key_before:
            before = HostKey.from_line(record.reboot.host_key_before)
            familiar += [before] if before else []
        pinned = HostKey.from_line(record.rescue_host_key) if record and record.rescue_host_key else None
        return Known(tuple(installed), tuple(familiar), pinned)

    def _rescue_logins(self, record: Record | None) -> list[tuple[Login, bool]]:
        """How to get in to the rescue system, each with whether only that system can have been given the key."""
        user = record.user if record else self.options.rescue_user
        logins: list[tuple[Login, bool]] = []
        if record and record.key_file:
            logins.append((Login(user, key_file=record.key_file), record.own_key))
        if self.options.private_key_file and not (record and record.key_file == self.options.private_key_file):
            logins.append((Login(user, key_file=self.options.private_key_file), False))
        elif self.options.public_key and not logins:
            logins.append((Login(user, agent=True), False))
        return logins

    def _logins(self, record: Record | None) -> list[tuple[Login, bool]]:
        """The rescue system's, then the user's own to the installed system."""
        own = self.options.installed_login
        return self._rescue_logins(record) + ([(own, False)] if own else [])

    def _reboot(self, record: Record, goal: str, last: Look, plain: bool = False, option: BootOption | None = None) -> Look:
        """Reboot and wait until `goal` is proved to run. All log-ins are tried on what answers, to tell which one booted.

        plain: a new boot is enough where nobody can tell the system. option: what is to boot, where the provider sets that
        and reboots in one.
        """
        address, port = record.address or "", record.rescue_port
        if goal == INSTALLED:
            address, port = self.options.installed_address or address, self.options.installed_port
        with Watch(address, port, self._known(record), self._logins(record)) as watch:
            return Rebooting(self, record, goal, watch, plain, option).run(last)

    def _address(self, server: Server) -> str:
        return self.options.address or server.address

    def _read_and_look(self, record: Record | None, read: Server | None = None) -> tuple[Server, Look]:
        """Read the server at the provider, and see who answers, both at once where the address is known already.

        read: what the provider said of it just now, if it was asked.
        """
        address = self.options.address or self.options.installed_address or (record.address if record else None)
        known, logins = self._known(record), self._logins(record)
        port = record.rescue_port if record else self.options.rescue_port
        patience = self.options.connect_timeout
        if record and record.phase in (_record.RESCUE, _record.RESTORING) and not record.unseen:
            # The rescue system was proved to run. A slow one, at work, must not be taken for one that is gone.
            patience = max(patience, EXPECTED_SECONDS)
        deadline = Deadline(patience)
        ahead = Ahead(Watch(address, port, known, logins)) if address else None
        watch: Watch | None = None
        try:
            server = read or self.provider.read_server(self.options.server)
            self._provider_address = server.address
            known = self._known(record)
            look: Look | None = None
            if ahead is not None and address == self._address(server):
                look = ahead.look(min(1.0, deadline.left), known)
                watch, ahead = ahead.watch, None
            else:
                watch = Watch(self._address(server), port, known, logins)
                deadline = Deadline(patience)
                look = watch.look(min(1.0, deadline.left))
            if look is None and ("refused" not in watch.heard or patience > self.options.connect_timeout):
                # A refusal is an answer, silence is not.
                look = watch.look(min(self.options.connect_timeout, deadline.left))
            if look is None and patience > self.options.connect_timeout:
                self.say("ssh", f"port {port}: {watch.heard}; the rescue system ran there, so it has {deadline.left:.0f} s to answer")
                look = watch.look(deadline.left)
            heard = watch.heard
        finally:
            if ahead is not None:
                ahead.abandon()
            if watch is not None:
                watch.close()
        if look is None and self.options.installed_port != port:
            with Watch(self.options.installed_address or self._address(server), self.options.installed_port,
                       known, logins) as other:
                look = other.look(deadline.left)
        return server, look or Look(UNKNOWN, "nothing answers by SSH", heard)

    def _boot_option(self, server: Server, record: Record | None) -> BootOption | None:
        """What boots next. The record saves the call where it knows."""
        if server.boot is None:
            return None
        if record and record.boot and record.boot["id"] == server.boot:
            return BootOption(**record.boot)
        try:
            return self.provider.boot_option(server.name, server.boot)
        except NotFound:
            return BootOption(server.boot, _base.OTHER, "unknown", "The provider does not know it any more.")

    def _told(self, option: BootOption) -> BootOption | None:
        """The boot option as far as the provider would tell it."""
        return option if self.provider.facts.tells_armed else None

    def _is_armed(self, option: BootOption | None) -> bool | None:
        return None if option is None else option.kind == _base.RESCUE

    # -- entering

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

    def _adopted(self, record: Record | None, server: Server, look: Look) -> Record | None:
        """The record, or the copy that a session of another controller left in the rescue system."""
        if record is not None or look.system != RESCUE or look.evidence is None or not look.evidence.session:
            return record
        try:
            copy, signed = Record.from_signed(look.evidence.session, self.options.private_key_file)
        except ValueError:
            return None
        if (copy.provider, copy.server) != (self.provider.facts.name, server.name) or look.host_key is None:
            return None
        if not signed:
            # It may be a compromised system that only plays rescue. What it may say is whether a flag was set.
            claimed, copy = copy.before, self._empty_record(server)
            copy.phase = _record.RESCUE
            flags = {name: value for name, value in claimed.items() if name in server.settings and isinstance(value, bool)}
            copy.before = {**self.provider.restorable_settings(server), **flags}
            self.say("record", "the session's record there is not signed by our key, so it is not believed")
        copy.own_key = False
        copy.key_file = self.options.private_key_file
        copy.rescue_host_key = None
        if not self.check_mode:
            self._pin(copy, look)
            self.save(copy, copy.phase)
        return copy

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

    def _is_unseen(self, record: Record) -> bool:
        """Whether the rescue system of this session is there, and this call, too, wants no log-in to it."""
        if record.phase != _record.RESCUE or not record.unseen:
            return False
        return self.unseen or bool(record.boot and self.provider.is_windows(BootOption(**record.boot)))

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

    def _found(self, server: Server, look: Look) -> dict[str, t.Any]:
        """Since when a rescue system that is none of ours has run, and who asked for it, where that can be told."""
        up = look.evidence.uptime if look.evidence else None
        since = None if up is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - up))
        origin = self.provider.rescued(server.name)
        return {"since": origin.since or since, "by": origin.by}

    def _already_there(self, record: Record, look: Look) -> bool:
        """True where the rescue system of this session runs and lets us in, whatever is set to boot next."""
        if look.system != RESCUE or look.client is None:
            return False
        if record.phase in (_record.RESTORING, _record.LEAVING, _record.ARMING):
            return False
        if record.phase == _record.REBOOTING:
            return bool(record.reboot and look.fresh(record.reboot.asked_at, record.reboot.boot_id_before))
        return True

    def _pin(self, record: Record, look: Look) -> bool:
        """Pin the rescue system's host key, once. Refuse another one."""
        if look.host_key is None:
            return False
        line = look.host_key.line
        if record.rescue_host_key == line:
            return False
        if record.rescue_host_key and not self.options.force:
            pinned = HostKey.from_line(record.rescue_host_key)
            raise LoginRefused(
                f"The rescue system of {record.server} answers with the host key {look.host_key.fingerprint}, "
                f"but {pinned.fingerprint if pinned else 'another one'} is pinned for this session.",
                state="Somebody rebooted it, or somebody is in between. Nothing was changed.",
                todo="If you rebooted it yourself, run this again with force=true, which pins the new key.")
        record.rescue_host_key = line
        if not self.check_mode:
            self.folder.pin(record.address or "", record.rescue_port, look.host_key)
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

    def _empty_record(self, server: Server) -> Record:
        return Record(provider=self.provider.facts.name, server=server.name, address=self._address(server),
                      rescue_port=self.options.rescue_port, user=self.options.rescue_user)

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

    def public_key(self, record: Record) -> str:
        """The key to be let in by the rescue system: the user's, or one made for this session."""
        if self.options.public_key:
            record.key_file, record.own_key = self.options.private_key_file, False
            return self.options.public_key.strip()
        if self.options.private_key_file:
            record.key_file, record.own_key = self.options.private_key_file, False
            return public_key_of(self.options.private_key_file)
        comment = f"{SESSION_KEY_COMMENT}{record.id}"
        if self.check_mode:
            return f"(an Ed25519 key made for this session) {comment}"
        if not (record.own_key and record.key_file):
            self.folder.save(record)
            record.key_file = self.folder.key_file
            record.own_key = True
            line = make_key_pair(record.key_file, comment)
            with open(record.key_file + ".pub", "w", encoding="utf-8") as stream:
                stream.write(line + "\n")
        return public_key_of(record.key_file or "")

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

    # -- leaving

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

        wait = Wait(EXPECTED_SECONDS, Backoff(1.0, 5.0))
        try:
            return t.cast(Server, wait.until(look, lambda: TimedOut("The provider has not restored its settings.")))
        except TimedOut:
            # The caller tells what was not taken back.
            return self.provider.read_server(record.server)

    def _refuse_dirty(self, record: Record, look: Look) -> None:
        """Raise TargetError where something of the installed system is mounted in the rescue system."""
        if self.options.force:
            return
        if look.client is None:
            raise LoginRefused(f"The rescue system of {record.server} lets us not in ({look.refused or look.reason}), so nobody "
                               "can say whether something of the installed system is still mounted there.",
                               state="Nothing was changed.",
                               todo="Run this again with the key that it takes, or with force=true.")
        text = look.client.run("cat /proc/mounts; echo; cat /run/lifeboat/journal.json 2>/dev/null")[1]
        mounts, _gap, journal = text.partition("\n\n")
        own = look.evidence.root_source if look.evidence else None
        held = [line.split()[:3] for line in mounts.splitlines() if line.startswith("/dev/")]
        # What the rescue system itself lives on is not the target's.
        dirty = [f"{source} on {where}" for source, where, fstype in held
                 if source != own and fstype not in TEMPORARY_ROOTS]
        if not dirty and journal.strip():
            try:
                dirty = [json.dumps(step) for step in json.loads(journal).get("steps", [])]
            except ValueError:
                dirty = ["an unreadable journal /run/lifeboat/journal.json"]
        if dirty:
            raise TargetError(f"Something of the installed system of {record.server} is still in use in the rescue system: "
                              f"{'; '.join(dirty[:20])}.", state="The server stays in rescue; nothing was changed.",
                              todo="Unmount it (lifeboat.rescue.storage_mount with state=unmounted; the playbook "
                                   "lifeboat.rescue.leave does that too), or run this with force=true and lose what is not written.",
                              details={"mounts": dirty})

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

    # -- results

    def _result(self, server: Server, record: Record | None, look: Look, option: BootOption | None, *, changed: bool,
                before: t.Mapping[str, t.Any] | None = None, after: t.Mapping[str, t.Any] | None = None) -> dict[str, t.Any]:
        if look.client:
            look.client.close()
        self.mark("total")
        result: dict[str, t.Any] = {
            "changed": changed,
            "provider": self.provider.facts.name,
            "server": server.name,
            "address": self._address(server),
            "armed": self._is_armed(option) if self.provider.facts.tells_armed else None,
            "running": look.system,
            "fresh": self._fresh(record, look),
            "evidence": look.as_result(),
            "boot": option.as_result() if option else None,
            "tasks": list(record.tasks) if record else [],
            "timings": dict(self._timings),
            "session": self._session_result(record),
            "found": self._found_result(server, record, look, option),
            "console_url": None,
            "login": None,
        }
        if record and look.system == RESCUE and record.rescue_host_key:
            result["login"] = self._login_result(record)
        if before is not None and after is not None:
            result["diff"] = {"before": dict(before), "after": dict(after),
                              "before_header": f"{server.name} settings", "after_header": f"{server.name} settings"}
        return result

    def _found_result(self, server: Server, record: Record | None, look: Look, option: BootOption | None) -> dict[str, t.Any] | None:
        if record is not None:
            return record.found
        return self._found(server, look) if look.system == RESCUE or self._is_armed(option) else None

    def _session_result(self, record: Record | None) -> dict[str, t.Any] | None:
        return None if record is None else {
            "id": record.id, "phase": record.phase, "folder": self.folder.path,
            "started_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.started_at))}

    @staticmethod
    def _fresh(record: Record | None, look: Look) -> bool | None:
        reboot = record.reboot if record else None
        return look.fresh(reboot.asked_at, reboot.boot_id_before) if reboot else None

    def _login_result(self, record: Record) -> dict[str, t.Any]:
        options = ["-o", f"UserKnownHostsFile={self.folder.known_hosts}", "-o", "StrictHostKeyChecking=yes"]
        command = ["ssh", "-p", str(record.rescue_port), *options]
        if record.key_file:
            command += ["-i", record.key_file]
        return {"user": record.user, "host": record.address, "port": record.rescue_port,
                "private_key_file": record.key_file, "known_hosts_file": self.folder.known_hosts,
                "command": " ".join([*command, f"{record.user}@{record.address}"])}
