# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whom storage_mount works for, and which jobs are known to be dead."""

from __future__ import annotations

import os
import subprocess

from ansible_collections.lifeboat.rescue.plugins.action import storage_mount


def of(process, monkeypatch):
    """The owner that a worker of this process would be."""
    monkeypatch.setattr(storage_mount.os, "getppid", lambda: process)
    return storage_mount.owner()


def test_a_job_is_gone_when_its_process_is(monkeypatch):
    child = subprocess.Popen(["sleep", "60"])
    owner = of(child.pid, monkeypatch)
    assert str(child.pid) in owner and not storage_mount.is_gone(owner)
    child.kill()
    child.wait()
    assert storage_mount.is_gone(owner)


def test_another_process_of_the_same_number_is_another_job(monkeypatch):
    owner = of(os.getpid(), monkeypatch)
    assert not storage_mount.is_gone(owner)
    began = storage_mount._began(os.getpid())
    assert storage_mount.is_gone(owner.replace(f", {began})", ", 12)"))


def test_of_another_controller_nothing_is_known(monkeypatch):
    owner = of(2 ** 22 + 1, monkeypatch)
    assert not storage_mount.is_gone(owner), "it never was"
    owner = of(os.getpid(), monkeypatch).replace("@", "@far-")
    assert not storage_mount.is_gone(owner.replace(", ", ", 1"))
    assert not storage_mount.is_gone("nonsense")
