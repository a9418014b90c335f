# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Password hashes as the target itself would make them. Private to this collection.

The hashing is done by a libcrypt: that of the rescue system where it knows the method, else that of the target.
"""

from __future__ import annotations

import ctypes
import hmac
import re
import secrets
import typing as t

from ..._errors import BadInput, LifeboatError
from .. import _target
from .._command import Runner
from . import _systemd

_ALPHABET = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_PAM_FILES = ("etc/pam.d/common-password", "etc/pam.d/system-auth", "etc/pam.d/password-auth", "etc/pam.d/passwd")
_PAM_WORDS = {"yescrypt", "gost_yescrypt", "sha512", "sha256", "blowfish", "md5", "bigcrypt", "scrypt"}
# What can be made. Whatever is not here (md5, des, bigcrypt) can be broken in hours and is not made any more.
_PREFIXES = {"yescrypt": "$y$", "gost_yescrypt": "$gy$", "blowfish": "$2b$", "bcrypt": "$2b$", "sha512": "$6$",
             "sha256": "$5$"}
_SHAPE = re.compile(r"(\$[0-9a-z]+\$[^:\s]+|_[./0-9A-Za-z]{19}|[./0-9A-Za-z]{13})\Z")

_PERL = r'binmode STDIN; chomp(my ($s, $p) = <STDIN>); my $h = crypt($p, $s); print defined $h ? $h : "*0";'
_PYTHON = """
import ctypes, sys
setting, password = sys.stdin.buffer.read().split(b"\\n")[:2]
for name in ("libcrypt.so.1", "libcrypt.so.2", None):
    try:
        function = ctypes.CDLL(name).crypt
    except (OSError, AttributeError):
        continue
    function.restype = ctypes.c_char_p
    sys.stdout.write((function(password, setting) or b"*0").decode())
    break
"""


class NoSuchMethod(LifeboatError):
    """Neither the rescue system nor the target can make a hash of this kind."""

    code = "no_such_method"


def method_of(root: str) -> tuple[str, int | None]:
    """Return (method, cost) that the target uses for new passwords; cost is an int, or None for the method's own.

    The last pam_unix line of the password stack wins over ENCRYPT_METHOD of login.defs, as it does for passwd(1)
    there: pam_unix(8), login.defs(5).
    """
    defs = {}
    for line in _systemd.text(root, "etc/login.defs").splitlines():
        words = line.split()
        if len(words) >= 2 and not words[0].startswith("#"):
            defs[words[0]] = words[1]
    method = defs.get("ENCRYPT_METHOD", "sha512").lower()
    cost = None
    for path in _PAM_FILES:
        for line in _systemd.text(root, path).replace("\\\n", " ").splitlines():
            words = line.split("#")[0].split()
            if not words or words[0].lstrip("-") != "password" or "pam_unix.so" not in line:
                continue
            found = [word for word in words if word in _PAM_WORDS]
            rounds = [word[7:] for word in words if word.startswith("rounds=")]
            if found:
                method, cost = found[-1], None
            if rounds and rounds[-1].isdigit():
                cost = int(rounds[-1])
    if method not in _PREFIXES:
        method = "sha512"
    if cost is None:
        key = {"yescrypt": "YESCRYPT_COST_FACTOR", "blowfish": "BCRYPT_MAX_ROUNDS", "bcrypt": "BCRYPT_MAX_ROUNDS",
               "sha512": "SHA_CRYPT_MAX_ROUNDS", "sha256": "SHA_CRYPT_MAX_ROUNDS"}.get(method, "")
        if defs.get(key, "").isdigit():
            cost = int(defs[key])
    return method, cost


def setting(method: str, cost: int | None = None) -> str:
    """Return a new setting (prefix, cost and a random salt of at least 96 bits) for crypt(3), see crypt(5)."""
    prefix = _PREFIXES[method]
    salt = "".join(secrets.choice(_ALPHABET) for each in range(21))
    if prefix in ("$y$", "$gy$"):
        cost = 5 if cost is None else min(max(cost, 1), 11)
        # crypt_gensalt(3) of libxcrypt writes costs so. The salt's last letter carries two bits only.
        return f"{prefix}{'j75' if cost == 1 else 'j85' if cost == 2 else 'j' + _ALPHABET[cost + 6] + 'T'}$" \
               f"{salt}{secrets.choice('./01')}"
    if prefix == "$2b$":
        return f"{prefix}{10 if cost is None else min(max(cost, 4), 20):02d}${salt}{secrets.choice('.Oeu')}"
    return prefix + (f"rounds={min(max(cost, 1000), 9999999)}$" if cost else "") + salt[:16]


def make(run: Runner, root: str, password: str, method: str, cost: int | None = None) -> str:
    """Return a new hash of password by method."""
    check_password(password)
    hashed = _crypt(run, root, password, setting(method, cost))
    if hashed is None:
        raise NoSuchMethod(f"The target wants passwords hashed by {method}, and neither the rescue system nor the "
                           "target itself can do that now.", "Nothing was changed.",
                           "Make the hash elsewhere and give it as password_hash.")
    return hashed


def matches(run: Runner, root: str, password: str, hashed: str) -> bool:
    """Tell whether hashed is a hash of password. False also where nobody here can make that kind of hash."""
    check_password(password)
    if not _SHAPE.match(hashed):
        return False
    again = _crypt(run, root, password, hashed)
    return again is not None and hmac.compare_digest(again.encode(), hashed.encode())


def check_password(password: str) -> None:
    """Raise BadInput for a password that nobody could type or no hash could hold."""
    if not password or re.search(r"[\0\r\n]", password):
        raise BadInput("The password is empty or holds a line end or a zero byte.", "Nothing was changed.")


def check_hash(run: Runner, root: str, hashed: str) -> None:
    """Raise BadInput unless hashed looks like a hash, and one that the target's crypt(3) knows (if it answers)."""
    if not _SHAPE.match(hashed):
        raise BadInput("password_hash is not the hash of a password: none of crypt(5) looks like that.",
                       "Nothing was changed.", "Give a plain password as password, and use locked to lock.")
    known = _crypt_inside(run, root, "x", hashed)
    if known is not None and not _same_kind(known, hashed):
        raise BadInput(f"The target does not know passwords that begin with {_kind(hashed)!r}; nobody could log in.",
                       "Nothing was changed.", "Make the hash by a method that the target knows, such as SHA-512.")


def _crypt(run: Runner, root: str, password: str, salt: str) -> str | None:
    """The hash of password with that setting, or None where nobody knows how."""
    function = _libcrypt()
    if function is not None:
        hashed = (function(password.encode(), salt.encode()) or b"").decode("ascii", "replace")
        if _same_kind(hashed, salt):
            return hashed
    answer = _crypt_inside(run, root, password, salt)
    return answer if answer and _same_kind(answer, salt) else None


def _crypt_inside(run: Runner, root: str, password: str, salt: str) -> str | None:
    """What the target's own crypt(3) says ("*0": unknown method), or None where there is no way to ask it."""
    for argv in (["perl", "-e", _PERL], ["python3", "-B", "-c", _PYTHON],
                 ["/usr/libexec/platform-python", "-B", "-c", _PYTHON]):
        try:
            done = _target.inside(run, root, argv, stdin=f"{salt}\n{password}\n", check=False)
        except LifeboatError:
            continue
        if done.rc == 0 and done.out:
            return done.out
    return None


def _kind(hashed: str) -> str:
    return hashed[:hashed.index("$", 1) + 1] if hashed.startswith("$") and "$" in hashed[1:] else hashed[:2]


def _same_kind(hashed: str, salt: str) -> bool:
    """A libcrypt that does not know a method answers nothing, a star, or (old ones) a DES hash."""
    return bool(hashed) and _kind(hashed) == _kind(salt) and len(hashed) > 12


def _libcrypt() -> t.Callable[[bytes, bytes], bytes | None] | None:
    for name in ("libcrypt.so.1", "libcrypt.so.2", None):
        try:
            function = ctypes.CDLL(name).crypt
        except (OSError, AttributeError):
            continue
        function.restype = ctypes.c_char_p
        function.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
        return function
    return None
