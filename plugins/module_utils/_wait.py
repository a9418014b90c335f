# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one object that waits. Private to this collection; nobody else sleeps."""

from __future__ import annotations

import random
import selectors
import time
import typing as t

# Only a Wait's `pause` may call it.
sleep = time.sleep


class Clock:
    """Time, and how it passes. The real one; a test hands down one of its own, which only a pause moves."""

    def time(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since some moment; nobody sets it back or forward."""
        return time.monotonic()

    def pause(self, seconds: float) -> None:
        """Let so many seconds pass."""
        sleep(seconds)

    def select(self, selector: selectors.BaseSelector, seconds: float) -> list[tuple[selectors.SelectorKey, int]]:
        """Let at most so many seconds pass, until a file is ready."""
        return selector.select(seconds)

    def deadline(self, seconds: float) -> Deadline:
        return Deadline(seconds, self.monotonic)

    def pace(self, backoff: Backoff) -> Pace:
        return Pace(backoff, self.monotonic)

    def wait(self, timeout: float, backoff: Backoff | None = None, pause: t.Callable[[float], t.Any] | None = None) -> Wait:
        """A Wait by this clock. pause: where it is not this clock's."""
        return Wait(timeout, backoff, pause=pause or self.pause, clock=self.monotonic)


class Deadline:
    """A moment on the monotonic clock, `seconds` from now."""

    def __init__(self, seconds: float, clock: t.Callable[[], float] = time.monotonic):
        self.seconds = seconds
        self._clock = clock
        self._started = clock()

    @property
    def elapsed(self) -> float:
        """Seconds since it was made."""
        return self._clock() - self._started

    @property
    def left(self) -> float:
        """Seconds until it passes, never negative."""
        return max(0.0, self.seconds - self.elapsed)

    @property
    def passed(self) -> bool:
        return self.elapsed >= self.seconds


class Backoff:
    """Delays that grow from `first` to `longest` seconds, each shaken by ± `jitter` of itself."""

    def __init__(self, first: float, longest: float, factor: float = 1.5, jitter: float = 0.1):
        self.first = first
        self.longest = longest
        self.factor = factor
        self.jitter = jitter
        self._next = first

    def reset(self) -> None:
        """Begin again with the shortest delay: something has changed, so more may soon."""
        self._next = self.first

    def next(self) -> float:
        """The next delay in seconds."""
        delay = self._next
        self._next = min(self.longest, delay * self.factor)
        return delay * (1 + random.uniform(-self.jitter, self.jitter))


class Pace:
    """Keeps something that is looked at inside a faster loop (a provider's API) to its own, slower rhythm."""

    def __init__(self, backoff: Backoff, clock: t.Callable[[], float] = time.monotonic):
        self.backoff = backoff
        self._clock = clock
        self._due = clock()

    def due(self) -> bool:
        """True when it is time to look; the next time is set by that."""
        now = self._clock()
        if now < self._due:
            return False
        self._due = now + self.backoff.next()
        return True


class Wait:
    """Polls until there is an answer or the time is up.

    timeout: seconds. backoff: the delays between two polls. pause: how to let time pass; whoever can be woken early
    (a socket) gives his own, which takes seconds and may return sooner. clock, pause: replaced in tests.
    """

    def __init__(self, timeout: float, backoff: Backoff | None = None, *,
                 pause: t.Callable[[float], t.Any] = sleep, clock: t.Callable[[], float] = time.monotonic):
        self.deadline = Deadline(timeout, clock)
        self.backoff = backoff or Backoff(1.0, 10.0)
        self._pause = pause

    def until(self, poll: t.Callable[[], t.Any], on_timeout: t.Callable[[], Exception]) -> t.Any:
        """Return the first answer of poll() that is not None; raise what on_timeout() makes when the time is up.

        poll() is called at least once, and once more after the last pause.
        """
        while True:
            answer = poll()
            if answer is not None:
                return answer
            if self.deadline.passed:
                raise on_timeout()
            self._pause(min(self.backoff.next(), self.deadline.left))


CLOCK = Clock()
