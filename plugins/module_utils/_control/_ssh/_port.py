# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who listens on a TCP port, before anybody logs in. Private to this collection."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import selectors
import socket
import typing as t

from ..._wait import CLOCK, Clock
from ._proxy import ProxySocket, open_proxy

# sshd lets ten connections wait for a log-in before it starts to drop them (MaxStartups 10:30:100).
MOST_ATTEMPTS = 3
# A new attempt is begun this long after the one before. A refusal costs a machine nothing, so then it is soon; but each
# attempt that it takes without a word goes on, and costs it a process. A slow one starves of them, so the pace slows with each.
REFUSED_SECONDS = 0.2
FIRST_SECONDS = 0.25
# Who takes a connection and hangs up has had enough of them (MaxStartups, PerSourcePenalties); each more may prolong that.
DROPPED_SECONDS = 1.0
SLOWEST_SECONDS = 5.0
# The oldest attempt is given this long to bring a banner, the younger ones so many times the pace: a packet lost while the
# machine booted is sent again later and later.
PATIENT_SECONDS = 30.0
EAGER_PACES = 3
# Each attempt through a bastion is a login to that, so there is one at a time, and a while between two.
PROXY_SECONDS = 3.0
# Bytes in which the banner must come, with the lines before it.
MOST_BANNER = 8192


class PortWatcher:
    """Watches a TCP port for an SSH banner, from power-off to sshd, and reacts within milliseconds.

    Attempts overlap: new ones are begun while older ones go on, at most three at a time, five times a second while they are
    refused, and ever more slowly while there is silence. So a machine that drops packets while it boots is met as soon as it
    answers, and a slow one is not starved by impatience.

    heard: what the port last said of itself, for people. is_refused: whether that was a refusal, which is an answer of the
    machine, and no silence.
    """

    def __init__(self, address: str, port: int, clock: Clock = CLOCK, proxy_command: str | None = None):
        """proxy_command: by which it is reached, see open_proxy(); without it, directly."""
        self._proxy_command = proxy_command
        self._most_attempts = 1 if proxy_command else MOST_ATTEMPTS
        self.address = address
        self.port = port
        self._clock = clock
        self.heard = "nothing yet"
        self.is_refused = False
        self._selector = selectors.DefaultSelector()
        self._attempts: dict[socket.socket, float] = {}
        # What is connected, and how many bytes it must have sent before it is worth another look.
        self._connected: dict[socket.socket, int] = {}
        self._begun = 0
        self._ready: socket.socket | None = None
        self._last_begun = 0.0
        self._pace = FIRST_SECONDS

    def __enter__(self) -> PortWatcher:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop every attempt."""
        for sock in list(self._attempts):
            self._drop(sock)
        if self._ready is not None:
            self._ready.close()
            self._ready = None
        self._selector.close()

    def _drop(self, sock: socket.socket) -> None:
        self._attempts.pop(sock, None)
        self._connected.pop(sock, None)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(sock)
        sock.close()

    def _begin(self) -> None:
        self._last_begun = self._clock.monotonic()
        if self._proxy_command:
            proxied = open_proxy(self._proxy_command, self.address, self.port)
            proxied.setblocking(False)
            self._pace = PROXY_SECONDS
            self._attempts[proxied] = self._last_begun
            self._connected[proxied] = 1
            self._selector.register(proxied, selectors.EVENT_READ)
            return
        try:
            found = socket.getaddrinfo(self.address, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as exc:
            self.heard = f"{self.address} cannot be resolved ({exc})"
            return
        # In turn: a rescue system often has no IPv6, although the name has.
        family, kind, proto, _name, where = found[self._begun % len(found)]
        self._begun += 1
        sock = socket.socket(family, kind, proto)
        sock.setblocking(False)
        code = sock.connect_ex(where)
        if code and code not in (errno.EINPROGRESS, errno.EWOULDBLOCK):
            self._note(code)
            sock.close()
            return
        self._attempts[sock] = self._last_begun
        self._selector.register(sock, selectors.EVENT_WRITE)

    def _note(self, code: int) -> None:
        """Note the error of a connection that did not come about."""
        self.heard = os.strerror(code).lower()
        self.is_refused = code == errno.ECONNREFUSED

    def _failed(self, sock: socket.socket, code: int) -> None:
        self._note(code)
        self._pace = FIRST_SECONDS
        self._drop(sock)

    def _serve(self, sock: socket.socket) -> None:
        if sock not in self._connected:
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                self._failed(sock, code)
                return
            self._connected[sock] = 1
            self._selector.modify(sock, selectors.EVENT_READ)
            return
        try:
            start = sock.recv(MOST_BANNER, socket.MSG_PEEK)
        except OSError as exc:
            self._failed(sock, exc.errno or errno.EIO)
            return
        # Other lines may come before the banner (RFC 4253 §4.2).
        banner = re.search(rb"^SSH-[^\n]*", start, re.MULTILINE)
        if banner:
            self.is_refused = False
            self.heard = banner.group().decode("ascii", "replace").strip()
            self._selector.unregister(sock)
            self._attempts.pop(sock)
            self._connected.pop(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
            self._ready = sock
        elif len(start) < self._connected[sock]:
            # sshd says why it takes no more connections, from anybody or from us alone, and hangs up.
            words = re.sub(rb"[^ -~]+", b" ", start[:100]).decode().strip()
            if isinstance(sock, ProxySocket):
                words = " ".join(filter(None, (words, sock.words())))
            self.heard = f"connection closed without a banner{f' ({words})' if words else ''}"
            self.is_refused = False
            self._pace = max(DROPPED_SECONDS, self._pace) if self._proxy_command else DROPPED_SECONDS
            self._drop(sock)
        elif len(start) == MOST_BANNER:
            self.heard = "no SSH"
            self._drop(sock)
        else:
            # What was only peeked at would wake us at once, again and again.
            self._connected[sock] = len(start) + 1
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, len(start) + 1)

    def wait(self, seconds: float) -> bool:
        """Let at most so many seconds pass; True at once when there is a banner (then take() it)."""
        until = self._clock.monotonic() + seconds
        while not self._has_banner():
            now = self._clock.monotonic()
            for number, (sock, begun) in enumerate(list(self._attempts.items())):
                if now - begun > (self._pace * EAGER_PACES if number else PATIENT_SECONDS):
                    self.heard, self.is_refused = "no banner", False
                    self._pace = min(SLOWEST_SECONDS, self._pace * 1.5)
                    self._drop(sock)
            pace = min(self._pace, REFUSED_SECONDS) if self.is_refused and not self._attempts else self._pace
            if len(self._attempts) < self._most_attempts and now - self._last_begun >= pace:
                self._begin()
            for key, _events in self._clock.select(self._selector, max(0.0, min(until - now, FIRST_SECONDS / 2))):
                self._serve(t.cast(socket.socket, key.fileobj))
                if self._has_banner():
                    return True
            if self._clock.monotonic() >= until:
                return False
        return True

    def _has_banner(self) -> bool:
        return self._ready is not None

    def take(self) -> socket.socket:
        """The connection whose banner was seen (the banner is still unread). The caller closes it."""
        if self._ready is None:
            raise RuntimeError("take() before wait() has returned True")
        sock, self._ready = self._ready, None
        self._last_begun = 0.0  # the next one need not wait: this one was welcome
        sock.setblocking(True)
        for other in list(self._attempts):
            self._drop(other)
        return sock


def answers(address: str, port: int, timeout: float, proxy_command: str | None = None) -> bool:
    """Whether a TCP port takes a connection and does not drop it at once."""
    try:
        if proxy_command:
            sock: socket.socket = open_proxy(proxy_command, address, port)
        else:
            sock = socket.create_connection((address, port), timeout)
        with sock:
            # Only what the other side drops tells that a bastion could not reach it.
            sock.settimeout(timeout if proxy_command else 1.0)
            try:
                return sock.recv(1, socket.MSG_PEEK) != b""
            except socket.timeout:
                return True
    except OSError:
        return False
