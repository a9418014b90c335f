# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is repeated, and what happens at most once, whatever the network does."""

from __future__ import annotations

import contextlib
import itertools
import sys
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lifeboat.rescue.plugins.module_utils._control._providers._base import Task
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._providers._calls import (
    Transient,
    at_most_once,
    is_loopback,
    is_transient,
    need_socks,
    repeated,
    transient,
)
from ansible_collections.lifeboat.rescue.plugins.module_utils._errors import MissingLibrary, ProviderError
from ansible_collections.lifeboat.rescue.plugins.module_utils._wait import Clock

LAG = 15.0


class Time(Clock):
    """It passes when somebody waits."""

    def __init__(self):
        self.now = 1000.0

    def time(self):
        return self.now

    def monotonic(self):
        return self.now

    def pause(self, seconds):
        self.now += seconds


class Owner:
    """A provider, as far as it matters here."""

    patience = 60.0

    def __init__(self):
        self.clock = Time()
        self.lines = []

    def notice(self, text):
        self.lines.append(text)


# How a request ends: its answer comes; it is lost, and the request was or was not carried out; it never leaves.
ENDS = st.sampled_from(["answered", "lost, done", "lost, not done", "not sent"])


@given(ends=st.lists(ENDS, min_size=1, max_size=12), late=st.floats(0.0, LAG - 0.1), slow=st.floats(0.0, 30.0), before=st.booleans())
def test_never_two_jobs_of_one_request(ends, late, slow, before):
    """late: how long the list does not show a new job. slow: how long an answer that is lost is waited for. before: a call died."""
    owner, jobs, asked_again = Owner(), [], iter(ends)
    clock = owner.clock
    if before:
        jobs.append(clock.now)

    def ask():
        end = next(asked_again, "answered")
        if end in ("answered", "lost, done"):
            jobs.append(clock.now)
        if end == "answered":
            return Task(str(len(jobs)), "queued", "job")
        if end != "not sent":
            clock.pause(slow)
        raise Transient(end, sent=end != "not sent")

    def asked():
        shown = [number for number, made in enumerate(jobs, 1) if clock.now >= made + late]
        return Task(str(shown[0]), "queued", "job") if shown else None

    try:
        task = at_most_once(owner, LAG, ask, asked, [before], lambda last: ProviderError("late"))
    except ProviderError:
        assert len(jobs) <= 1
        return
    assert jobs and task.id == "1" and len(jobs) == 1
    assert clock.now < 1000.0 + owner.patience + 40.0 + LAG


@given(ends=st.lists(ENDS, min_size=1, max_size=12), late=st.floats(0.0, LAG - 0.1), work=st.floats(1.5, 300.0))
def test_who_refuses_a_second_one_is_asked_at_once(ends, late, work):
    """work: how long a job takes; as long as one is under way, no second is taken, and that it is says that ours was."""
    owner, jobs, calls, answers = Owner(), [], [], iter(ends)
    clock = owner.clock

    def ask():
        calls.append(clock.now)
        end = next(answers, "answered")
        is_taken = end in ("answered", "lost, done")
        if is_taken and not any(clock.now < made + work for made in jobs):
            jobs.append(clock.now)
        if end == "answered":
            return Task(str(len(jobs)), "running", "job")
        raise Transient(end, sent=end != "not sent")

    def asked():
        shown = [number for number, made in enumerate(jobs, 1) if clock.now >= made + late]
        return Task(str(shown[0]), "running", "job") if shown else None

    with contextlib.suppress(ProviderError):
        task = at_most_once(owner, LAG, ask, asked, [False], lambda last: ProviderError("late"), refuses_second=True)
        assert task.id == "1"
    assert len(jobs) <= 1
    if ends[0] == "lost, not done" and len(calls) > 1:
        assert calls[1] < calls[0] + 2.0


@given(failures=st.integers(0, 30), after=st.floats(0.0, 100.0))
def test_what_is_repeated_ends_and_obeys(failures, after):
    owner, calls = Owner(), []

    def call():
        calls.append(owner.clock.now)
        if len(calls) <= failures:
            raise Transient("not now", after=after)
        return "done"

    try:
        assert repeated(owner, call, lambda last: ProviderError(last.what)) == "done"
    except ProviderError as exc:
        assert exc.what == "not now" and owner.clock.now >= 1000.0 + owner.patience
    assert all(later - earlier >= min(after, 1000.0 + owner.patience - earlier) - 0.001 for earlier, later in itertools.pairwise(calls))
    assert len(owner.lines) == max(0, min(failures, len(calls)) - 1)


@pytest.mark.parametrize(("status", "does"), [
    (None, False), (200, False), (400, False), (403, False), (404, False), (408, True), (409, False), (429, True), (500, True),
    (503, True)])
def test_what_passes(status, does):
    assert is_transient(status) is does


@pytest.mark.parametrize(("headers", "after"), [
    ({}, 0.0), ({"Retry-After": "7"}, 7.0), ({"Retry-After": "Sun, 29 Nov 2026 07:00:00 GMT"}, 0.0), ({"Retry-After": "-5"}, 0.0)])
def test_how_long_the_api_wants_to_be_left_alone(headers, after):
    assert transient("no", types.SimpleNamespace(headers=headers)).after == after
    assert transient("no", None).after == 0.0


@pytest.mark.parametrize(("url", "is_it"), [
    ("http://127.0.0.1:80/v3", True), ("https://localhost/v3", True), ("http://[::1]/", True), ("https://eu.api.ovh.com/1.0", False),
    ("http://192.0.2.1/", False), (None, False), ("", False)])
def test_where_an_api_is(url, is_it):
    assert is_loopback(url) is is_it


@pytest.mark.parametrize(("environment", "needs"), [
    ({}, False), ({"HTTPS_PROXY": "http://127.0.0.1:3128"}, False), ({"HTTP_PROXY": "socks5h://127.0.0.1:1080"}, False),
    ({"HTTPS_PROXY": "socks5://127.0.0.1:1080"}, True), ({"ALL_PROXY": "socks5h://127.0.0.1:1080"}, True),
    ({"ALL_PROXY": "socks5h://127.0.0.1:1080", "NO_PROXY": "api.example.com"}, False), ({"HTTPS_PROXY": "http://[bad:1"}, False)])
def test_what_speaks_socks_is_asked_for_before_it_is_missed(monkeypatch, environment, needs):
    for name in ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(sys.modules, "socks", None)  # not installed
    expected = pytest.raises(MissingLibrary, match="PySocks") if needs else contextlib.nullcontext()
    with expected:
        need_socks("https://api.example.com/1.0")


def test_the_proxy_of_a_client_goes_before_that_of_the_environment(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks5h://127.0.0.1:1080")
    monkeypatch.setitem(sys.modules, "socks", None)
    need_socks("https://api.example.com/1.0", "http://127.0.0.1:3128")
    monkeypatch.delenv("ALL_PROXY")
    with pytest.raises(MissingLibrary, match="PySocks"):
        need_socks("https://api.example.com/1.0", "socks5://127.0.0.1:1080")


@pytest.mark.parametrize("url", [None, "", "http://[::1/v3"])
def test_what_is_no_url_is_left_to_the_client(url):
    need_socks(url)
