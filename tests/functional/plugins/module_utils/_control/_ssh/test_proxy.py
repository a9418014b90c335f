# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Servers behind a bastion, which is a real sshd, by OpenSSH's own client."""

from __future__ import annotations

import getpass
import subprocess

import pytest

from ansible_collections.lifeboat.rescue.plugins.module_utils._control._ssh._client import Client, Login
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._ssh._port import PortWatcher, answers
from lifeboat_lab.waiting import until

from .....conftest import free_port

ME = getpass.getuser()


def commands(bastion):
    """The command lines of this bastion's clients that are there."""
    done = subprocess.run(["ps", "-ewwo", "stat,args"], capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if str(bastion.config) in line and not line.startswith("Z")]


def test_a_login_through_a_bastion(bastion, sshd, keys):
    with PortWatcher("127.0.0.1", sshd.port, proxy_command=bastion.command) as watcher:
        assert watcher.wait(20), watcher.heard
        with Client(watcher.take()) as client:
            client.log_in(Login(ME, key_file=str(keys / "user")))
            assert client.evidence().root_fstype == "ext4"
            assert len(commands(bastion)) == 1
    until(lambda: not commands(bastion))
    assert "Accepted publickey" in bastion.log


def test_what_the_bastion_cannot_reach_is_told(bastion):
    with PortWatcher("127.0.0.1", free_port(), proxy_command=bastion.command) as watcher:
        assert not watcher.wait(5)
        assert "closed without a banner" in watcher.heard and "Connection refused" in watcher.heard
        assert not watcher.is_refused, "who refused is not known"
    assert bastion.log.count("Accepted publickey") <= 2, "it is not logged in to all the time"
    until(lambda: not commands(bastion))


@pytest.mark.parametrize("command", ["exit 3", "/nonexistent %h", "echo >&2 'no way in'; exit 1", "sleep 60"])
def test_a_command_that_brings_nothing(command):
    with PortWatcher("127.0.0.1", 22, proxy_command=command) as watcher:
        assert not watcher.wait(1)
        assert ("no way in" in watcher.heard) == ("no way in" in command)


def test_a_port_through_a_bastion(bastion, sshd):
    assert answers("127.0.0.1", sshd.port, 20, bastion.command)
    assert not answers("127.0.0.1", free_port(), 20, bastion.command)
