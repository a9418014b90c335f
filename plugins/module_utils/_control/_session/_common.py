# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every wish of a session needs: talk, the record, who answers, and the result. Private to this collection."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import tempfile
import time
import typing as t

from ..._errors import BadInput, LifeboatError, LoginRefused, NotFound, TargetError
from ..._wait import CLOCK, Clock
from .._providers import _base
from .._providers._base import BootOption, Credentials, Provider, Server
from .._ssh._client import Login
from .._ssh._host_keys import HostKey, read_known_hosts
from .._ssh._keys import SESSION_KEY_COMMENT, check_public_key, derive_password, make_key_pair, public_key_of, read_private_key
from . import _record
from ._evidence import INSTALLED, RESCUE, TEMPORARY_ROOTS, UNKNOWN, Ahead, Known, Look, Watch
from ._reboot import Rebooting
from ._record import Folder, Record

# How long a rescue system that was proved to run has for its banner, in seconds.
EXPECTED_SECONDS = 60.0

# Mounts; after an empty line who writes to which block device, and which encrypted containers are open (arrays and volume
# groups may have been found by the rescue system itself); after another one the journal of storage_mount. That is root's, where
# another logs in; not to read it is to fail. mdmon holds its arrays' disks open for as long as they are.
_IN_USE = """cat /proc/mounts || exit 1
echo
uses='for fd in /proc/[0-9]*/fd/*; do
    [ -b "$fd" ] || continue
    process=${fd%/fd/*} value=0
    while read -r word value; do [ "$word" != flags: ] || break; done <"$process/fdinfo/${fd##*/}"
    read -r name <"$process/comm"
    case $name,$value in mdmon,*) ;; *[123]) echo "$(readlink "$fd") is written to by $name (pid ${process##*/})" ;; esac
done
for file in /sys/class/block/dm-*/dm/uuid; do
    [ -e "$file" ] && read -r uuid <"$file" && read -r name <"${file%/uuid}/name" || continue
    case $uuid in CRYPT-*) echo "/dev/mapper/$name is open" ;; esac
done'
if [ "$(id -u)" = 0 ] || ! sudo -n sh -c "$uses" 2>/dev/null; then eval "$uses" 2>/dev/null; fi
echo
[ -e /run/lifeboat ] || exit 0
show='[ ! -e /run/lifeboat/journal.json ] || cat /run/lifeboat/journal.json'
if [ -x /run/lifeboat ]; then eval "$show"; else sudo -n sh -c "$show"; fi"""


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


class Common:
    """One server's way into rescue and out of it: what entering and leaving have in common. See Session.

    tell: takes one line of progress. check_mode: nothing is written or rebooted, anywhere.
    """

    def __init__(self, provider: Provider | t.Callable[[], Provider], options: Options, folder: Folder,
                 tell: t.Callable[[str], None], check_mode: bool = False, clock: Clock = CLOCK):
        """provider: or what makes it, once it is needed: by then the server's SSH port is being looked at.

        clock: the provider's, too.
        """
        self._make_provider: t.Callable[[], Provider] = provider if callable(provider) else lambda: provider
        self._made: Provider | None = None
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
        self.clock = clock
        self._started = clock.monotonic()
        self._timings: dict[str, float] = {}

    @property
    def provider(self) -> Provider:
        if self._made is None:
            self._made = self._make_provider()
        return self._made

    def interrupted(self) -> str:
        """What state the server was left in by a call that failed halfway, for the error's sentence."""
        record = self.folder.load()
        if record is None:
            return "Something was changed already, and no session is open."
        is_set = record.boot and record.phase in (_record.REBOOTING, _record.RESCUE)
        armed = f", with {record.boot['name']} set to boot next" if is_set and record.boot else ""
        return f"The session stopped in its phase {record.phase!r}{armed}; running this again goes on from there."

    def _locked(self) -> t.ContextManager[None]:
        return self.folder.locked(self.options.wait_timeout, self._tell, self.check_mode, self.clock)

    def say(self, topic: str, text: str) -> None:
        """One line when something changes; the same text on the same topic is said once."""
        if self._said.get(topic) != text:
            self._said[topic] = text
            self._tell(f"{self.options.server}: {text}")

    def mark(self, name: str) -> None:
        self._timings[name] = round(self.clock.monotonic() - self._started, 3)

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

    # -- evidence

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
        with Watch(address, port, self._known(record), self._logins(record), clock=self.clock) as watch:
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
        deadline = self.clock.deadline(patience)
        ahead = Ahead(Watch(address, port, known, logins, clock=self.clock)) if address else None
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
                watch = Watch(self._address(server), port, known, logins, clock=self.clock)
                deadline = self.clock.deadline(patience)
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
                       known, logins, clock=self.clock) as other:
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

    def _is_unseen(self, record: Record) -> bool:
        """Whether the rescue system of this session is there, and this call, too, wants no log-in to it."""
        if record.phase != _record.RESCUE or not record.unseen:
            return False
        return self.unseen or bool(record.boot and self.provider.is_windows(BootOption(**record.boot)))

    # -- the record of a server that is in rescue

    def _empty_record(self, server: Server) -> Record:
        return Record(provider=self.provider.facts.name, server=server.name, address=self._address(server), started_at=self.clock.time(),
                      rescue_port=self.options.rescue_port, user=self.options.rescue_user)

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

    def _refuse_dirty(self, record: Record, look: Look) -> None:
        """Raise TargetError where something of the installed system is mounted in the rescue system."""
        if self.options.force:
            return
        if look.client is None:
            raise LoginRefused(f"The rescue system of {record.server} lets us not in ({look.refused or look.reason}), so nobody "
                               "can say whether something of the installed system is still mounted there.",
                               state="Nothing was changed.",
                               todo="Run this again with the key that it takes, or with force=true.")
        status, text = look.client.run(_IN_USE)
        mounts, _gap, rest = text.partition("\n\n")
        uses, _gap, journal = rest.partition("\n\n") if not rest.startswith("\n") else ("", "", rest[1:])
        if status != 0:
            raise TargetError(f"The rescue system of {record.server} did not say whether something of the installed system is still in "
                              f"use there (exit code {status}).", state="The server stays in rescue; nothing was changed.",
                              todo="Run this again, as root where rescue_user is somebody else, or with force=true.")
        own = look.evidence.root_source if look.evidence else None
        lines = [line.split()[:3] for line in mounts.splitlines()]
        held = [line for line in lines if len(line) == 3 and (line[0].startswith("/dev/") or line[2] == "zfs")]
        # What the rescue system itself lives on is not the target's.
        dirty = [f"{source} on {where}" for source, where, fstype in held
                 if source != own and fstype not in TEMPORARY_ROOTS] + list(dict.fromkeys(uses.splitlines()))
        if not dirty and journal.strip():
            try:
                dirty = [json.dumps(step) for step in json.loads(journal).get("steps", [])]
            except ValueError:
                dirty = ["an unreadable journal /run/lifeboat/journal.json"]
        if dirty:
            raise TargetError(f"Something of the installed system of {record.server} is still in use in the rescue system: "
                              f"{'; '.join(dirty[:20])}.", state="The server stays in rescue; nothing was changed.",
                              todo="Run the playbook lifeboat.rescue.leave, which unmounts it first (as lifeboat.rescue.storage_mount with "
                                   "state=unmounted does, in the rescue system), end what was begun by hand, or run this with force=true "
                                   "and lose what is not written.",
                              details={"mounts": dirty})

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

    def _found(self, server: Server, look: Look) -> dict[str, t.Any]:
        """Since when a rescue system that is none of ours has run, and who asked for it, where that can be told."""
        up = look.evidence.uptime if look.evidence else None
        since = None if up is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.clock.time() - up))
        origin = self.provider.rescued(server.name)
        return {"since": origin.since or since, "by": origin.by}

    def _found_result(self, server: Server, record: Record | None, look: Look, option: BootOption | None) -> dict[str, t.Any] | None:
        if record is not None:
            return record.found
        return self._found(server, look) if look.system == RESCUE or self._is_armed(option) else None

    def _session_result(self, record: Record | None) -> dict[str, t.Any] | None:
        return None if record is None else {
            "id": record.id, "phase": record.phase, "folder": self.folder.path,
            "started_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.started_at))}

    def _fresh(self, record: Record | None, look: Look) -> bool | None:
        reboot = record.reboot if record else None
        return look.fresh(reboot.asked_at, reboot.boot_id_before, self.clock.time()) if reboot else None

    def _login_result(self, record: Record) -> dict[str, t.Any]:
        options = ["-o", f"UserKnownHostsFile={self.folder.known_hosts}", "-o", "StrictHostKeyChecking=yes"]
        command = ["ssh", "-p", str(record.rescue_port), *options]
        if record.key_file:
            command += ["-i", record.key_file]
        return {"user": record.user, "host": record.address, "port": record.rescue_port,
                "private_key_file": record.key_file, "known_hosts_file": self.folder.known_hosts,
                "command": " ".join([*command, f"{record.user}@{record.address}"])}
