# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import getpass
import re
import socket
import threading

import pytest

from ansible_collections.lifeboat.rescue.plugins.module_utils._control._session import _evidence
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._session._evidence import (
    INSTALLED,
    RESCUE,
    UNKNOWN,
    BackgroundObservation,
    KnownHostKeys,
    SshObserver,
)
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._ssh._client import Login
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._ssh._host_keys import HostKey
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._ssh._keys import make_key_pair, public_key_of
from lifeboat_lab.waiting import until

# One look at a real sshd


@pytest.fixture
def sshd(make_sshd):
    return make_sshd()


def key_of(sshd):
    return HostKey.from_line(sshd.host_key)


def one_look(sshd, logins, known=None):
    with SshObserver("127.0.0.1", sshd.port, known or KnownHostKeys(), logins, timeout=10) as watch:
        seen = watch.poll(10)
    if seen and seen.client:
        seen.client.close()
    return seen


@pytest.fixture
def keys(tmp_path, sshd):
    good, bad = tmp_path / "good", tmp_path / "bad"
    sshd.authorized_keys.write_text(make_key_pair(str(good), "good") + "\n")
    make_key_pair(str(bad), "bad")
    return {"good": Login(getpass.getuser(), key_file=str(good)), "bad": Login(getpass.getuser(), key_file=str(bad))}


def test_a_look_without_a_log_in(sshd):
    seen = one_look(sshd, [])
    assert (seen.system, seen.host_key, seen.evidence, seen.refused) == (UNKNOWN, key_of(sshd), None, None)
    assert one_look(sshd, [], KnownHostKeys(pinned=key_of(sshd))).system == RESCUE


def test_log_ins_are_tried_in_turn(sshd, keys):
    seen = one_look(sshd, [(keys["bad"], True), (keys["good"], False)])
    assert (seen.system, seen.user) == (INSTALLED, getpass.getuser())
    assert seen.evidence.boot_id and seen.evidence.root_fstype == "ext4"
    seen = one_look(sshd, [(keys["bad"], False)])
    assert (seen.system, seen.client) == (UNKNOWN, None)
    assert seen.refused


def test_a_key_file_of_no_use_is_a_refusal(sshd, tmp_path):
    """As with a key that wants a passphrase: the system answers, and its host key counts."""
    seen = one_look(sshd, [(Login("root", key_file=str(tmp_path / "missing")), False)])
    assert seen.host_key == key_of(sshd) and seen.refused


def test_a_log_in_that_lets_nothing_be_run_is_a_refusal(make_sshd, tmp_path, keys):
    """Cloud images let root in only to say `Please login as the user "debian"`."""
    closed = make_sshd("closed", shim=False, lines=["ForceCommand echo 'Please login as the user \"debian\"'; exit 142"])
    closed.authorized_keys.write_text(public_key_of(str(tmp_path / "good")) + "\n")
    seen = one_look(closed, [(keys["good"], False)])
    assert (seen.system, seen.host_key, seen.client) == (UNKNOWN, key_of(closed), None)
    assert seen.refused


def test_a_password_goes_to_no_stranger(sshd, monkeypatch):
    tried = []

    def log_in(self, login):
        tried.append(login.password)
        raise _evidence.LoginRefused("no")

    monkeypatch.setattr(_evidence.Client, "log_in", log_in)
    login = Login("root", password="secret")
    one_look(sshd, [(login, False)])
    one_look(sshd, [(login, False)], KnownHostKeys(familiar=(key_of(sshd),)))
    assert tried == [None, "secret"]


def test_a_rescue_key_is_not_offered_to_the_installed_system(sshd, keys):
    seen = one_look(sshd, [(keys["good"], True)], KnownHostKeys(installed=(key_of(sshd),)))
    assert (seen.system, seen.evidence) == (INSTALLED, None)
    assert "Accepted" not in sshd.log


def test_silence_is_no_look(sshd):
    sshd.stop()
    assert one_look_for(sshd, 0.2) is None


def one_look_for(sshd, seconds):
    with SshObserver("127.0.0.1", sshd.port, KnownHostKeys(), []) as watch:
        return watch.poll(seconds)


# A look ahead


def ahead_of(sshd, logins, known=None):
    return BackgroundObservation(SshObserver("127.0.0.1", sshd.port, known or KnownHostKeys(), logins, timeout=10))


def test_a_look_ahead_sees_what_a_look_does(sshd, keys):
    sshd.boot("overlay", "overlay", "rescue-customer-eu")
    ahead = ahead_of(sshd, [(keys["good"], False)])
    # Nobody asked yet: it logs in all the same.
    until(lambda: "Accepted publickey" in sshd.log)
    seen = ahead.poll(10, KnownHostKeys())
    assert (seen.system, seen.user, seen.evidence.root_fstype) == (RESCUE, getpass.getuser(), "overlay")
    seen.client.close()
    ahead.watch.close()


def test_a_look_ahead_is_judged_by_what_is_known_afterwards(sshd, keys):
    ahead = ahead_of(sshd, [(keys["bad"], False)])
    until(lambda: "Connection closed" in sshd.log or "Disconnected" in sshd.log or "preauth" in sshd.log)
    seen = ahead.poll(10, KnownHostKeys(familiar=(key_of(sshd),)))
    assert (seen.system, seen.reason) == (INSTALLED, "its host key is the one known from before")
    ahead.watch.close()


def test_a_look_ahead_at_what_does_not_answer_ends_when_it_is_to():
    with socket.socket() as sock:
        # Nobody listens there.
        sock.bind(("127.0.0.1", 0))
        ahead = BackgroundObservation(SshObserver("127.0.0.1", sock.getsockname()[1], KnownHostKeys(), []))
        assert ahead.poll(0.3, KnownHostKeys()) is None
    assert "refused" in ahead.watch.heard
    ahead.watch.close()


def test_a_look_ahead_that_nobody_wants_closes_what_is_open(sshd, keys):
    before = {thread.name for thread in threading.enumerate()}
    ahead = ahead_of(sshd, [(keys["good"], False)])
    until(lambda: "Accepted publickey" in sshd.log)
    ahead.abandon()
    # The way that sshd tells it depends on what was under way when the connection was closed.
    until(lambda: re.search("Disconnected from user|Connection (closed|reset) by|(Read|Write) error|Broken pipe", sshd.log),
          otherwise=lambda: f"sshd saw no end of the connection: {sshd.log}")
    until(lambda: "observe" not in {thread.name for thread in threading.enumerate()} - before)


def test_a_failure_of_a_look_ahead_is_told_to_who_asks(monkeypatch, sshd):
    def broken(self):
        raise RuntimeError("It broke.")

    monkeypatch.setattr(_evidence.PortWatcher, "take", broken)
    ahead = ahead_of(sshd, [])
    with pytest.raises(RuntimeError, match="It broke"):
        ahead.poll(10, KnownHostKeys())
    ahead.abandon()
