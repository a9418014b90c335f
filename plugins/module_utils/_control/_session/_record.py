# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a session remembers, so that any step can die and the next call goes on. Private to this collection.

One folder a server: the record, the pinned host keys, the session's own key pair, and a lock. Every change is on disk
before the step that it announces. The record holds no secret.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import hashlib
import json
import os
import secrets
import shutil
import time
import typing as t
from urllib.parse import quote

from ..._errors import BadInput
from ..._wait import CLOCK, Clock
from .._ssh._host_keys import HostKey, host_pattern
from .._ssh._keys import is_signed, sign
from ._lock import Lock

# A session's phases, in their order. Each says what was about to be done when it was written.
ARMING = "arming"            # the provider's settings are being written
REBOOTING = "rebooting"      # a reboot into rescue was, or may have been, asked for
RESCUE = "rescue"            # the rescue system was proved to run
RESTORING = "restoring"      # the provider's settings are being restored
LEAVING = "leaving"          # a reboot into the installed system was, or may have been, asked for


def _known_fields(cls: type, data: dict[str, t.Any]) -> dict[str, t.Any]:
    known = {field.name for field in dataclasses.fields(cls)}
    return {key: value for key, value in data.items() if key in known}


@dataclasses.dataclass
class Reboot:
    """One request to reboot.

    method: `soft` or `hard`. asked_at: seconds since the epoch, controller's clock. baseline: the provider's, from before.
    boot_id_before, host_key_before: of what answered before, where something did. hard: how many hard ones so far.
    has_rivals: whether an earlier request, which seemed to have no effect, may still have it.
    """

    method: str
    asked_at: float
    baseline: t.Any = None
    task: str | None = None
    boot_id_before: str | None = None
    host_key_before: str | None = None
    hard: int = 0
    has_rivals: bool = False


@dataclasses.dataclass
class Record:
    """One session on one server.

    before, armed: settings as the provider has them. host_key_seen: of the installed system, as it answered before the session.
    no_ssh: nobody logs in to the rescue system by SSH. found: since when and by whom the server was in rescue already, where this
    session did not put it there. adopted: this controller has only seen it, and done nothing for it.
    failed_to_restore: a call has tried to restore the settings of before, in vain.
    """

    provider: str
    server: str
    id: str = dataclasses.field(default_factory=lambda: secrets.token_hex(6))
    phase: str = ARMING
    started_at: float = dataclasses.field(default_factory=time.time)
    address: str | None = None
    rescue_port: int = 22
    user: str = "root"
    before: dict[str, t.Any] = dataclasses.field(default_factory=dict)
    armed: dict[str, t.Any] = dataclasses.field(default_factory=dict)
    boot: dict[str, str] | None = None
    own_key: bool = False
    key_file: str | None = None
    credentials_baseline: t.Any = None
    rescue_host_key: str | None = None
    installed_host_keys: list[str] = dataclasses.field(default_factory=list)
    host_key_seen: str | None = None
    no_ssh: bool = False
    found: dict[str, t.Any] | None = None
    adopted: bool = False
    failed_to_restore: bool = False
    reboot: Reboot | None = None
    tasks: list[str] = dataclasses.field(default_factory=list)

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Raise ValueError for what is no record. Fields of a later version are passed over."""
        data = json.loads(text)
        if not isinstance(data, dict):
            raise ValueError("not an object")
        try:
            if data.get("reboot"):
                data["reboot"] = Reboot(**_known_fields(Reboot, data["reboot"]))
            record = cls(**_known_fields(cls, data))
            # What is gone through is what it should be; the copy in a rescue system may be anybody's.
            for part, kind in ((record.before, dict), (record.armed, dict), (record.tasks, list), (record.installed_host_keys, list)):
                if not isinstance(part, kind):
                    raise ValueError(f"{part!r} is no {kind.__name__}")
            return record
        except (AttributeError, TypeError) as exc:
            raise ValueError(str(exc)) from exc

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True)

    def signed(self) -> str:
        """One line of JSON for the copy in the rescue system, with a signature by the key that lets in there."""
        text = self.to_json()
        signature = {"signature": sign(self.key_file, text)} if self.key_file else {}
        return json.dumps({**json.loads(text), **signature}, sort_keys=True)

    @classmethod
    def from_signed(cls, text: str, key_file: str | None) -> tuple[Record, bool]:
        """The record of a copy, and whether this key signed it. Raise ValueError for what is no record."""
        data = json.loads(text)
        signature = data.pop("signature", None) if isinstance(data, dict) else None
        plain = json.dumps(data, indent=1, sort_keys=True)
        return cls.from_json(plain), bool(signature and key_file and is_signed(key_file, plain, str(signature)))

    def known_installed_keys(self) -> list[HostKey]:
        keys = (HostKey.from_line(line) for line in self.installed_host_keys)
        return [key for key in keys if key]


class SessionStore:
    """The folder of one server's session on the controller, 0700."""

    def __init__(self, base: str, provider: str, server: str):
        # Two names must never share a folder, nor a folder the name of a lock. An =-sign stands before two hexadecimal digits only,
        # but in these. A %-sign, before what stands for something else, ssh takes for that itself, in each path that it is given.
        safe = quote(server, safe="@").replace("%", "=")
        if safe in ("", ".", ".."):
            safe = f"=name{safe}"
        if len(safe) > 200:
            safe = f"=sha256-{hashlib.sha256(server.encode()).hexdigest()}"
        self.path = os.path.join(os.path.expanduser(base), provider, safe)
        self.record_file = os.path.join(self.path, "session.json")
        self.known_hosts = os.path.join(self.path, "known_hosts")
        self.key_file = os.path.join(self.path, "id_ed25519")
        self._lock_file = self.path + "=lock"

    def check(self) -> None:
        """Raise BadInput where the folder could not be written. Makes nothing."""
        there = self.path
        while not os.path.exists(there) and os.path.dirname(there) != there:
            there = os.path.dirname(there)
        if not os.path.isdir(there) or not os.access(there, os.W_OK | os.X_OK):
            raise BadInput(f"The folder of sessions {os.path.dirname(self.path)} cannot be written: {there} cannot.",
                           state="Nothing was changed.",
                           todo="Name one that can in session_dir, or in the host's variable lifeboat_session_dir.")

    def others(self) -> list[Record]:
        """The records of this controller's other sessions. What cannot be read is passed over."""
        found = []
        for path in glob.iglob(os.path.join(glob.escape(os.path.dirname(os.path.dirname(self.path))), "*", "*", "session.json")):
            if path != self.record_file:
                with contextlib.suppress(OSError, ValueError), open(path, encoding="utf-8") as stream:
                    found.append(Record.from_json(stream.read()))
        return found

    def load(self) -> Record | None:
        """The record, or None where there is no session."""
        try:
            with open(self.record_file, encoding="utf-8") as stream:
                return Record.from_json(stream.read())
        except FileNotFoundError:
            return None
        except (ValueError, OSError) as exc:
            raise BadInput(f"The session's record {self.record_file} cannot be read: {exc}.",
                           todo="Look at it, then move it away and run this again.") from exc

    def save(self, record: Record) -> None:
        """Write the record so that a crash leaves the old one or the new one."""
        self._write(self.record_file, record.to_json() + "\n")

    def _write(self, path: str, text: str) -> None:
        os.makedirs(self.path, mode=0o700, exist_ok=True)
        os.chmod(self.path, 0o700)
        temporary = path + ".new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        folder = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def pin(self, address: str, port: int, key: HostKey) -> None:
        """Make this the one host key of the session."""
        self._write(self.known_hosts, f"{host_pattern(address, port)} {key.line}\n")

    def clear(self) -> None:
        """Forget the session: record, host key, key pair."""
        shutil.rmtree(self.path, ignore_errors=True)

    @contextlib.contextmanager
    def locked(self, timeout: float, tell: t.Callable[[str], None], check_mode: bool = False,
               clock: Clock = CLOCK) -> t.Iterator[None]:
        """Keep other sessions of this controller off this server; wait for one that is at work. Busy after `timeout` s.

        The kernel drops the lock with the process that holds it, so it cannot be left behind.
        check_mode: make no file for that; where there is none, nobody holds it.
        """
        if check_mode and not os.path.exists(self._lock_file):
            yield
            return
        with Lock(self._lock_file, tell).held(timeout, clock):
            try:
                yield
            finally:
                if not os.path.exists(self.path):
                    # No session is open, so nothing is left of it, this neither. That somebody removed it must not turn a server
                    # that is back into a failure.
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(self._lock_file)
