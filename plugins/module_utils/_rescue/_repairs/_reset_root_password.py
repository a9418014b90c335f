# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lets a user of the target log in again: password, lock, expiry, SSH keys. Private to this collection.

Works on the files of the target, so that a broken userland there does not stop it. Formats: passwd(5), shadow(5),
sshd(8) "AUTHORIZED_KEYS FILE FORMAT".
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import os
import re
import stat
import struct
import time
import typing as t

from ..._errors import BadInput, Busy, LifeboatError, NotFound, TargetError
from .. import _target
from .._changes import Change, Directory, File, Label, Mode
from .._command import Runner
from .._facts import _libcrypt, _sshd, _systemd
from ._base import Finding, Repair

_KEY = re.compile(r"(?:^|\s)((?:sk-)?(?:ssh-(?:ed25519|rsa|dss)|ecdsa-sha2-nistp(?:256|384|521))(?:@openssh\.com)?)"
                  r"\s+([A-Za-z0-9+/]+={0,2})(?=\s|$)")
_DAY = 86400
# The SELinux type of shadow, in each policy.
SHADOW_TYPE = "shadow_t"


class UserNotFound(NotFound):
    """The target has no such user."""

    code = "user_not_found"


class User(t.NamedTuple):
    """A line of passwd."""

    name: str
    password: str
    uid: int
    gid: int
    home: str
    shell: str


class Options(t.NamedTuple):
    """What is asked for. None: leave as it is. See the options of the module."""

    user: str
    password: str | None = None
    password_hash: str | None = None
    locked: bool | None = None
    clear_expiry: bool = False
    authorized_keys: t.Sequence[str] | None = None
    exclusive: bool = False

    @property
    def sets_password(self) -> bool:
        return self.password is not None or self.password_hash is not None

    @property
    def concerns_shadow(self) -> bool:
        return self.sets_password or self.locked is not None or self.clear_expiry

    @property
    def lock(self) -> bool | None:
        """Whether the password is to be locked; a password that is set is to let in."""
        return self.locked if self.locked is not None or not self.sets_password else False


class ResetRootPassword(Repair):
    """See the module."""

    name = "reset_root_password"
    runs_target = True

    def __init__(self, run: Runner, root: str, options: Options):
        super().__init__(run, root)
        _check(options)
        self.options = options
        self.keys = _parse_keys(options.authorized_keys or [])
        # What pwck finds before shadow is changed; None where it is not.
        self._complaints: list[str] | None = None

    def held(self, changes_follow: bool) -> t.ContextManager[object]:
        return _locked(self.root) if changes_follow else contextlib.nullcontext()

    # -- what is wrong

    def check(self) -> list[Finding]:
        self.user = find_user(self.root, self.options.user)
        self.sshd = _sshd.ask(self.run, self.root, self.user.name)
        self.shadow = self._read_shadow()
        self.key_file = _KeyFile.read(self.root, self.user, self.sshd) if self.keys or self.options.exclusive else None
        return [*self._check_shadow_file(), *self._check_shadow(), *self._check_keys(), *self._check_way()]

    def _read_shadow(self) -> _Shadow | None:
        if self.user.password == "x":
            return _Shadow.read(self.root, self.user, user_names(self.root))
        if self.options.concerns_shadow:
            raise TargetError(f"The password of {self.user.name!r} is in the target's /etc/passwd, not in /etc/shadow.",
                              "Nothing was changed.", "Run pwconv in the target first.")
        return None

    def _check_shadow_file(self) -> t.Iterator[Finding]:
        """Without a shadow that can be read nobody logs in, by a key neither."""
        shadow = self.shadow
        if shadow is None:
            return
        words = {"missing": "is missing", "damaged": "is damaged: it has a line of none of the users",
                 "crlf": "has the line ends of Windows, which glibc takes for a part of the last field"}
        if shadow.problem:
            yield Finding(f"shadow.{shadow.problem}", "no_login", f"The target's /etc/shadow {words[shadow.problem]}.",
                          {"restored_from": shadow.source})
            if shadow.lost:
                yield Finding("shadow.lost", "no_login", "The passwords of these users are lost with it, and must be set anew: "
                              f"{', '.join(shadow.lost)}.", {"users": shadow.lost, "restored_from": shadow.source}, fixable=False)
        elif shadow.is_new:
            yield self._finding("shadow.no_entry", f"{self.user.name!r} has no line in the target's /etc/shadow.")
        label = _target.selinux_type(self.root, "etc/shadow") if shadow.before is not None and _is_enforcing(self.root) else None
        if label not in (None, SHADOW_TYPE):
            yield Finding("shadow.label", "no_login", f"The target's /etc/shadow has the SELinux type {label}, so what asks for passwords "
                          "may not read it.", {"type": label})

    def _finding(self, code: str, sentence: str, fixable: bool = True) -> Finding:
        return Finding(code, "no_login", sentence, {"user": self.user.name}, fixable=fixable)

    def _check_shadow(self) -> t.Iterator[Finding]:
        options, name = self.options, self.user.name
        if self.shadow and options.concerns_shadow:
            if options.sets_password and not self._has_password():
                yield self._finding("password.other", f"The password of {name!r} is not the wanted one.")
            if options.lock is False and self.shadow.is_locked and self.shadow.entry[1].strip("!"):
                yield self._finding("password.locked", f"The password of {name!r} is locked.")
            elif options.lock and not self.shadow.is_locked:
                yield self._finding("password.unlocked", f"The password of {name!r} is not locked.")
        entry = self.shadow.entry if self.shadow else None
        if entry and _is_overdue(entry):
            yield self._finding("password.overdue", f"The password of {name!r} must be changed at login"
                                f"{'' if options.clear_expiry else '; clear_expiry lifts that'}.", options.clear_expiry)
        has_expired = entry is not None and entry[7].isdigit() and int(entry[7]) <= _today()
        if entry and entry[7] and (options.clear_expiry or has_expired):
            yield self._finding("account.expires", f"The account {name!r} {'has expired' if has_expired else 'expires'}"
                                f"{'' if options.clear_expiry else '; clear_expiry lifts that'}.", options.clear_expiry)

    def _has_password(self) -> bool:
        bare = t.cast(_Shadow, self.shadow).bare
        if self.options.password is None:
            return bare == self.options.password_hash
        return _libcrypt.matches(self.run, self.root, self.options.password, bare)

    def _check_keys(self) -> t.Iterator[Finding]:
        file = self.key_file
        if file is None:
            return
        missing = [key for key in self.keys if not file.has(key)]
        if missing:
            yield self._finding("keys.missing", f"{len(missing)} SSH key(s) of {len(self.keys)} do not let {self.user.name!r} in.")
        if self.options.exclusive and file.others(self.keys):
            yield Finding("keys.others", "note", f"/{file.path} has other lines than those that are wanted.", {"user": self.user.name})
        for path, owner, mode in file.unsafe():
            yield self._finding("keys.unsafe", f"sshd takes no keys from /{path} (owner {owner}, mode {mode:04o}).")
        if file.home_is_unsafe():
            yield self._finding("home.unsafe", f"sshd will take no keys of this user while /{file.home} can be written by others or "
                                "belongs to somebody else.", fixable=False)

    def _check_way(self) -> t.Iterator[Finding]:
        """What would still keep the user out, told from the target's own configuration."""
        option = {name: values[0] for name, values in self.sshd.options.items()}
        root_login = option.get("permitrootlogin")
        if self.sshd.complaint:
            yield self._finding("sshd.fails", "The target's `sshd -T` fails, so sshd may not start either: " + self.sshd.complaint, False)
        if self.options.sets_password and option.get("passwordauthentication") == "no":
            yield self._finding("sshd.no_passwords", "The target's sshd takes no passwords (PasswordAuthentication no).", False)
        if self.user.uid == 0 and (root_login == "no" or (
                self.options.sets_password and root_login in ("prohibit-password", "without-password"))):
            yield self._finding("sshd.no_root", f"The target's sshd does not let root in that way (PermitRootLogin {root_login}).", False)
        if self.options.authorized_keys and option.get("pubkeyauthentication") == "no":
            yield self._finding("sshd.no_keys", "The target's sshd takes no keys (PubkeyAuthentication no).", False)
        shell = self.user.shell
        if shell.endswith(("/nologin", "/false")):
            yield self._finding("shell.refuses", f"The shell of {self.user.name!r} is {shell}: nobody can work with it.", False)
        elif shell and not _systemd.exists(self.root, shell):
            yield self._finding("shell.missing", f"The shell of {self.user.name!r}, {shell}, does not exist in the target.", False)
        if self.user.uid != 0 and _systemd.exists(self.root, "etc/nologin"):
            yield self._finding("login.nologin", "/etc/nologin exists in the target: only root can log in.", False)

    # -- what is done about it

    def plan(self, findings: t.Sequence[Finding]) -> list[Change]:
        codes = {finding.code for finding in findings if finding.fixable}
        changes: list[Change] = []
        if self.shadow:
            self._refuse_unlocking_nothing(self.shadow)
            if any(code.startswith(("password.", "account.", "shadow.")) for code in codes - {"shadow.label"}):
                # Of a file that nobody can read pwck says other things than of one that is restored.
                self._complaints = None if self.shadow.problem else _pwck(self.run, self.root)
                changes.append(self._plan_shadow(self.shadow, codes))
            if "shadow.label" in codes:
                changes.append(Label(self.root, "etc/shadow", f"/etc/shadow labelled {SHADOW_TYPE}", selinux_type=SHADOW_TYPE))
        if self.key_file:
            changes += self.key_file.plan(self.keys, self.options.exclusive)
        return changes

    def _refuse_unlocking_nothing(self, shadow: _Shadow) -> None:
        if self.options.lock is False and not self.options.sets_password and shadow.is_locked and not shadow.bare:
            raise BadInput(f"Unlocking {self.user.name!r} would leave an account without a password.", "Nothing was changed.",
                           "Give a password or a password_hash as well.")

    def _plan_shadow(self, shadow: _Shadow, codes: t.Collection[str]) -> File:
        entry, done, options = list(shadow.entry), [], self.options
        if "password.other" in codes:
            if options.password is not None:
                method, cost = _libcrypt.method_of(self.root)
                bare = _libcrypt.make(self.run, self.root, options.password, method, cost)
                done.append(f"password set ({method})")
            else:
                bare = options.password_hash or ""
                _libcrypt.check_hash(self.run, self.root, bare)
                done.append("password set (by its hash)")
            entry[1:3] = ("!" if shadow.is_locked else "") + bare, str(_today())
        if "password.locked" in codes:
            done.append("password unlocked")
        if "password.unlocked" in codes:
            done.append("password locked")
        if options.lock is not None:
            entry[1] = ("!" if options.lock else "") + entry[1].lstrip("!")
        if "password.overdue" in codes and _is_overdue(entry):
            entry[2] = str(_today())
            done.append("password no longer has to be changed at login")
        if "account.expires" in codes:
            entry[7] = ""
            done.append("account no longer expires")
        shown = _without_hash(shadow.entry), _without_hash(entry, changed=shadow.entry[1] != entry[1])
        if shadow.problem:
            done.insert(0, "line ends of shadow corrected" if shadow.problem == "crlf" else f"shadow restored from {shadow.source}")
        elif shadow.is_new:
            done.insert(0, f"line of {self.user.name} added")
        mode, owner = _protection(self.root)
        return File(self.root, "etc/shadow", "; ".join(done), shadow.before, shadow.with_entry(entry), mode=mode, owner=owner,
                    selinux_type=SHADOW_TYPE, shown=shown)

    def prove(self) -> str:
        before = self._complaints
        if before is None:
            return "What was written is read again, and is what was asked for."
        new = [line for line in _pwck(self.run, self.root) if line not in before]
        if new:
            raise TargetError("pwck finds fault with the target's /etc/shadow: " + " ".join(new))
        return "The file is read again, and crypt(3) makes its hash of the password; pwck finds nothing new." if self.options.password \
            else "The file is read again; pwck finds nothing new."


def _today() -> int:
    return int(time.time() // _DAY)


def _is_overdue(entry: t.Sequence[str]) -> bool:
    """Whether the password must be changed at the next login."""
    return entry[2].isdigit() and (entry[2] == "0" or (entry[4].isdigit() and int(entry[2]) + int(entry[4]) < _today()))


def _check(options: Options) -> None:
    """Raise BadInput for options that contradict each other or ask for nothing."""
    if options.sets_password and options.locked:
        raise BadInput("A password and locked=true exclude each other.", "Nothing was changed.",
                       "Give one of them. To lock the password there is, give locked alone.")
    if not options.concerns_shadow and not options.authorized_keys and not options.exclusive:
        raise BadInput("No option was given.", "Nothing was changed.",
                       "Give password, password_hash, locked, clear_expiry, authorized_keys or exclusive.")
    if options.password is not None:
        _libcrypt.check_password(options.password)


def user_names(root: str) -> list[str]:
    """The names of all users of the target."""
    return [line.split(":")[0] for line in _systemd.text(root, "etc/passwd").splitlines() if line.count(":") == 6]


def _is_enforcing(root: str) -> bool:
    return bool(re.search(r"^\s*SELINUX\s*=\s*enforcing\b", _systemd.text(root, "etc/selinux/config"), re.M))


def _protection(root: str) -> tuple[int, tuple[int, int]]:
    """Mode and owner of a new shadow: those of what is like it, else as Debian has it where there is the group, else root's alone."""
    for path in ("etc/shadow-", "etc/gshadow"):
        status = _target.status(root, path)
        if status is not None:
            return stat.S_IMODE(status.st_mode) & 0o640, (status.st_uid, status.st_gid)
    group = re.search(r"^shadow:[^:]*:(\d+):", _systemd.text(root, "etc/group"), re.M)
    return (0o640, (0, int(group.group(1)))) if group else (0o600, (0, 0))


def find_user(root: str, name: str) -> User:
    """Return the User of that name in the target. Raise UserNotFound, naming those that can be asked for."""
    logins = []
    _systemd.check_root(root)
    for line in _systemd.text(root, "etc/passwd").splitlines():
        fields = line.split(":")
        if len(fields) != 7 or not fields[2].isdigit() or not fields[3].isdigit():
            continue
        if fields[0] == name:
            return User(name, fields[1], int(fields[2]), int(fields[3]), fields[5], fields[6])
        if not fields[6].endswith(("/nologin", "/false", "/sync", "/shutdown", "/halt")):
            logins.append(fields[0])
    raise UserNotFound(f"The target has no user {name!r} in its /etc/passwd.", "Nothing was changed.",
                       f"Users that can log in there: {', '.join(logins[:20]) or 'none'}.")


class _Shadow(t.NamedTuple):
    """The target's shadow(5).

    before: what the file holds, None where it is not there. base: the same or, where nobody can log in with it (problem: `missing`,
    `damaged`, `crlf`), what it should be, and from where that is (source). lost: other users whose passwords are in none of them.
    entry: the fields of the user's line; number: of that line. is_new: it is not there yet.
    """

    before: bytes | None
    base: bytes
    problem: str | None
    source: str
    lost: list[str]
    entry: list[str]
    number: int
    is_new: bool = False

    @classmethod
    def read(cls, root: str, user: User, users: t.Sequence[str]) -> _Shadow:
        """users: names of all users. Raises TargetError where the user's password is not there."""
        before = _read_if_there(root, "etc/shadow")
        base, problem, source, lost = _sound(root, before, users)
        lines = base.decode("utf-8", "surrogateescape").split("\n")
        number = next((number for number, line in enumerate(lines) if line.split(":")[0] == user.name), None)
        if number is None:
            # What useradd writes; * is a password that nothing matches.
            number = len(lines) - 1 if lines[-1] == "" else len(lines)
            return cls(before, base, problem, source, lost, f"{user.name}:*::0:99999:7:::".split(":"), number, True)
        entry = lines[number].split(":")
        if len(entry) != 9:
            raise TargetError(f"The line of {user.name!r} in the target's /etc/shadow has {len(entry)} fields, not 9.",
                              "Nothing was changed.", "Correct it by hand in the target.")
        return cls(before, base, problem, source, [name for name in lost if name != user.name], entry, number)

    @property
    def is_locked(self) -> bool:
        return self.entry[1].startswith("!")

    @property
    def bare(self) -> str:
        """The password field without its lock."""
        return self.entry[1].lstrip("!")

    def with_entry(self, entry: t.Sequence[str]) -> bytes:
        """The whole file with another line for the user, and no other byte changed."""
        lines = self.base.decode("utf-8", "surrogateescape").split("\n")
        line = ":".join(entry)
        if self.number < len(lines) and lines[self.number].split(":")[0] == entry[0]:
            lines[self.number] = line
        else:
            lines.insert(self.number, line)
        return "\n".join(lines).encode("utf-8", "surrogateescape")


def _read_if_there(root: str, path: str) -> bytes | None:
    try:
        return _target.read(root, path)
    except _target.NotThere:
        if _target.link(root, path) is not None:
            raise  # it is a link that leads nowhere, or out of the target, and nothing to be made anew
        return None


def _sound(root: str, data: bytes | None, users: t.Sequence[str]) -> tuple[bytes, str | None, str, list[str]]:
    """What shadow should be (see _Shadow): base, problem, source, lost."""
    if data is not None and b"\r" in data and _is_shadow(data.replace(b"\r", b""), users):
        # glibc takes the carriage return for a part of the last field, and the line for none.
        return data.replace(b"\r", b""), "crlf", "/etc/shadow", []
    if data is not None and _is_shadow(data, users):
        return data, None, "/etc/shadow", []
    problem = "missing" if data is None else "damaged"
    copy = _read_if_there(root, "etc/shadow-")
    source, base = ("/etc/shadow-", copy) if copy is not None and _is_shadow(copy, users) else ("/etc/passwd", b"")
    there = {line.split(b":")[0] for line in base.splitlines()}
    lost = [name for name in users if name.encode("utf-8", "surrogateescape") not in there]
    # As pwconv(8) does for who has no line, but with a password that nothing matches.
    base = base if not base or base.endswith(b"\n") else base + b"\n"
    base += "".join(f"{name}:*:{_today()}:0:99999:7:::\n" for name in lost).encode("utf-8", "surrogateescape")
    return base, problem, source, lost


def _is_shadow(data: bytes, users: t.Sequence[str]) -> bool:
    """Whether it has a line of shadow(5) for at least one of the users, and nothing that no text has."""
    names = {line.split(":")[0] for line in data.decode("utf-8", "surrogateescape").splitlines() if line.count(":") == 8}
    return b"\0" not in data and bool(names & set(users))


def _without_hash(entry: list[str], changed: bool = False) -> str:
    """A line of shadow for eyes: kind and state of the password, and the dates."""
    kind = re.match(r"!*(\$[0-9a-z]+\$)?", entry[1])
    shown = (kind.group(0) if kind else "") + ("(new hash)" if changed else "(hash)" if entry[1].lstrip("!*") else
                                               entry[1].lstrip("!"))
    return ":".join([entry[0], shown, *entry[2:]]) + "\n"


def _pwck(run: Runner, root: str) -> list[str]:
    """What `pwck -r` of the rescue system complains about; nothing where it is missing.

    Of a line that it quotes only the name is kept: the rest holds the hash, which is secret and has changed.
    """
    argv = ["pwck", "-r", "-q"] + ([] if os.path.realpath(root) == "/" else ["-R", root])
    with contextlib.suppress(LifeboatError):
        done = run(argv, check=False)
        return re.sub(r"'([^:'\n]*):[^\n]*'", r"'\1'", done.out + done.err).splitlines()
    return []


@contextlib.contextmanager
def _locked(root: str) -> t.Iterator[None]:
    """Hold the lock of lckpwdf(3) in the target, where it has one. It is not made: that would be one more change."""
    if not _systemd.exists(root, "etc/.pwd.lock"):
        yield
        return
    with _target.opened(root, "etc/.pwd.lock", os.O_RDWR) as descriptor:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Busy("Somebody is changing the accounts of the target right now (/etc/.pwd.lock is held).",
                       "Nothing was changed.", "Run this again when that is over.") from None
        yield


class _Key(t.NamedTuple):
    """A line of authorized_keys. options: what stands before the key, which is part of it."""

    line: str
    options: str
    kind: str
    blob: str


def _parse_keys(lines: t.Sequence[str]) -> list[_Key]:
    """Read lines of authorized_keys; raise BadInput for one that is no key. Comments and empty lines are left out."""
    keys: list[_Key] = []
    for number, line in enumerate((line for text in lines for line in text.splitlines()), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        key = _parse_key(line)
        if key is None:
            raise BadInput(f"Line {number} of authorized_keys is not a public SSH key in the format of OpenSSH.",
                           "Nothing was changed.",
                           "Give the line of a .pub file, such as 'ssh-ed25519 AAAA… you@example'.")
        # The first one that names a key counts, as it does for sshd.
        if (key.kind, key.blob) not in [(each.kind, each.blob) for each in keys]:
            keys.append(key)
    return keys


def _parse_key(line: str) -> _Key | None:
    for match in _KEY.finditer(line):
        kind, blob = match.groups()
        with contextlib.suppress(binascii.Error, struct.error, ValueError):
            data = base64.b64decode(blob, validate=True)
            length = struct.unpack(">I", data[:4])[0]
            # The key says its own kind once more inside (RFC 4253, 6.6); a mangled one does not, or has nothing after.
            if data[4:4 + length].decode("ascii") == kind and len(data) > 4 + length + 32:
                return _Key(line, line[:match.start(1)].strip(), kind, blob)
    return None


class _KeyFile:
    """The file that sshd reads a user's keys from. path: in the target, without a leading slash. home: "" for a file elsewhere."""

    def __init__(self, root: str, path: str, home: str, owner: tuple[int, int], data: bytes | None):
        """data: its content, None for a file that is not there."""
        self.root, self.path, self.home, self.owner, self.data = root, path, home, owner, data
        self.lines = (data or b"").decode("utf-8", "surrogateescape").splitlines()

    @classmethod
    def read(cls, root: str, user: User, sshd: _sshd.Sshd) -> _KeyFile:
        """Raises TargetError where there can be none."""
        path = _key_path(sshd, user)
        home = os.path.normpath(user.home).lstrip("/")
        if not home or not path.startswith(home + "/"):
            home = ""
        if home and not _systemd.exists(root, home):
            raise TargetError(f"The home /{home} of {user.name!r} does not exist in the target.", "Nothing was changed.",
                              "Mount the file system that holds it, or create it in the target.")
        data = _target.read(root, path) if _systemd.exists(root, path) else None
        return cls(root, path, home, (user.uid, user.gid) if home else (0, 0), data)

    def _of(self, key: _Key) -> list[int]:
        """The numbers of the lines with this key, whatever their options."""
        found = ((number, _key_of(line)) for number, line in enumerate(self.lines))
        return [number for number, there in found if there and (there.kind, there.blob) == (key.kind, key.blob)]

    def has(self, key: _Key) -> bool:
        """Whether the key lets in as it is wanted: sshd takes the first line that it is in, with the options there."""
        numbers = self._of(key)
        first = _key_of(self.lines[numbers[0]]) if numbers else None
        return first is not None and first.options == key.options

    def others(self, keys: t.Sequence[_Key]) -> list[str]:
        """The lines that are none of these keys."""
        return [line for line in self.lines if not self._is_wanted(line, keys)]

    @staticmethod
    def _is_wanted(line: str, keys: t.Sequence[_Key]) -> bool:
        there = _key_of(line)
        return there is not None and any(there[1:] == key[1:] for key in keys)

    def plan(self, keys: t.Sequence[_Key], exclusive: bool) -> list[Change]:
        """What makes these keys let in, with the owner and the modes that sshd's StrictModes wants."""
        added = [key for key in keys if not self.has(key)]
        lines: list[tuple[float, str]] = [(number, line) for number, line in enumerate(self.lines)
                                          if not exclusive or self._is_wanted(line, keys)]
        gone = len(self.lines) - len(lines)
        for key in added:
            # Before the same key with other options, which sshd would take first.
            place = min(self._of(key), default=len(self.lines)) - 0.5
            lines.append((place if exclusive is False and self._of(key) else len(self.lines), key.line))
        lines.sort(key=lambda each: each[0])
        changes: list[Change] = []
        if added or gone:
            parent = os.path.dirname(self.path)
            if not _systemd.exists(self.root, parent):
                changes.append(Directory(self.root, parent, f"/{parent} made", mode=0o700 if self.home else 0o755, owner=self.owner,
                                         # The policy labels both ~/.ssh and what is in it so; the home has another type.
                                         selinux_type="ssh_home_t" if self.home else None))
            what = f"{len(added)} SSH key(s) added" + (f", {gone} line(s) removed" if gone else "")
            after = "".join(line + "\n" for _place, line in lines).encode("utf-8", "surrogateescape")
            changes.append(File(self.root, self.path, what, self.data, after, mode=0o600 if self.home else 0o644, owner=self.owner))
        return [*changes, *(
            Mode(self.root, path, f"/{path} made safe for sshd (owner {self.owner[0]}, mode {mode & ~0o022:04o})", mode=mode & ~0o022,
                 owner=None if owner in (0, self.owner[0]) else self.owner)
            for path, owner, mode in self.unsafe())]

    def unsafe(self) -> list[tuple[str, int, int]]:
        """What sshd takes no keys from (StrictModes), but for the home: path, owner, mode."""
        found = []
        for path in [self.path, os.path.dirname(self.path)] if self.home else [self.path]:
            status = _target.status(self.root, path)
            if status is not None and path != self.home and self._is_unsafe(status):
                found.append((path, status.st_uid, stat.S_IMODE(status.st_mode)))
        return found

    def home_is_unsafe(self) -> bool:
        status = _target.status(self.root, self.home) if self.home else None
        return status is not None and self._is_unsafe(status)

    def _is_unsafe(self, status: os.stat_result) -> bool:
        """Whether others can write there, or it is somebody else's."""
        return bool(status.st_mode & 0o022) or status.st_uid not in (0, self.owner[0])


def _key_of(line: str) -> _Key | None:
    """The key in a line of the file; None for a comment or junk."""
    return None if line.lstrip().startswith("#") else _parse_key(line)


def _key_path(sshd: _sshd.Sshd, user: User) -> str:
    """Return the path in the target that sshd reads the user's keys from, without a leading slash."""
    patterns = " ".join(sshd.options.get("authorizedkeysfile") or [".ssh/authorized_keys"]).split()
    pattern = ".ssh/authorized_keys" if ".ssh/authorized_keys" in patterns else patterns[0]
    if pattern == "none":
        raise TargetError(f"The target's sshd reads no authorized_keys for {user.name!r} (AuthorizedKeysFile none).",
                          "Nothing was changed.", "Change sshd_config in the target, or set a password.")
    tokens = {"%%": "%", "%h": user.home, "%u": user.name, "%U": str(user.uid)}
    path = re.sub(r"%[%huU]", lambda match: tokens[match.group(0)], pattern)
    return os.path.normpath(path if path.startswith("/") else f"{user.home}/{path}").lstrip("/")
