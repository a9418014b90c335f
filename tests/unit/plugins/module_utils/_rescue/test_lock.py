# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whose the target is, over many calls."""

from __future__ import annotations

import os
import re
import time

import pytest

from ansible_collections.lifeboat.rescue.plugins.module_utils._errors import Busy
from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue import _lock, _target


@pytest.fixture
def later(monkeypatch):
    """Have so many seconds gone by."""
    passed = [0.0]
    now, wall = _lock._now, time.time
    monkeypatch.setattr(_lock, "_now", lambda: now() + passed[0])
    monkeypatch.setattr(_lock.time, "time", lambda: wall() + passed[0])
    return lambda seconds: passed.__setitem__(0, passed[0] + seconds)


@pytest.fixture
def mine(tmp_path):
    job = _lock.Job(str(tmp_path), "me@one (process 1, 5)")
    job.admit(idle)
    job.hold()
    return job


def idle():
    return False


def test_another_job_is_told_whose_it_is_and_since_when(tmp_path, mine, later):
    other = _lock.Job(str(tmp_path), "you@two (process 2, 6)")
    later(600)
    mine.hold()
    later(90)
    with pytest.raises(Busy) as caught:
        other.admit(idle)
    assert re.search(r"belongs to another job, me@one \(process 1, 5\), since 1[12] min; its last sign of life was 90 s ago",
                     caught.value.what)
    assert caught.value.details == {"owner": mine.owner} and "take_over=true" in (caught.value.todo or "")
    mine.admit(idle)
    with pytest.raises(Busy):
        _lock.Job(str(tmp_path), "").admit(idle)
    mine.release()
    other.admit(idle)


@pytest.mark.parametrize("take_over", [["*"], ["me@one (process 1, 5)"]])
def test_one_that_is_known_to_be_gone_is_taken_over(tmp_path, mine, take_over):
    other = _lock.Job(str(tmp_path), "you@two (process 2, 6)")
    with pytest.raises(Busy):
        other.admit(idle, ["somebody else"])
    other.admit(idle, take_over)
    other.hold()
    with pytest.raises(Busy, match="you@two"):
        mine.admit(idle)


def test_one_that_has_been_silent_for_long_is_taken_over(tmp_path, mine, later):
    other = _lock.Job(str(tmp_path), "you@two (process 2, 6)")
    later(_lock.STALE - 5)
    with pytest.raises(Busy):
        other.admit(idle)
    later(10)
    with pytest.raises(Busy):
        other.admit(lambda: True)  # something runs in it
    other.admit(idle)


def test_who_enters_the_target_is_alive(tmp_path, mine, later):
    later(_lock.STALE + 5)
    used = tmp_path / _target.NAMESPACE_USED
    used.touch()
    os.utime(used, (time.time() - 60, time.time() - 60))
    with pytest.raises(Busy, match="its last sign of life was 60 s ago"):
        _lock.Job(str(tmp_path), "you@two (process 2, 6)").admit(idle)
