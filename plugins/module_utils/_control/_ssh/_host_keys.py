# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Host keys, and the known_hosts files that hold them. Private to this collection.

It writes to no file; known_hosts files are the caller's.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import typing as t


class HostKey(t.NamedTuple):
    """A server's public host key."""

    type: str
    blob: bytes

    @classmethod
    def from_line(cls, line: str) -> HostKey | None:
        """The key of a line like `ssh-ed25519 AAAA… comment`; None where it is not one."""
        words = line.split()
        if len(words) < 2:
            return None
        try:
            blob = base64.b64decode(words[1], validate=True)
        except ValueError:
            return None
        # RFC 4253 §6.6: the blob is nothing but strings with a length of four bytes each, and the first is the type.
        parts: list[bytes] = []
        rest = blob
        while rest:
            length = int.from_bytes(rest[:4], "big")
            if len(rest) < 4 + length:
                return None
            parts.append(rest[4:4 + length])
            rest = rest[4 + length:]
        if len(parts) < 2 or parts[0].decode("ascii", "replace") != words[0]:
            return None
        return cls(words[0], blob)

    @property
    def line(self) -> str:
        return f"{self.type} {base64.b64encode(self.blob).decode()}"

    @property
    def fingerprint(self) -> str:
        """As ssh-keygen -l shows it."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")


def host_pattern(address: str, port: int) -> str:
    """The name under which OpenSSH keeps a host key."""
    return address if port == 22 else f"[{address}]:{port}"


def read_known_hosts(path: str, address: str, port: int) -> list[HostKey]:
    """The keys that a known_hosts file holds for an address (hashed names too). A missing file holds none.

    Lines that are broken or marked (`@revoked`, `@cert-authority`) are passed over, and so are patterns.
    """
    wanted = host_pattern(address, port).lower()
    try:
        with open(os.path.expanduser(path), encoding="utf-8", errors="replace") as stream:
            lines = [line.split(None, 1) for line in stream]
    except OSError:
        return []
    keys = [(words[0], HostKey.from_line(words[1])) for words in lines if len(words) == 2]
    return [key for names, key in keys if key and any(_is_name(name, wanted) for name in names.split(","))]


def _is_name(name: str, wanted: str) -> bool:
    """Whether a name of a known_hosts file, hashed or not, is the one wanted."""
    if not name.startswith("|1|"):
        return name.lower() == wanted
    try:
        salt, digest = (base64.b64decode(part, validate=True) for part in name[3:].split("|"))
    except ValueError:
        return False
    return hmac.new(salt, wanted.encode(), "sha1").digest() == digest
