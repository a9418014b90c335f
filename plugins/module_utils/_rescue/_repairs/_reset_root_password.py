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
from .._command import Runner
from .._facts import _libcrypt, _sshd, _systemd

Result = t.Dict[str, t.Any]

_KEY = re.compile(r"(?:^|\s)((?:sk-)?(?:ssh-(?:ed25519|rsa|dss)|ecdsa-sha2-nistp(?:256|384|521))(?:@openssh\.com)?)"
                  r"\s+([A-Za-z0-9+/]+={0,2})(?=\s|$)")
_DAY = 86400
_LABEL = "security.selinux"


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


class Wish(t.NamedTuple):
    """What is asked for. None: leave as it is. See the options of the module reset_root_password."""

    user: str
    password: str | None = None
    password_hash: str | None = None
    locked: bool | None = None
    clear_expiry: bool = False
    authorized_keys: t.Sequence[str] | None = None
    exclusive: bool = False


def fulfil(run: Runner, root: str, wish: Wish, *, check_mode: bool = False) -> Result:
    """Make it so. Return the module's result (dict). Everything is looked at before anything is written."""
    _check(wish)
    user = find_user(root, wish.user)
    keys = _parse_keys(wish.authorized_keys or [])
    result: Result = {"changed": False, "user": user.name, "done": [], "files": [], "diff": [],
                      "warnings": []}
    wants_shadow = wish.password is not None or wish.password_hash is not None or wish.locked is not None \
        or wish.clear_expiry
    sshd = _sshd.ask(run, root, user.name)
    key_file = _key_file(sshd, user) if keys or wish.exclusive else None
    with _locked(root) if wants_shadow and not check_mode else contextlib.nullcontext():
        change = _plan_shadow(run, root, user, wish, result) if wants_shadow else None
        if change and not check_mode:
            _write_shadow(run, root, user, wish, change, result)
    if key_file:
        _set_keys(root, user, keys, key_file, wish.exclusive, check_mode, result)
    result["warnings"] += _warnings(root, user, wish, sshd, change)
    result["changed"] = bool(result["done"])
    result["msg"] = f"{user.name}: {'; '.join(result['done'])}." if result["done"] else f"{user.name} is as wanted."
    return result


def _check(wish: Wish) -> None:
    """Raise BadInput for a wish that contradicts itself or asks for nothing."""
    password = wish.password is not None or wish.password_hash is not None
    if password and wish.locked:
        raise BadInput("A password and locked=true exclude each other.", "Nothing was changed.",
                       "Give one of them. To lock the password there is, give locked alone.")
    if not password and wish.locked is None and not wish.clear_expiry and not wish.authorized_keys \
            and not wish.exclusive:
        raise BadInput("No option was given.", "Nothing was changed.",
                       "Give password, password_hash, locked, clear_expiry, authorized_keys or exclusive.")


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


class _ShadowChange(t.NamedTuple):
    before: bytes
    after: bytes
    entry: list[str]


def _plan_shadow(run: Runner, root: str, user: User, wish: Wish, result: Result) -> _ShadowChange | None:
    """Return a _ShadowChange or None, and say in result["done"] and ["diff"] what it does, without any hash."""
    if user.password != "x":
        raise TargetError(f"The password of {user.name!r} is in the target's /etc/passwd, not in /etc/shadow.",
                          "Nothing was changed.", "Run pwconv in the target first.")
    before = _target.read(root, "etc/shadow")
    lines = before.decode("utf-8", "surrogateescape").split("\n")
    at = next((number for number, line in enumerate(lines) if line.split(":")[0] == user.name), None)
    if at is None:
        # What useradd writes; * is a password that nothing matches.
        at = len(lines) - 1 if lines[-1] == "" else len(lines)
        lines.insert(at, f"{user.name}:*::0:99999:7:::")
        entry = lines[at].split(":")
    else:
        entry = lines[at].split(":")
        if len(entry) != 9:
            raise TargetError(f"The line of {user.name!r} in the target's /etc/shadow has {len(entry)} fields, not 9.",
                              "Nothing was changed.", "Correct it by hand in the target.")
    old = list(entry)
    today = int(time.time() // _DAY)
    done = _new_password(run, root, wish, entry, today)
    overdue = entry[2].isdigit() and (entry[2] == "0" or (entry[4].isdigit() and int(entry[2]) + int(entry[4]) < today))
    if wish.clear_expiry and overdue:
        entry[2] = str(today)
        done.append("password no longer has to be changed at log-in")
    if wish.clear_expiry and entry[7]:
        entry[7] = ""
        done.append("account no longer expires")
    if entry == old:
        return None
    lines[at] = ":".join(entry)
    result["done"] += done
    result["diff"].append({"before_header": "/etc/shadow", "after_header": "/etc/shadow",
                           "before": _without_hash(old), "after": _without_hash(entry, changed=old[1] != entry[1])})
    return _ShadowChange(before, "\n".join(lines).encode("utf-8", "surrogateescape"), entry)


def _new_password(run: Runner, root: str, wish: Wish, entry: list[str], today: int) -> list[str]:
    """Change the password field of entry (and the date of its change) as wished; return what was done, as texts."""
    done = []
    bare = entry[1].lstrip("!")
    if wish.password is not None:
        if not _libcrypt.matches(run, root, wish.password, bare):
            method, cost = _libcrypt.method_of(root)
            bare = _libcrypt.make(run, root, wish.password, method, cost)
            done.append(f"password set ({method})")
    elif wish.password_hash is not None and bare != wish.password_hash:
        _libcrypt.check_hash(run, root, wish.password_hash)
        bare = wish.password_hash
        done.append("password set (by its hash)")
    if done:
        entry[2] = str(today)
    lock = wish.locked if wish.locked is not None else (False if wish.password or wish.password_hash else None)
    was = entry[1].startswith("!")
    if lock is None:
        lock = was
    if was and not lock and not bare:
        raise BadInput(f"Unlocking {wish.user!r} would leave an account without a password.",
                       "Nothing was changed.", "Give a password or a password_hash as well.")
    if was and not lock and entry[1].strip("!"):
        done.append("password unlocked")
    elif lock and not was:
        done.append("password locked")
    entry[1] = ("!" if lock else "") + bare
    return done


def _without_hash(entry: list[str], changed: bool = False) -> str:
    """A line of shadow for eyes: kind and state of the password, and the dates."""
    kind = re.match(r"!*(\$[0-9a-z]+\$)?", entry[1])
    shown = (kind.group(0) if kind else "") + ("(new hash)" if changed else "(hash)" if entry[1].lstrip("!*") else
                                               entry[1].lstrip("!"))
    return ":".join([entry[0], shown, *entry[2:]]) + "\n"


def _write_shadow(run: Runner, root: str, user: User, wish: Wish, change: _ShadowChange, result: Result) -> None:
    """Write shadow, read it again, and prove it; put it back if the proof fails."""
    complaints = _pwck(run, root)
    backup = _target.replace(root, "etc/shadow", change.after)
    try:
        again = _target.read(root, "etc/shadow")
        entry = next(line.split(":") for line in again.decode("utf-8", "surrogateescape").split("\n")
                     if line.split(":")[0] == user.name)
        if again != change.after or entry != change.entry or (
                wish.password is not None and not _libcrypt.matches(run, root, wish.password, entry[1].lstrip("!"))):
            raise TargetError("The target's /etc/shadow does not hold what was written.")
        new = [line for line in _pwck(run, root) if line not in complaints]
        if new:
            raise TargetError("pwck finds fault with the target's /etc/shadow: " + " ".join(new))
    except BaseException as exc:
        _target.replace(root, "etc/shadow", change.before, backup=False)
        if backup:
            _target.remove(root, backup)
        if isinstance(exc, LifeboatError):
            exc.state = "The file was put back as it was."
        raise
    result["files"].append({"path": "/etc/shadow", "backup": backup})


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
    with _opened(root, "etc/.pwd.lock", os.O_RDWR) as descriptor:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Busy("Somebody is changing the accounts of the target right now (/etc/.pwd.lock is held).",
                       "Nothing was changed.", "Run this again when that is over.") from None
        yield


@contextlib.contextmanager
def _opened(root: str, path: str, flags: int = os.O_RDONLY) -> t.Iterator[int]:
    """Descriptor of a file or directory of the target, by its path without links: none of them is followed again."""
    place = root.rstrip("/") + _target.resolve(root, path)
    descriptor = os.open(place, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


class _Key(t.NamedTuple):
    line: str
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
                return _Key(line, kind, blob)
    return None


def _identity(line: str) -> tuple[str, str] | None:
    """What makes a key the same whatever stands around it; None for a comment or junk."""
    key = None if line.lstrip().startswith("#") else _parse_key(line)
    return (key.kind, key.blob) if key else None


def _key_file(sshd: _sshd.Sshd, user: User) -> str:
    """Return the path in the target that sshd reads the user's keys from, without a leading slash."""
    patterns = " ".join(sshd.options.get("authorizedkeysfile") or [".ssh/authorized_keys"]).split()
    pattern = ".ssh/authorized_keys" if ".ssh/authorized_keys" in patterns else patterns[0]
    if pattern == "none":
        raise TargetError(f"The target's sshd reads no authorized_keys for {user.name!r} (AuthorizedKeysFile none).",
                          "Nothing was changed.", "Change sshd_config in the target, or set a password.")
    tokens = {"%%": "%", "%h": user.home, "%u": user.name, "%U": str(user.uid)}
    path = re.sub(r"%[%huU]", lambda match: tokens[match.group(0)], pattern)
    return os.path.normpath(path if path.startswith("/") else f"{user.home}/{path}").lstrip("/")


def _set_keys(root: str, user: User, keys: list[_Key], path: str, exclusive: bool, check_mode: bool,
              result: Result) -> None:
    """Put keys into the file at path, with the owner and the modes that sshd's StrictModes wants."""
    home = os.path.normpath(user.home).lstrip("/")
    below_home = bool(home) and path.startswith(home + "/")
    owner = (user.uid, user.gid) if below_home else (0, 0)
    if below_home and not _systemd.exists(root, home):
        raise TargetError(f"The home /{home} of {user.name!r} does not exist in the target.",
                          None if result["done"] else "Nothing was changed.",
                          "Mount the file system that holds it, or create it in the target.")
    there = _systemd.exists(root, path)
    before = _target.read(root, path) if there else b""
    text = before.decode("utf-8", "surrogateescape")
    present = {_identity(line) for line in text.splitlines()}
    if exclusive:
        wanted = {(key.kind, key.blob) for key in keys}
        kept = [line for line in text.splitlines() if _identity(line) in wanted]
    else:
        kept = text.splitlines()
    added = [key.line for key in keys if (key.kind, key.blob) not in present]
    after = "".join(line + "\n" for line in [*kept, *added]).encode("utf-8", "surrogateescape")
    if not exclusive and not added:
        after = before
    if after != before:
        gone = len(text.splitlines()) - len(kept)
        result["done"].append(f"{len(added)} SSH key(s) added" + (f", {gone} line(s) removed" if gone else ""))
        result["diff"].append({"before_header": "/" + path, "after_header": "/" + path, "before": text,
                               "after": after.decode("utf-8", "replace")})
    if not check_mode and after != before:
        backup = None
        if there:
            backup = _target.replace(root, path, after)
        else:
            parent = os.path.dirname(path)
            if not _systemd.exists(root, parent):
                _target.make_directory(root, parent, mode=0o700 if below_home else 0o755, owner=owner)
                if below_home:
                    _label_for_sshd(root, parent)
            _target.create(root, path, after, mode=0o600 if below_home else 0o644, owner=owner)
        result["files"].append({"path": "/" + path, "backup": backup})
    _strict_modes(root, path, home if below_home else "", owner, check_mode, result)


def _label_for_sshd(root: str, path: str) -> None:
    """Give a new directory the SELinux type that sshd may read; the file in it takes after it.

    The policy's file contexts label both ~/.ssh and what is in it ssh_home_t; the home has another type.
    """
    with _opened(root, path) as descriptor:
        # Without SELinux there is no such attribute.
        label = os.getxattr(descriptor, _LABEL).split(b":") if _LABEL in os.listxattr(descriptor) else []
        if len(label) > 3:
            label[2] = b"ssh_home_t"
            os.setxattr(descriptor, _LABEL, b":".join(label))


def _strict_modes(root: str, path: str, home: str, owner: tuple[int, int], check_mode: bool, result: Result) -> None:
    """sshd takes no keys from a file or directory that others can write, or that somebody else owns (StrictModes)."""
    for each in [path, os.path.dirname(path)] if home else [path]:
        status = _target.status(root, each)
        if status is None or each == home:
            continue
        mode = stat.S_IMODE(status.st_mode)
        wanted = mode & ~0o022
        if (status.st_uid in (0, owner[0])) and wanted == mode:
            continue
        result["done"].append(f"/{each} made safe for sshd (owner {owner[0]}, mode {wanted:04o})")
        if not check_mode:
            with _opened(root, each) as descriptor:
                if status.st_uid not in (0, owner[0]):
                    os.fchown(descriptor, *owner)
                os.fchmod(descriptor, wanted)
    status = _target.status(root, home) if home else None
    if status is not None and (status.st_mode & 0o022 or status.st_uid not in (0, owner[0])):
        result["warnings"].append(f"sshd will take no keys of this user while /{home} can be written by others or "
                                  f"belongs to somebody else (owner {status.st_uid}, mode "
                                  f"{stat.S_IMODE(status.st_mode):04o}).")


def _warnings(root: str, user: User, wish: Wish, sshd: _sshd.Sshd, change: _ShadowChange | None) -> list[str]:
    """What would still keep the user out, told from the target's own configuration."""
    told = []
    option = {name: values[0] for name, values in sshd.options.items()}
    password = wish.password is not None or wish.password_hash is not None
    if sshd.complaint:
        told.append("The target's `sshd -T` fails, so sshd may not start either: " + sshd.complaint)
    if password and option.get("passwordauthentication") == "no":
        told.append("The target's sshd takes no passwords (PasswordAuthentication no).")
    if user.uid == 0 and (option.get("permitrootlogin") == "no" or (
            password and option.get("permitrootlogin") in ("prohibit-password", "without-password"))):
        told.append(f"The target's sshd does not let root in that way (PermitRootLogin {option['permitrootlogin']}).")
    if wish.authorized_keys and option.get("pubkeyauthentication") == "no":
        told.append("The target's sshd takes no keys (PubkeyAuthentication no).")
    if user.shell.endswith(("/nologin", "/false")):
        told.append(f"The shell of {user.name!r} is {user.shell}: nobody can work with it.")
    elif user.shell and not _systemd.exists(root, user.shell):
        told.append(f"The shell of {user.name!r}, {user.shell}, does not exist in the target.")
    if user.uid != 0 and _systemd.exists(root, "etc/nologin"):
        told.append("/etc/nologin exists in the target: only root can log in.")
    told += _expiry(root, user, change)
    return told


def _expiry(root: str, user: User, change: _ShadowChange | None) -> list[str]:
    today = int(time.time() // _DAY)
    entries = (line.split(":") for line in _systemd.text(root, "etc/shadow").splitlines())
    entry = change.entry if change else next((fields for fields in entries if fields[0] == user.name), [])
    if len(entry) != 9:
        return []
    told = []
    if entry[7].isdigit() and int(entry[7]) <= today:
        told.append(f"The account {user.name!r} has expired; clear_expiry lifts that.")
    if entry[2] == "0" or (entry[2].isdigit() and entry[4].isdigit() and int(entry[2]) + int(entry[4]) < today):
        told.append(f"The password of {user.name!r} must be changed at log-in; clear_expiry lifts that.")
    return told
