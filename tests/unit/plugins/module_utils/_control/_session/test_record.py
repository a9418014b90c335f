# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import signal
import stat
import subprocess
import sys

import pytest

from ansible_collections.lifeboat.rescue.plugins.module_utils._control._session import _record
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._session._record import Reboot, Record, SessionStore
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._ssh._host_keys import HostKey
from ansible_collections.lifeboat.rescue.plugins.module_utils._errors import BadInput, Busy

KEY = HostKey.from_line("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ" + 42 * "0")
ODD = ["", ".", "..", "...", "../web1", "/etc", "a/b", "a_b", "a:b", "a%2Fb", "a b", "a\nb", "-rf", "~root", "web1", "web1.lock",
       "web1%lock", "web1=lock", "WEB1", "%name", "=name", "%name.", "=name.", "a=3Ab", "zürich",
       40 * "ü" + "/x", 40 * "ü" + ":x", 300 * "x", 300 * "y"]


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.fixture
def folder(tmp_path):
    return SessionStore(str(tmp_path / "sessions"), "ovh_dedicated", "web1")


@pytest.fixture
def record():
    return Record("ovh_dedicated", "web1", phase=_record.REBOOTING, before={"bootId": 1, "rescueMail": None},
                  reboot=Reboot("hard", 1000.5, baseline=[1, 2], task="3", hard=1), tasks=["3"])


def test_what_is_saved_is_loaded(folder, record):
    assert folder.load() is None
    folder.save(record)
    assert folder.load() == record


def test_all_is_private_whatever_the_umask(folder, record):
    before = os.umask(0)
    try:
        folder.save(record)
        folder.pin("192.0.2.1", 22, KEY)
    finally:
        os.umask(before)
    assert mode(folder.path) == 0o700
    assert mode(folder.record_file) == mode(folder.known_hosts) == 0o600
    os.chmod(folder.path, 0o755)
    folder.save(record)
    assert mode(folder.path) == 0o700


def test_a_crash_while_saving_leaves_the_old_record(folder, record, monkeypatch):
    folder.save(record)
    for step in ("fsync", "replace"):
        def die(*dummy):
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(_record.os, step, die)
            with pytest.raises(KeyboardInterrupt):
                folder.save(dataclasses.replace(record, phase=_record.LEAVING))
        assert folder.load() == record
    # What the crash left is in nobody's way.
    folder.save(dataclasses.replace(record, phase=_record.LEAVING))
    assert folder.load().phase == _record.LEAVING


def test_a_link_in_the_place_of_the_new_file_is_not_followed(folder, record, tmp_path):
    folder.save(record)
    os.symlink(tmp_path / "victim", folder.record_file + ".new")
    folder.save(record)
    assert not (tmp_path / "victim").exists()


def test_one_host_key_is_pinned(folder):
    folder.pin("192.0.2.1", 22, KEY)
    folder.pin("192.0.2.1", 2222, KEY)
    with open(folder.known_hosts) as stream:
        assert stream.read() == f"[192.0.2.1]:2222 {KEY.line}\n"


def test_nothing_of_a_session_is_left_when_it_is_forgotten(folder, record):
    folder.save(record)
    folder.pin("192.0.2.1", 22, KEY)
    folder.clear()
    assert not os.path.exists(folder.path) and folder.load() is None
    folder.clear()


@pytest.mark.parametrize("server", ODD)
def test_odd_names_stay_inside(tmp_path, server, record):
    folder = SessionStore(str(tmp_path / "base"), "ovh_dedicated", server)
    assert os.path.dirname(os.path.abspath(folder.path)) == str(tmp_path / "base" / "ovh_dedicated")
    with folder.locked(1, print):
        folder.save(record)
        assert folder.load() == record
        folder.clear()
    assert os.path.isdir(tmp_path / "base" / "ovh_dedicated")


def test_no_two_names_share_a_folder_or_a_lock(tmp_path):
    folders = [SessionStore(str(tmp_path), "ovh_dedicated", server) for server in ODD]
    for one, other in itertools.combinations(folders, 2):
        assert len({one.path, one._lock_file, other.path, other._lock_file}) == 4


def test_plain_names_stay_as_they_are(tmp_path):
    assert SessionStore(str(tmp_path), "ovh_dedicated", "ns100001.ip-192-0-2.eu").path == \
        str(tmp_path / "ovh_dedicated" / "ns100001.ip-192-0-2.eu")


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", "nonsense", '{"provider": "x"}', '"x"', '\xff',
                                  '{"provider": "x", "server": "y", "reboot": [1]}',
                                  '{"provider": "x", "server": "y", "reboot": {"method": "soft"}}'])
def test_what_is_no_record_is_told_and_kept(folder, text):
    with pytest.raises(ValueError):
        Record.from_json(text)
    os.makedirs(folder.path)
    with open(folder.record_file, "w", encoding="latin-1") as stream:
        stream.write(text)
    with pytest.raises(BadInput, match="cannot be read"):
        folder.load()
    assert os.path.exists(folder.record_file)


def test_fields_of_a_later_version_are_passed_over(record):
    data = json.loads(record.to_json())
    data["later"] = data["reboot"]["later"] = 1
    assert Record.from_json(json.dumps(data)) == record


def test_fields_of_an_earlier_version_may_be_missing():
    assert Record.from_json('{"provider": "x", "server": "y", "id": "z", "started_at": 1}') == \
        Record("x", "y", id="z", started_at=1)


def test_two_sessions_have_two_ids():
    assert Record("x", "y").id != Record("x", "y").id


HOLD = """
import sys
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._session._record import SessionStore
with SessionStore(sys.argv[1], "ovh_dedicated", "web1").locked(5, print):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_excludes_other_processes_and_goes_with_its_own(tmp_path, folder):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "sessions")], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    try:
        assert holder.stdout.readline() == "held\n"
        said = []
        with pytest.raises(Busy, match=rf"more than 0\.3 s \(process {holder.pid} since "), folder.locked(0.3, said.append):
            pytest.fail("two hold it")
        assert len(said) == 1
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)
        with folder.locked(1, said.append):
            assert len(said) == 1
    finally:
        holder.kill()
        holder.communicate()


def test_a_lock_excludes_inside_a_process_and_survives_forgetting(folder, record):
    with folder.locked(1, print):
        folder.save(record)
        folder.clear()
        with pytest.raises(Busy), SessionStore(os.path.dirname(os.path.dirname(folder.path)), "ovh_dedicated", "web1").locked(0, print):
            pytest.fail("two hold it")
    with folder.locked(0, print):
        assert not os.path.exists(folder.path)


def test_a_lock_leaves_nothing_where_no_session_is_open(tmp_path):
    folder = SessionStore(str(tmp_path), "ovh_dedicated", "web1")
    lock = tmp_path / "ovh_dedicated" / "web1=lock"
    with folder.locked(1, print):
        assert lock.exists()
    assert not lock.exists()
    with folder.locked(1, print):
        lock.unlink()  # by somebody who tidies up
    with folder.locked(1, print), pytest.raises(Busy), folder.locked(0.1, print):
        pass
