# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the target's SSH server will do when it starts. Private to this collection."""

from __future__ import annotations

import re
import typing as t

from ..._errors import LifeboatError
from .. import _target
from .._command import Runner
from . import _systemd

# sshd refuses even to print its configuration without its empty directory, which lives in /run.
_ASK = """\
PATH=$PATH:/usr/sbin:/sbin
program=$(command -v sshd) || { echo "There is no sshd." >&2; exit 127; }
test -d /run/sshd || mkdir -m 0755 /run/sshd 2>/dev/null
exec "$program" "$@"
"""


class Endpoint(t.NamedTuple):
    """Where sshd listens. family is 4 or 6; address is "" for every address."""

    family: int
    address: str
    port: int


class Sshd(t.NamedTuple):
    """The answer: endpoints, the options of `sshd -T` (lower case name: list of values), and who told.

    source: "sshd -T", "ssh.socket", "sshd_config" (read by us, since sshd -T failed) or "default". complaint is what
    sshd said when it failed, or "".
    """

    endpoints: list[Endpoint]
    options: dict[str, list[str]]
    source: str
    complaint: str = ""


def ask(run: Runner, root: str, user: str = "root") -> Sshd:
    """Ask the target's own sshd how it would start and how it would treat user (who comes from anywhere)."""
    connection = f"user={user},host=localhost.invalid,addr=1.2.3.4,laddr=5.6.7.8,lport=22"
    try:
        done = _target.inside(run, root, ["sh", "-c", _ASK, "sshd", "-T", "-C", connection], check=False)
        complaint = "" if done.rc == 0 else (done.err.strip() or f"exit code {done.rc}")[-500:]
        text = done.out if done.rc == 0 else ""
    except LifeboatError as exc:
        complaint, text = exc.what, ""
    options: dict[str, list[str]] = {}
    for line in text.splitlines():
        words = line.split(" ", 1)
        options.setdefault(words[0].lower(), []).append(words[-1])
    source = "sshd -T"
    if not options:
        options, source = _read_files(root), "sshd_config"
        if not options:
            source = "default"
    endpoints = _endpoints(options)
    socket = _socket(root)
    if socket:
        endpoints, source = socket, "ssh.socket"
    return Sshd(endpoints, options, source, complaint)


def _endpoints(options: dict[str, list[str]]) -> list[Endpoint]:
    ports = [int(port) for port in options.get("port", []) if port.isdigit()] or [22]
    wanted = (options.get("addressfamily") or ["any"])[0]
    found: list[Endpoint] = []
    for value in options.get("listenaddress") or ["0.0.0.0", "::"]:
        found += _parse_address(value.split(" rdomain ")[0], ports)
    found = [each for each in found if wanted != ("inet6" if each.family == 4 else "inet")]
    return sorted(set(found))


def _parse_address(text: str, ports: t.Sequence[int]) -> list[Endpoint]:
    """Endpoints of one address as sshd and systemd write it: 22, 1.2.3.4, 1.2.3.4:22, ::, [::]:22."""
    text = text.strip()
    if text.isdigit():
        return [Endpoint(4, "", int(text)), Endpoint(6, "", int(text))]
    match = re.match(r"\[([0-9a-fA-F:.]+)\](?::(\d+))?\Z|([0-9.]+)(?::(\d+))?\Z|([0-9a-fA-F:.]+)\Z", text)
    if not match:
        return []
    address, port = match.group(1) or match.group(3) or match.group(5), match.group(2) or match.group(4)
    family = 4 if match.group(3) else 6
    if address.startswith("127.") or address == "::1":
        return []
    address = "" if address in ("0.0.0.0", "::") else address
    return [Endpoint(family, address, int(port))] if port else [Endpoint(family, address, each) for each in ports]


def _read_files(root: str) -> dict[str, list[str]]:
    """Port, ListenAddress and AddressFamily of sshd_config and of what it usually includes, when sshd cannot tell."""
    found: dict[str, list[str]] = {}
    for path in [*_systemd.glob(root, "etc/ssh/sshd_config.d/*.conf"), "etc/ssh/sshd_config"]:
        for line in _systemd.text(root, path).splitlines():
            words = line.split("#")[0].replace("=", " ", 1).split()
            if words and words[0].lower() == "match":
                break
            if len(words) >= 2:
                found.setdefault(words[0].lower(), []).append(words[1].strip('"'))
    return found


def _socket(root: str) -> list[Endpoint] | None:
    """Endpoints of an ssh.socket that is enabled, or None.

    Ubuntu's generator (openssh 1:9.6p1-3ubuntu and later) gives the socket the ports of sshd_config instead.
    """
    if _systemd.exists(root, "usr/lib/systemd/system-generators/sshd-socket-generator"):
        return None
    for name in ("ssh.socket", "sshd.socket"):
        if not _systemd.enabled(root, name):
            continue
        found = {each for value in _systemd.values(root, name, "ListenStream") for each in _parse_address(value, [22])}
        if found:
            return sorted(found)
    return None
