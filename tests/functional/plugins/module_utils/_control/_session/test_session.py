# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Entering and leaving, by the lab's OVH API and a machine of two real sshds that take turns on one port."""

from __future__ import annotations

import contextlib
import dataclasses
import getpass
import json
import os
import pathlib
import shlex
import subprocess
import threading

import pytest

from ansible_collections.lifeboat.rescue.plugins.module_utils._control._providers._ovh._dedicated import OvhDedicated
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._session import _decide, _observe, _reboot, _record
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._session._context import Options
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._session._evidence import (
    RESCUE,
    BackgroundObservation,
    KnownHostKeys,
    SshObserver,
)
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._session._record import Reboot, Record, SessionStore
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._session._session import Session
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._ssh._client import Client, Login
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._ssh._host_keys import HostKey
from ansible_collections.lifeboat.rescue.plugins.module_utils._errors import (
    BadInput,
    Busy,
    LifeboatError,
    LoginRefused,
    ProviderError,
    TargetError,
    TimedOut,
    WrongSystem,
)
from lifeboat_lab.simulated import SimulatedClock, SimulatedClockwork

NAME = "ns100001.ip-192-0-2.eu"
ME = getpass.getuser()
SETTINGS = ("bootId", "rescueSshKey", "rescueMail", "monitoring", "noIntervention")


@dataclasses.dataclass
class MyRecord(Record):
    """An sshd that is not root's lets nobody in but the one who started it."""

    user: str = ME


@pytest.fixture
def clockwork():
    return SimulatedClockwork()


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(BackgroundObservation, "slice", 0.02)  # of real time
    monkeypatch.setattr(_observe, "Record", MyRecord)
    monkeypatch.setattr(_record, "Record", MyRecord)


class World:
    """A controller, the API, and the machine behind it."""

    def __init__(self, api, server, machine, base):
        self.api, self.server, self.machine = api, server, machine
        self.base = str(base)
        self.time = api.clockwork
        self.clock = SimulatedClock(self.time)
        self.lines = []
        server.rescueMail, server.rescueSshKey = "someone@example.org", "ssh-ed25519 AAAA mine"
        self.before = self.settings()

    def settings(self):
        return {name: getattr(self.server, name) for name in SETTINGS}

    @property
    def folder(self):
        return SessionStore(self.base, "ovh_dedicated", NAME)

    def provider(self):
        provider = OvhDedicated({"ovh_endpoint": self.api.url, **{
            f"ovh_{name}": value for name, value in self.api.credential.client_arguments().items()}})
        provider.clock = self.clock
        return provider

    def options(self, **more):
        port = self.machine.port
        login = Login(ME, key_file=str(self.machine.user_key))
        return Options(**{"server": NAME, "rescue_port": port, "installed_port": port, "installed_address": "127.0.0.1",
                          "installed_login": login, "known_hosts_files": (), "connect_timeout": 2.0, "soft_timeout": 120.0,
                          "boot_timeout": 10.0, "wait_timeout": 20.0, **more})

    def session(self, provider=None, check_mode=False, **more):
        return Session(provider or self.provider(), self.options(**more), self.folder, self.lines.append, check_mode, self.clock)

    def enter(self, **more):
        return self.session(**more).enter()

    def leave(self, **more):
        return self.session(**more).leave()

    def record(self):
        return self.folder.load()

    def change_record(self, **fields):
        self.folder.save(dataclasses.replace(self.record(), **fields))


@pytest.fixture
def world(api, server, machine, tmp_path):
    return World(api, server, machine, tmp_path / "sessions")


# There and back


@pytest.mark.parametrize("method", ["auto", "soft", "hard"])
def test_there_and_back(world, method):
    result = world.enter(reboot_method=method)
    assert world.machine.system == "rescue"
    assert (result["changed"], result["armed"], result["running"], result["fresh"]) == (True, True, "rescue", True)
    assert world.server.rescueSshKey.split()[2].startswith("lifeboat.rescue-") and world.server.noIntervention
    assert world.machine.resets == (method == "hard") and len(world.machine.boots) == 1
    ssh = [*result["login"]["command"].split(), "-o", "BatchMode=yes", "cat /run/lifeboat/session.json"]
    said = subprocess.run(ssh, capture_output=True, text=True, timeout=30, check=False)
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout)["phase"] == "rescue"
    assert pathlib.Path(result["login"]["private_key_file"]).stat().st_mode & 0o77 == 0

    writes, log = len(world.api.writes()), len(world.api.log)
    again = world.enter(reboot_method=method)
    assert (again["changed"], again["running"], again["fresh"]) == (False, "rescue", True)
    assert again["login"] == result["login"]
    assert len(world.api.writes()) == writes
    assert len(world.api.log) - log <= 2

    result = world.leave(reboot_method=method)
    assert (result["changed"], result["armed"], result["running"], result["fresh"]) == (True, False, "installed", True)
    assert world.machine.system == "installed" and len(world.machine.boots) == 2
    assert world.settings() == world.before
    assert not os.path.exists(world.folder.path)

    writes = len(world.api.writes())
    again = world.leave(reboot_method=method)
    assert (again["changed"], again["running"], again["session"]) == (False, "installed", None)
    assert len(world.api.writes()) == writes


def test_check_mode_writes_nothing(world):
    plan = world.enter(check_mode=True)
    assert (plan["changed"], plan["armed"], plan["running"]) == (True, True, "installed")
    assert plan["diff"]["before"] == world.before
    assert plan["diff"]["after"]["bootId"] == world.server.boot("rescue12-customer").bootId
    assert world.api.writes() == [] and world.machine.boots == [] and not os.path.exists(world.base)
    world.enter()
    writes, record = world.api.writes(), world.record()
    assert world.enter(check_mode=True)["changed"] is False
    plan = world.leave(check_mode=True)
    assert plan["changed"] and {name: plan["diff"]["after"][name] for name in SETTINGS} == world.before
    assert world.api.writes() == writes and world.record() == record and world.machine.system == "rescue"
    world.leave()
    assert world.leave(check_mode=True)["changed"] is False


def test_looking_changes_nothing(world):
    info = world.session().info()
    assert (info["changed"], info["armed"], info["running"], info["session"]) == (False, False, "installed", None)
    world.enter()
    record, writes = world.record(), world.api.writes()
    info = world.session().info()
    assert (info["armed"], info["running"], info["fresh"], info["session"]["phase"]) == (True, "rescue", True, "rescue")
    world.machine.off()
    info = world.session().info()
    assert (info["armed"], info["running"], info["fresh"], info["login"]) == (True, "unknown", None, None)
    assert world.record() == record and world.api.writes() == writes


def test_leaving_what_was_never_entered(world):
    result = world.leave()
    assert result["changed"] is False and world.api.writes() == []


def test_with_the_users_own_key(world, tmp_path):
    result = world.enter(private_key_file=str(world.machine.user_key), reboot_method="hard")
    assert world.server.rescueSshKey.split()[1] == world.machine.user_public.split()[1]
    assert result["login"]["private_key_file"] == str(world.machine.user_key)
    assert not os.path.exists(world.folder.key_file)
    world.leave()
    assert world.settings() == world.before


def test_no_secret_anywhere(world, monkeypatch):
    world.enter()
    written = "".join(path.read_text() for path in pathlib.Path(world.folder.path).iterdir() if path.name != "id_ed25519")
    copy = (world.machine.running.world / "run" / "session.json").read_text()
    private = pathlib.Path(world.folder.key_file).read_text().splitlines()[1]
    for secret in (*world.api.sensitive(), private):
        assert not any(secret in text for text in (written, copy, "\n".join(world.lines), repr(world.record())))


def test_somebody_who_left_it_armed_and_without_a_record(world):
    world.enter()
    world.folder.clear()
    world.server.rescueMail = world.before["rescueMail"]
    world.server.noIntervention = False
    result = world.leave(force=True)
    assert result["running"] == "installed"
    assert (world.server.bootId, world.server.rescueSshKey or None) == (1, None)


# What must not happen to the user's server


@pytest.mark.parametrize("line", ["/dev/sda1 /mnt/target ext4 rw 0 0", "/dev/mapper/vg-root /mnt/target xfs ro 0 0"])
def test_leaving_is_refused_while_something_is_mounted(world, line):
    world.enter()
    world.machine.running.mount(line)
    writes = world.api.writes()
    with pytest.raises(TargetError, match="still in use"):
        world.leave()
    assert world.api.writes() == writes and world.machine.system == "rescue"
    assert world.machine.running.soft_reboots == []
    with pytest.raises(TargetError, match="still in use"):
        world.session().reboot()
    assert world.machine.system == "rescue"
    world.leave(force=True)
    assert world.machine.system == "installed"


def test_leaving_is_refused_while_a_container_is_open(world):
    """Volumes and arrays may have been found by the rescue system; nobody but us or a person opens a container."""
    world.enter()
    block = world.machine.running.world / "block"
    for number, uuid, name in ((0, "LVM-1234", "vg0-root"), (1, "CRYPT-LUKS2-5678-data", "data")):
        (block / f"dm-{number}" / "dm").mkdir(parents=True)
        (block / f"dm-{number}" / "dm" / "uuid").write_text(f"{uuid}\n")
        (block / f"dm-{number}" / "dm" / "name").write_text(f"{name}\n")
    with pytest.raises(TargetError, match="/dev/mapper/data is open") as caught:
        world.leave()
    assert "vg0-root" not in caught.value.what and world.machine.system == "rescue"


def test_leaving_is_refused_while_the_journal_is_not_empty(world):
    world.enter()
    (world.machine.running.world / "run" / "journal.json").write_text('{"steps": [{"mount": "/mnt/target"}]}')
    with pytest.raises(TargetError, match="/mnt/target"):
        world.leave()


def test_leaving_is_refused_while_the_journal_cannot_be_read(world):
    """As where it is root's, and another logs in; or where the connection goes away in between."""
    world.enter()
    (world.machine.running.world / "run" / "journal.json").mkdir()
    writes = world.api.writes()
    with pytest.raises(TargetError, match="did not say whether something of the installed system is still in use"):
        world.leave()
    assert world.api.writes() == writes and world.machine.system == "rescue"


def test_leaving_is_refused_while_nobody_can_say_what_is_mounted(world):
    world.enter()
    world.machine.off()
    with pytest.raises(TargetError, match="does not answer"):
        world.leave()
    assert world.server.bootId != 1


def test_a_running_rescue_is_not_rebooted_because_a_flag_was_changed(world):
    """Idempotent against what runs, not against what is armed."""
    world.enter()
    world.machine.running.mount("/dev/sda1 /mnt/target ext4 rw 0 0")
    world.server.bootId = 1
    result = world.enter()
    assert len(world.machine.boots) == 1 and world.machine.system == "rescue"
    assert (result["changed"], result["armed"], result["running"]) == (True, True, "rescue")
    assert world.server.bootId == world.server.boot("rescue12-customer").bootId
    assert world.enter()["changed"] is False


def test_a_rescue_that_is_being_left_is_not_rebooted_by_the_next_one_while_in_use(world):
    world.enter()
    world.machine.running.mount("/dev/sda1 /mnt/target ext4 rw 0 0")
    world.change_record(phase=_record.LEAVING)
    with pytest.raises(TargetError, match="still in use"):
        world.enter()
    assert world.machine.system == "rescue" and len(world.machine.boots) == 1


@pytest.mark.parametrize("wrong", [
    {"rescue": "rescue99"}, {"rescue": "ipxe-shell"}, {"rescue": "harddisk"}, {"rescue": "poweroff"}, {"public_key": "nonsense"},
    {"server": "ns1.example"}, {"private_key_file": "/nonexistent"}, {"private_key_file": "halved"},
    {"private_key_file": "locked"},
])
def test_bad_input_fails_before_anything_changed(world, tmp_path, wrong):
    if wrong.get("private_key_file") == "halved":  # only its public half is there
        (tmp_path / "halved.pub").write_text(world.machine.user_public)
        wrong = {"private_key_file": str(tmp_path / "halved")}
    elif wrong.get("private_key_file") == "locked":
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", tmp_path / "locked"], check=True)
        wrong = {"private_key_file": str(tmp_path / "locked")}
    with pytest.raises(LifeboatError) as caught:
        world.enter(**wrong)
    assert caught.value.code in ("bad_input", "not_found")
    assert world.api.writes() == [] and world.machine.boots == [] and world.record() is None


def test_another_ones_work_is_not_disturbed(world):
    world.server.task_seconds = {"init": float("inf")}
    provider = world.provider()
    provider.reboot_hard(NAME, [])
    with pytest.raises(Busy, match="is at work"):
        world.enter()
    assert world.settings() == world.before and world.record() is None


def test_two_at_once_are_one(world):
    results = []
    threads = [threading.Thread(target=lambda: results.append(world.enter(reboot_method="hard"))) for dummy in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        # Threads of their own wait in real time.
        while thread.is_alive():
            world.time.advance(0.02)
            thread.join(0.02)
    assert sorted(result["changed"] for result in results) == [False, True]
    assert world.machine.resets == 1
    assert sum("another job" in line for line in world.lines) == 1


def test_a_host_key_that_changed_is_refused_until_forced(world):
    world.enter()
    pinned = pathlib.Path(world.folder.known_hosts).read_text()
    world.machine.reboot()
    with pytest.raises(LoginRefused, match="is pinned for this session"):
        world.enter()
    assert pathlib.Path(world.folder.known_hosts).read_text() == pinned
    assert world.enter(force=True)["running"] == "rescue"
    assert world.machine.running.host_key.split()[1] in pathlib.Path(world.folder.known_hosts).read_text()
    assert len(world.machine.boots) == 2


# When a step dies


class Killed(BaseException):
    """As kill -9: no except and no finally may make up for it in the record, so the record is kept as it was then."""


class Mortal:
    """A provider whose n-th call kills the controller, before or after it is carried out."""

    def __init__(self, provider, number, when, folder):
        self._provider, self._number, self._when, self._folder = provider, number, when, folder
        self.calls = []
        self.at_death = None

    def __getattr__(self, name):
        value = getattr(self._provider, name)
        if name in ("facts", "same_setting", "rescue_rank", "rescue_settings", "boot_settings", "armed_key"):
            return value  # they call nobody

        def call(*arguments, **more):
            self.calls.append(name)
            dies = len(self.calls) == self._number
            if dies and self._when == "before":
                self._die()
            answer = value(*arguments, **more)
            if dies:
                self._die()
            return answer

        return call

    def _die(self):
        self.at_death = files(self._folder)
        raise Killed


def files(folder):
    path = pathlib.Path(folder)
    return {file.name: file.read_bytes() for file in path.iterdir()} if path.exists() else {}


def test_killed_at_every_call_it_goes_on(world):
    """For every call N of the provider, there and back: die there, call again, and be where one would be without.

    With one reboot for each wish.
    """
    number, died = {"enter": 1, "leave": 1}, []
    while any(number.values()):
        for wish, system in (("enter", "rescue"), ("leave", "installed")):
            when = "before" if number[wish] < 0 else "after"
            provider = Mortal(world.provider(), abs(number[wish]), when, world.folder.path)
            boots = len(world.machine.boots)
            try:
                getattr(world.session(provider=provider, reboot_method="hard"), wish)()
                number[wish] = 0
            except Killed:
                assert files(world.folder.path) == provider.at_death
                died.append((wish, when, provider.calls[-1]))
                getattr(world, wish)(reboot_method="hard")
                # What writes is also died of before it is carried out.
                writes = provider.calls[-1] in ("write_settings", "reboot_hard") and when == "after"
                number[wish] = -number[wish] if writes else abs(number[wish]) + 1
            assert world.machine.system == system
            assert len(world.machine.boots) == boots + 1, died[-1]
            if wish == "enter":
                assert (world.record().phase, world.record().before) == ("rescue", world.before)
        assert world.settings() == world.before and world.record() is None
    for wish in ("enter", "leave"):
        for call in ("write_settings", "reboot_hard"):
            assert {(wish, "before", call), (wish, "after", call)} <= set(died)
        assert {(wish, "after", "read_server"), (wish, "after", "reboot_baseline"), (wish, "after", "read_task")} <= set(died)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("wish", ["enter", "leave"])
def test_killed_around_a_soft_reboot(world, monkeypatch, wish, when):
    if wish == "leave":
        world.enter()
    boots, real = len(world.machine.boots), Client.soft_reboot

    def mortal(self, user):
        if when == "after":
            real(self, user)
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Client, "soft_reboot", mortal)
        getattr(world, wish)()
    result = getattr(world, wish)(soft_timeout=0.5)
    assert result["running"] == {"enter": "rescue", "leave": "installed"}[wish]
    assert len(world.machine.boots) == boots + 1
    if wish == "enter":
        world.leave()
    assert world.settings() == world.before


class MortalSave:
    """SessionStore.save, but for one time at which the controller dies."""

    def __init__(self, number):
        self.saves, self._number, self._real = 0, number, SessionStore.save

    def __call__(self, folder, record):
        self.saves += 1
        if self.saves == self._number:
            raise Killed
        self._real(folder, record)


def test_killed_at_every_save(world, monkeypatch):
    """The disk may be full, too."""
    number = 0
    while True:
        number += 1
        mortal = MortalSave(number)
        boots = len(world.machine.boots)
        with monkeypatch.context() as patched:
            patched.setattr(SessionStore, "save", lambda folder, record, mortal=mortal: mortal(folder, record))
            with contextlib.suppress(Killed):
                world.enter(reboot_method="hard")
        world.enter(reboot_method="hard")
        assert len(world.machine.boots) == boots + 1
        world.leave(reboot_method="hard")
        assert world.settings() == world.before
        if mortal.saves < number:
            break
    assert number > 3


def test_a_plain_reboot_that_died_leaves_no_session(world):
    """Its record would have nothing to restore, and the next session would forget the server in rescue."""
    provider = Mortal(world.provider(), 4, "after", world.folder.path)
    with pytest.raises(Killed):
        world.session(provider=provider, reboot_method="hard").reboot()
    assert provider.calls[-1] == "reboot_hard"
    assert world.record() is None
    world.time.advance(10)
    assert world.server.reboots[0].status == "done"
    world.enter(reboot_method="hard")
    world.leave(reboot_method="hard")
    assert world.settings() == world.before


def test_a_reboot_that_is_asked_for_late_is_waited_for(world):
    """Announced long ago, asked for only now: the machine has all of its time to boot, and no power cycle in the middle of it."""
    session = world.session()
    record = MyRecord("ovh_dedicated", NAME, phase=_record.REBOOTING, address="127.0.0.1",
                      reboot=Reboot("hard", 1000.0, baseline=[], hard=1))
    with SshObserver("127.0.0.1", world.machine.port, KnownHostKeys(), []) as watch:
        rebooting = _reboot.Rebooting(session.context, record, RESCUE, watch)
        rebooting.request.since -= 3600
        assert _decide.next_step(rebooting._situation(None)) == _decide.LATE
        rebooting.request.hard(again=True)
        assert _decide.next_step(rebooting._situation(None)) == _decide.WAIT
    assert len(world.server.reboots) == 1


def test_there_and_back_through_a_bastion(world, bastion):
    """Each connection to the server is one of the bastion's."""
    result = world.session(proxy_command=bastion.command).enter()
    assert (result["running"], result["login"]["proxy_command"]) == ("rescue", bastion.command)
    command = shlex.split(result["login"]["command"])
    done = subprocess.run([*command, "-F", "none", "-o", "BatchMode=yes", "true"], capture_output=True, text=True, timeout=60,
                          check=False)
    assert done.returncode == 0, done.stderr
    assert world.session(proxy_command=bastion.command).leave()["running"] == "installed"
    assert bastion.log.count("Accepted publickey") >= 4
    direct = [line for line in world.machine.running.log.splitlines() if "Connection from" in line]
    assert direct, "sshd tells of its connections"
    assert world.settings() == world.before


def test_the_end_of_another_job_is_waited_for(world):
    """As when somebody reboots a server and enters at once: it answers before the provider's task has ended."""
    world.server.task_seconds["doing"] = 3.0
    world.session(reboot_method="hard").reboot()
    assert any(task.status == "doing" for task in world.server.tasks.values())
    assert world.session(check_mode=True).info()["running"] == "installed"
    with pytest.raises(Busy, match="is at work on"):
        world.enter(check_mode=True)
    world.enter(reboot_method="hard")
    assert any("the provider is at work on it (hardReboot doing" in line for line in world.lines)
    assert world.machine.boots == ["installed", "rescue"]


# When the world is not as it should be


def test_a_machine_that_boots_the_wrong_system(world):
    world.machine.obeys = False
    with pytest.raises(WrongSystem, match="booted the installed system instead of the rescue system") as caught:
        world.enter(reboot_method="hard")
    assert world.machine.resets == 2
    assert "is set to boot next" in caught.value.state
    world.machine.obeys = True
    assert world.enter(reboot_method="hard")["running"] == "rescue"
    assert world.machine.resets == 3
    world.leave()
    assert world.settings() == world.before


def test_the_wrong_system_goes_on_answering_until_the_power_cycle_takes_effect(world, monkeypatch):
    world.server.task_seconds["todo"] = 2.0
    reset = world.machine.reset

    def obey_at_last():
        world.machine.obeys = world.machine.resets > 0
        reset()

    monkeypatch.setattr(world.machine, "reset", obey_at_last)
    assert world.enter(reboot_method="hard")["running"] == "rescue"
    assert world.machine.resets == 2


@pytest.mark.parametrize("status", ["ovhError", "customerError", "cancelled"])
def test_a_reboot_that_the_provider_fails(world, status):
    world.api.faults.add("POST", "/reboot$", "task_ends", status=status)
    with pytest.raises(LifeboatError, match=status):
        world.enter(reboot_method="hard")
    assert world.machine.system == "installed"
    assert world.enter(reboot_method="hard")["running"] == "rescue"
    world.leave()
    assert world.settings() == world.before


def test_giving_up_after_a_reboot_that_failed(world):
    world.api.faults.add("POST", "/reboot$", "task_ends")
    with pytest.raises(LifeboatError, match="ovhError"):
        world.enter(reboot_method="hard")
    assert world.leave()["running"] == "installed"
    assert world.settings() == world.before and world.record() is None


@pytest.mark.parametrize("fault", ["task_purged", "task_hangs"])
def test_evidence_counts_and_not_the_task(world, fault):
    world.api.faults.add("POST", "/reboot$", fault)
    assert world.enter(reboot_method="hard")["running"] == "rescue"
    assert world.machine.resets == 1


def test_evidence_counts_for_the_next_call_too(world):
    """The call that requested the reboot has died; the provider's task never ends."""
    world.api.faults.add("POST", "/reboot$", "task_hangs")
    world.enter(reboot_method="hard")
    task = max(world.server.tasks)
    world.change_record(phase="rebooting", reboot=Reboot("hard", world.clock.time() - 30.0, task=str(task), hard=1))
    before = world.time.now
    assert world.enter(reboot_method="hard")["running"] == "rescue"
    assert world.machine.resets == 1 and world.time.now - before < 20.0


def test_a_soft_reboot_that_was_refused_is_no_rival_of_the_hard_one(world):
    """So the rescue system counts as soon as it is seen, whatever the provider says of its task."""
    world.machine.installed.reboots_answer(1)
    world.api.faults.add("POST", "/reboot$", "task_hangs")
    assert world.enter()["running"] == "rescue"
    assert world.machine.resets == 1 and "no soft reboot" in "".join(world.lines)


def test_leaving_a_rescue_system_that_has_booted_once_more(world):
    """The request did not arrive. What answers has another host key, and is the rescue system all the same."""
    world.enter(reboot_method="hard")
    fault = world.api.faults.add("POST", "/reboot$", "500", every=1)
    with pytest.raises(LifeboatError):
        world.leave(reboot_method="hard")
    assert fault.hits and world.record().phase == "leaving"
    world.api.faults.clear()
    key = world.machine.running.authorized_keys.read_text().strip()
    world.server.bootId, world.server.rescueSshKey = world.server.boot("rescue12-customer").bootId, key
    world.machine.reboot()
    world.time.advance(100.0)
    world.server.bootId = world.before["bootId"]
    assert world.leave(reboot_method="hard")["running"] == "installed"
    assert world.machine.boots == ["rescue", "rescue", "installed"]


@pytest.mark.parametrize("kind", ["404", "429", "500", "503-html", "reset"])
def test_there_and_back_through_faults(world, kind):
    world.api.faults.add("*", ".", kind, every=4)
    assert world.enter(reboot_method="hard")["running"] == "rescue"
    assert world.leave(reboot_method="hard")["running"] == "installed"
    assert world.machine.resets == 2 and world.settings() == world.before


def test_a_setting_that_is_not_taken_back(world):
    world.enter()
    world.server.ignored_puts = {"rescueMail": 1, "noIntervention": 1}
    result = world.leave()
    assert "warnings" not in result and world.settings() == world.before and world.record() is None
    # What takes longer is left to another call, and the session stays open for it.
    world.enter()
    world.server.ignored_puts = {"noIntervention": 5}
    with pytest.raises(ProviderError, match="did not restore noIntervention") as caught:
        world.leave()
    assert "The installed system runs" in caught.value.state and world.record().phase == "leaving"
    boots = len(world.machine.boots)
    assert "warnings" not in world.leave() and world.settings() == world.before and world.record() is None
    # Who does not answer then is not rebooted for it: the installed system was proved.
    world.enter()
    world.server.ignored_puts = {"noIntervention": 5}
    with pytest.raises(ProviderError, match="did not restore noIntervention"):
        world.leave()
    boots = len(world.machine.boots)
    world.machine.installed.stop()
    with pytest.raises(TimedOut):
        world.leave()
    world.machine.installed.start()
    assert world.leave()["running"] == "installed" and len(world.machine.boots) == boots and world.record() is None
    # One that is never taken back is named by that, and the session ends.
    world.enter()
    world.server.ignored_puts = {"noIntervention": 99}
    with pytest.raises(ProviderError, match="did not restore noIntervention"):
        world.leave()
    result = world.leave()
    assert len(world.machine.boots) == boots + 2
    assert len(result["warnings"]) == 1 and "did not restore noIntervention" in result["warnings"][0]
    assert world.machine.system == "installed" and world.record() is None
    assert world.settings() == {**world.before, "noIntervention": True}


def test_a_boot_option_that_is_not_taken(world):
    world.server.ignored_puts = {"bootId": 99}
    with pytest.raises(WrongSystem, match="but it is not set"):
        world.enter()
    assert world.machine.boots == []
    world.server.ignored_puts = {"bootId": 1}
    assert world.enter()["running"] == "rescue"


def test_proved_back_although_nobody_can_log_in(world):
    """The usual end after a lock-out: sshd runs, refuses us, and has the key that it had before."""
    world.enter(reboot_method="hard")
    world.machine.installed.authorized_keys.write_text("")
    result = world.leave(reboot_method="hard")
    assert result["changed"] and world.record() is None and world.settings() == world.before


def test_a_reboot_of_what_runs(world):
    result = world.session(reboot_method="soft").reboot()
    assert (result["changed"], result["running"], result["fresh"]) == (True, "installed", True)
    assert world.machine.boots == ["installed"] and world.record() is None
    world.enter()
    result = world.session().reboot()
    assert (result["running"], result["fresh"], result["login"]["user"]) == ("rescue", True, ME)
    assert world.enter()["changed"] is False
    world.leave()
    assert world.settings() == world.before


def test_a_reboot_where_nobody_can_log_in(world):
    """The provider has rebooted it, and another host key than before answers. Of which system, nobody can tell."""
    world.session().netboot("rescue")
    world.machine.boots_in = 3
    result = world.session(installed_login=None).reboot()
    assert (result["changed"], result["running"], result["fresh"], result["login"]) == (True, "unknown", True, None)
    assert len(world.machine.boots) == 1 and world.record() is None


def test_a_reboot_where_nobody_can_log_in_and_nothing_looks_different(world):
    """That it was silent meanwhile proves nothing."""
    world.session().netboot("harddisk")
    world.machine.boots_in = 3
    with pytest.raises(TimedOut, match=r"It is not proved that .* rebooted within"):
        world.session(installed_login=None, boot_timeout=8.0).reboot()
    assert len(world.machine.boots) == 1 and world.record() is None


def test_a_plain_reboot_that_does_not_come_tells_what_is_true_of_it(world):
    world.api.faults.add("POST", "/reboot$", "task_ends", status="done", resets=False, times=1)
    with pytest.raises(TimedOut) as caught:
        world.session(reboot_method="hard", boot_timeout=1.0).reboot()
    assert caught.value.state == "Now no setting was changed, and the installed system from before the reboot runs."
    assert "goes on waiting" not in caught.value.todo and world.record() is None


def test_what_boots_next_is_set_while_the_old_option_is_gone(world):
    world.server.bootId = 999999
    result = world.session().netboot("harddisk")
    assert result["changed"] and world.server.bootId == 1
    assert result["diff"]["before"]["boot"]["id"] == "999999"
    assert world.session().netboot("harddisk")["changed"] is False


def test_what_boots_next_is_not_set_while_another_job_is_at_work(world):
    with world.folder.locked(1, print), pytest.raises(Busy):
        world.session(wait_timeout=0.1).netboot("harddisk")
    assert world.api.writes() == []
    world.enter()
    assert world.session().netboot("harddisk")["session"]["phase"] == "rescue"
    assert world.enter()["armed"] is True, "the session arms it again"


def test_a_reboot_into_nothing_is_refused(world):
    world.server.bootId = world.server.boot("poweroff").bootId
    with pytest.raises(BadInput, match="power off"):
        world.session(reboot_method="hard").reboot()
    assert world.machine.boots == []


# Another controller


def test_a_session_goes_on_from_another_controller(world, tmp_path):
    key = str(world.machine.user_key)
    world.enter(private_key_file=key)
    world.base = str(tmp_path / "other controller")
    result = world.enter(private_key_file=key)
    assert (result["changed"], result["running"]) == (False, "rescue")
    world.leave(private_key_file=key)
    assert world.settings() == world.before


def test_what_a_machine_says_of_the_session_is_not_all_believed(world, tmp_path):
    """It may be the compromised system that pretends to be its rescue system: nothing of it goes to the provider unread."""
    key = str(world.machine.user_key)
    world.enter(private_key_file=key)
    said = world.machine.running.world / "run" / "session.json"
    copy = json.loads(said.read_text())
    copy["before"].update(rescueSshKey="ssh-ed25519 AAAA not-yours", rescueMail="me@example.net", state="hacked",
                          bootId=world.server.boot("poweroff").bootId)
    copy["address"] = "192.0.2.66"
    said.write_text(json.dumps(copy))
    world.base = str(tmp_path / "other controller")
    result = world.enter(private_key_file=key)
    assert (result["changed"], result["running"], result["login"]["host"]) == (False, "rescue", "127.0.0.1")
    assert any("not signed by our key" in line for line in world.lines)
    world.leave(private_key_file=key)
    assert world.server.state == "ok" and world.server.bootId == 1 and not world.server.noIntervention
    assert world.server.rescueMail == world.before["rescueMail"] and "not-yours" not in (world.server.rescueSshKey or "")


def test_a_key_of_the_user_is_no_key_of_the_session(world):
    """What lets the user's own key in may well be the installed system."""
    world.enter()
    assert world.record().own_key
    world.change_record(phase=_record.RESTORING)
    world.enter(private_key_file=str(world.machine.user_key))
    record = world.record()
    assert (record.key_file, record.own_key) == (str(world.machine.user_key), False)


def test_a_key_given_later_lets_in_where_that_of_the_session_is_lost(world):
    world.enter()
    world.machine.running.authorized_keys.write_text(world.machine.user_public + "\n")
    result = world.enter(private_key_file=str(world.machine.user_key))
    assert (result["changed"], result["running"]) == (False, "rescue")


def test_the_installed_system_is_known_by_the_address_that_the_provider_tells(world, tmp_path):
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(f"[{world.server.ip}]:{world.machine.port} {world.machine.installed.host_key}\n")
    info = world.session(installed_address=None, installed_login=None, known_hosts_files=[str(known_hosts)]).info()
    assert (info["running"], info["evidence"]["reason"]) == ("installed", "its host key is the one known from before")


def test_host_keys_from_the_disk_tell_the_installed_system(world):
    key = world.machine.installed.host_key
    world.enter(installed_host_keys=[key])
    result = world.leave(installed_host_keys=[key])
    assert result["evidence"]["reason"] == "its host key is the one on the server's own disk"
    assert HostKey.from_line(key).fingerprint == result["evidence"]["host_key"]


@pytest.mark.parametrize(("phase", "armed"), [("arming", False), ("rebooting", True), ("rescue", True), ("leaving", False)])
def test_what_an_error_halfway_says_of_the_state(world, phase, armed):
    session = world.session()
    assert "no session is open" in session.interrupted()
    world.folder.save(Record("ovh_dedicated", world.server.name, phase=phase, boot={"id": "2", "name": "rescue12-customer"}))
    said = session.interrupted()
    assert repr(phase) in said
    assert ("rescue12-customer set to boot next" in said) == armed


# A rescue system that somebody else booted


@pytest.fixture
def technician(world):
    """Somebody has put the server into rescue, by hand, with a key that the user has too."""
    world.server.bootId = world.server.boot("rescue12-customer").bootId
    world.server.rescueSshKey = world.machine.user_public
    world.machine.reset()
    return world


def test_a_rescue_of_somebody_else_is_taken_as_it_is(technician):
    world, key = technician, str(technician.machine.user_key)
    seen = world.session().info()
    assert seen["running"] == "rescue" and seen["session"] is None
    assert seen["found"]["since"].endswith("Z") and seen["found"]["by"] is None

    plan = world.enter(private_key_file=key, check_mode=True)
    assert plan["changed"] and plan["found"]["since"] and not os.path.exists(world.base)
    result = world.enter(private_key_file=key)
    assert (result["changed"], result["armed"], result["running"]) == (True, True, "rescue")
    assert result["found"]["since"].endswith("Z")
    assert result["login"]["private_key_file"] == key
    assert world.machine.resets == 1 and world.machine.system == "rescue" and world.api.writes() == []

    again = world.enter(private_key_file=key)
    assert again["changed"] is False and again["found"] == result["found"]
    assert world.session().info()["found"] == result["found"]

    left = world.leave()
    assert left["running"] == "installed" and world.server.bootId == 1
    assert not os.path.exists(world.folder.path)


@pytest.mark.parametrize("why", ["not armed", "a known host key"])
def test_what_may_be_an_installed_system_with_an_overlay_is_not_taken_for_a_rescue(technician, why, tmp_path):
    world, known = technician, tmp_path / "known_hosts"
    if why == "not armed":
        world.server.bootId = 1
    else:
        known.write_text(f"[127.0.0.1]:{world.machine.port} {world.machine.running.host_key}\n")
    result = world.enter(private_key_file=str(world.machine.user_key), known_hosts_files=(str(known),))
    assert result["running"] == "rescue" and result["fresh"] and result["found"] is None and len(world.machine.boots) == 2


def test_a_rescue_of_somebody_else_is_rebooted_when_forced(technician):
    result = technician.enter(force=True)
    assert result["running"] == "rescue" and technician.machine.rescues == 2
    assert technician.server.rescueSshKey.split()[2].startswith("lifeboat.rescue-")


# By the console, without a log-in


def test_by_the_console_the_providers_word_is_all(world):
    result = world.enter(login="console", reboot_method="hard")
    assert (result["changed"], result["armed"], result["running"], result["login"]) == (True, True, "unknown", None)
    assert result["evidence"]["reason"] == "nobody looked, for nobody logs in by SSH"
    assert world.machine.system == "rescue" and world.record().phase == "rescue"
    with pytest.raises(LifeboatError, match="nobody can say"):
        world.leave()
    assert world.leave(force=True)["running"] == "installed"


@pytest.fixture
def windows(world):
    """A server whose provider offers a Windows rescue, too."""
    from lifeboat_lab.ovh_api import boot_entries

    world.server.boots = boot_entries(world.server.serverId, windows=True)
    return world


def test_a_windows_rescue_and_its_password(windows, tmp_path):
    world, path = windows, tmp_path / "windows.json"
    path.write_text("older")
    path.chmod(0o644)
    result = world.enter(rescue="windows", credentials_file=str(path), reboot_method="hard")
    assert (result["changed"], result["armed"], result["running"], result["login"]) == (True, True, "unknown", None)
    assert result["boot"]["name"] == "WinRescue" and not world.server.rescueSshKey
    told = json.loads(path.read_text())
    assert (told["host"], told["user"]) == ("127.0.0.1", "Administrator")
    assert told["password"] == world.server.booted[-1].password and path.stat().st_mode & 0o777 == 0o600
    assert told["password"] not in json.dumps(result) + "".join(world.lines)

    writes = len(world.api.writes())
    again = world.enter(rescue="windows", credentials_file=str(path), reboot_method="hard")
    assert again["changed"] is False and len(world.api.writes()) == writes and world.machine.resets == 1

    with pytest.raises(LifeboatError, match="nobody can say"):
        world.leave()
    left = world.leave(force=True)
    assert left["running"] == "installed" and world.settings() == world.before


def test_a_windows_rescue_without_a_wish_for_its_password(windows):
    assert windows.enter(rescue="windows", reboot_method="hard")["armed"] is True
    assert [call.path for call in windows.api.log if "authenticationSecret" in call.path or "history" in call.path] == []


def test_a_password_that_never_comes_is_told(windows, tmp_path):
    windows.server.secret_delay = windows.server.mail.delay = float("inf")
    with pytest.raises(TimedOut, match="gave no password") as caught:
        windows.enter(rescue="windows", credentials_file=str(tmp_path / "w.json"), reboot_method="hard", boot_timeout=2.0)
    assert "WinRescue is set to boot next" in caught.value.state and not (tmp_path / "w.json").exists()


def test_a_file_for_the_password_that_cannot_be_written_is_told_first(windows, tmp_path):
    with pytest.raises(BadInput, match="cannot be written"):
        windows.enter(rescue="windows", credentials_file=str(tmp_path / "nowhere/w.json"))
    assert windows.api.writes() == []
