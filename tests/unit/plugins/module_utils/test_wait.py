# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Waiting, on a clock that only a pause moves."""

from __future__ import annotations

import selectors
import socket

import pytest

from ansible_collections.lifeboat.rescue.plugins.module_utils._wait import CLOCK, Backoff, Clock, Deadline, Pace, Wait


class MyClock(Clock):
    def __init__(self):
        self.now = 1000.0
        self.pauses = []

    def __call__(self):
        return self.now

    monotonic = __call__

    def pause(self, seconds):
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def clock():
    return MyClock()


def wait(clock, timeout, backoff=None):
    return Wait(timeout, backoff, pause=clock.pause, clock=clock)


def looks(clock, *answers):
    """A look() that gives these answers, the last one for ever, and notes when."""
    times = []
    rest = list(answers)

    def look():
        times.append(clock.now - 1000)
        return rest.pop(0) if len(rest) > 1 else rest[0]

    return look, times


@pytest.mark.parametrize("answer", [True, 0, "", False, ()])
def test_every_answer_but_none_is_one(clock, answer):
    look, times = looks(clock, answer)
    assert wait(clock, 10).until(look, TimeoutError) == answer
    assert times == [0] and clock.pauses == []


@pytest.mark.parametrize("timeout", [0, -1])
def test_without_time_it_looks_once(clock, timeout):
    look, times = looks(clock, None)
    with pytest.raises(TimeoutError):
        wait(clock, timeout).until(look, TimeoutError)
    assert times == [0] and clock.pauses == []


def test_it_looks_once_more_after_the_last_pause(clock):
    look, times = looks(clock, None)
    with pytest.raises(TimeoutError):
        wait(clock, 10, Backoff(4, 4, jitter=0)).until(look, TimeoutError)
    assert times == [0, 4, 8, 10]
    assert clock.pauses == [4, 4, 2]  # the last one is cut to the deadline


def test_an_answer_at_the_very_end_counts(clock):
    look, times = looks(clock, None, None, "late")
    assert wait(clock, 5, Backoff(4, 4, jitter=0)).until(look, TimeoutError) == "late"
    assert times == [0, 4, 5]


def test_what_late_makes_is_raised_and_made_only_then(clock):
    made = []

    def late():
        made.append(clock.now - 1000)
        return KeyError("late")

    with pytest.raises(KeyError, match="late"):
        wait(clock, 3, Backoff(1, 1, jitter=0)).until(lambda: None, late)
    assert made == [3]


def test_an_exception_of_a_look_ends_it(clock):
    def look():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        wait(clock, 10).until(look, TimeoutError)


def test_a_pause_that_is_woken_early_costs_no_time(clock):
    woken = Wait(10, Backoff(5, 5, jitter=0), pause=lambda seconds: clock.pause(0.1), clock=clock)
    look, times = looks(clock, None, None, "woken")
    assert woken.until(look, TimeoutError) == "woken"
    assert times == pytest.approx([0, 0.1, 0.2])


def test_delays_grow_to_the_longest():
    backoff = Backoff(1, 8, factor=2, jitter=0)
    assert [backoff.next() for dummy in range(6)] == [1, 2, 4, 8, 8, 8]
    backoff.reset()
    assert backoff.next() == 1


def test_jitter_stays_inside_its_bounds_and_does_shake():
    backoff = Backoff(10, 10, jitter=0.1)
    delays = [backoff.next() for dummy in range(500)]
    assert 9 <= min(delays) < 9.5 and 10.5 < max(delays) <= 11


def test_jitter_does_not_build_up():
    backoff = Backoff(1, 1000, factor=2, jitter=0.1)
    for power in range(9):
        assert 0.9 * 2**power <= backoff.next() <= 1.1 * 2**power


def test_deadline(clock):
    deadline = Deadline(5, clock)
    clock.now += 3
    assert (deadline.elapsed, deadline.left, deadline.passed) == (3, 2, False)
    clock.now += 2
    assert (deadline.left, deadline.passed) == (0, True)
    clock.now += 1
    assert (deadline.elapsed, deadline.left, deadline.passed) == (6, 0, True)


def test_pace_is_due_at_once_and_then_by_its_own_rhythm(clock):
    pace = Pace(Backoff(2, 4, factor=2, jitter=0), clock)
    due = []
    for second in range(12):
        clock.now = 1000.0 + second
        if pace.due():
            due.append(second)
    assert due == [0, 2, 6, 10]


def test_the_real_clock_and_sleep():
    deadline = Deadline(60)
    with pytest.raises(TimeoutError):
        Wait(0.05, Backoff(0.02, 0.02)).until(lambda: None, TimeoutError)
    assert 0.05 <= deadline.elapsed < 5


def test_what_a_clock_makes_goes_by_it(clock):
    deadline, pace = clock.deadline(5), clock.pace(Backoff(3, 3, jitter=0))
    assert pace.due() and not pace.due()
    with pytest.raises(TimeoutError):
        clock.wait(4, Backoff(4, 4, jitter=0)).until(lambda: None, TimeoutError)
    assert clock.pauses == [4] and deadline.left == 1 and pace.due()
    woken = []
    own = clock.wait(60, Backoff(1, 1, jitter=0), pause=woken.append)
    assert own.until(lambda: len(woken) > 1 or None, TimeoutError) and woken == [1, 1] and clock.pauses == [4]


def test_the_real_clock_is_woken_by_a_socket():
    one, other = socket.socketpair()
    with one, other, selectors.DefaultSelector() as selector:
        selector.register(one, selectors.EVENT_READ)
        assert CLOCK.select(selector, 0) == []
        other.send(b"x")
        began = CLOCK.monotonic()
        assert [key.fileobj for key, _events in CLOCK.select(selector, 60)] == [one]
        assert CLOCK.monotonic() - began < 30
