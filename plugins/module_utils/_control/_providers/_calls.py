# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Calls to a provider's API: repeated where that is safe, at most once where it is not. Private to this collection.

A provider's client raises what it likes; its file makes one of our exceptions of that, and Transient of what passes by itself.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import typing as t
from urllib.parse import urlsplit

from ..._errors import MissingLibrary, ProviderError
from ..._wait import Backoff

if t.TYPE_CHECKING:
    from ._base import Provider, Task

T = t.TypeVar("T")

# Answers of HTTP, beside those from 500 on, after which a call is worth to be repeated: it took too long; there were too many.
_PASSING = (408, 429)


class Transient(ProviderError):
    """A failure that passes by itself: the connection broke, a proxy answered, the API had a fault or has had enough.

    sent: whether the call may have been carried out. after: the seconds for which the API wants to be left alone.
    """

    def __init__(self, what: str, sent: bool = True, after: float = 0.0):
        super().__init__(what)
        self.sent = sent
        self.after = after


def is_transient(status: int | None) -> bool:
    """Whether an answer of HTTP is one that passes."""
    return status is not None and (status in _PASSING or status >= 500)


def transient(what: str, response: t.Any) -> Transient:
    """What an answer of HTTP is that passes. response: one of requests, or None where there was no answer."""
    after = response.headers.get("Retry-After", "") if response is not None else ""
    # It may be a date, too, which is left alone.
    return Transient(what, after=float(after) if after.isdigit() else 0.0)


def is_loopback(url: str | None) -> bool:
    """Whether a URL names a loopback address, or localhost."""
    host = urlsplit(url or "").hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def need_socks(url: str | None, proxy: str | None = None) -> None:
    """Raise MissingLibrary where a SOCKS proxy leads to an API, and requests, which its client uses, speaks no SOCKS.

    Each call would fail then, and look like one that passes. proxy: the client's own, by default that of the environment for this URL.
    """
    import requests

    try:
        proxy = proxy or requests.utils.select_proxy(url or "", requests.utils.get_environ_proxies(url or ""))
        is_socks = urlsplit(proxy or "").scheme.startswith("socks")
    except ValueError:
        return  # no URL; the client has its own word for that
    if is_socks and importlib.util.find_spec("socks") is None:
        raise MissingLibrary("PySocks", f"the proxy {urlsplit(proxy or '').hostname}")


class _Attempts:
    """Looks by a provider's clock, no sooner than the API wants, and tells of it where it fails more than once."""

    def __init__(self, owner: Provider, backoff: Backoff):
        self.owner = owner
        self.clock = owner.clock
        self.last: Transient | None = None
        self._wait = self.clock.wait(owner.patience, backoff, pause=self._pause)

    def soon(self) -> None:
        """Look again as soon as after the first failure."""
        self._wait.backoff.reset()

    def _pause(self, seconds: float) -> None:
        after = self.last.after if self.last else 0.0
        self.clock.pause(max(seconds, min(after, self._wait.deadline.left)))

    def until(self, poll: t.Callable[[], T | None], on_timeout: t.Callable[[], Exception]) -> T:
        def once() -> T | None:
            try:
                return poll()
            except Transient as exc:
                if self.last is not None:
                    self.owner.notice(f"the API fails ({exc.what.rstrip('.')}); the call is tried for {self.owner.patience:.0f} s")
                self.last = exc
                return None

        return t.cast(T, self._wait.until(once, on_timeout))


def repeated(owner: Provider, call: t.Callable[[], T], on_timeout: t.Callable[[Transient], Exception]) -> T:
    """The result of a call that is safe to repeat, repeated while its failure is one that passes.

    owner: the provider, by whose clock and patience. on_timeout: makes the error for the end of that, of the last failure.
    """
    attempts = _Attempts(owner, Backoff(0.5, 8.0, 2.0))
    return attempts.until(lambda: (call(),), lambda: on_timeout(t.cast(Transient, attempts.last)))[0]


def at_most_once(owner: Provider, lag: float, ask: t.Callable[[], Task | None], asked: t.Callable[[], Task | None],
                 unsure: list[bool], on_timeout: t.Callable[[Transient | None], Exception], refuses_second: bool = False) -> Task:
    """Ask for what must not be done twice, until one answer came or the job is seen.

    owner: the provider, by whose clock and patience. lag: for so many seconds its lists may not show what it was asked for; so long
    after a call whose answer was lost, nothing is asked for again. ask: one call; None where it is to be tried again, which did
    nothing. asked: the job of a call whose answer was lost, or None. unsure: its one item says whether there may have been such a
    call, also afterwards. on_timeout: makes the error for the end. refuses_second: while the first job is under way the provider itself
    refuses a second one, so that one more call at once is safe, and tells most.
    """
    clock = owner.clock
    lost_at = clock.monotonic()
    is_free = refuses_second

    def poll() -> Task | None:
        nonlocal is_free, lost_at
        if unsure[0]:
            task = asked()
            if task is not None or (clock.monotonic() < lost_at + lag and not is_free):
                return task
            is_free = False
        try:
            return ask()
        except Transient as exc:
            if exc.sent:
                unsure[0], lost_at = True, clock.monotonic()
                attempts.soon()
            raise

    attempts = _Attempts(owner, Backoff(1.0, 8.0, 2.0))
    return attempts.until(poll, lambda: on_timeout(attempts.last))
