# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller is killed at each step. The same command again ends in the same good state, with no needless reboot."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lifeboat_lab.accounts import Account, OpenStack, OvhVps, SoftLayer
from lifeboat_lab.demo import Demo
from lifeboat_lab.world import World, result_of

JOB = ("lifeboat.rescue.rescue", "-e", "rescue_hosts=web1", "-e", "rescue_tasks=reset_root_password,fix_firewall")


def _phase(world: World) -> str:
    try:
        return str(json.loads(next(world.sessions.rglob("session.json")).read_text())["phase"])
    except (StopIteration, OSError, ValueError):
        return ""


# What has just happened when the controller dies, by the API's log, the session's record, or what Ansible says.
MOMENTS: dict[str, Callable[[World, str], bool]] = {
    "put": lambda world, said: any(call.method == "PUT" for call in world.api.log),
    "reboot": lambda world, said: any(call.path.endswith("/reboot") for call in world.api.log),
    "log-in": lambda world, said: _phase(world) == "rescue",
    "mounted": lambda world, said: "TASK [Do what was asked for]" in said,
    "repaired": lambda world, said: "TASK [Leave rescue]" in said,
    "unmounted": lambda world, said: "TASK [lifeboat.rescue.exit_rescue : Have the installed system run]" in said,
    "leaving": lambda world, said: _phase(world) == "leaving",
}


def _descendants(pid: int) -> list[int]:
    """Children, and theirs."""
    children: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            children += map(int, path.read_text().split())
    return children + [grandchild for child in children for grandchild in _descendants(child)]


def _run_and_kill(world: World, job: tuple[str, ...], moment: Callable[[World, str], bool], program: str = "ansible-playbook") -> str:
    """Run the playbook, and kill it and all of its workers, without a warning, at the moment."""
    process = subprocess.Popen(world.command(program, job), env=world.ansible_environment(),
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said = bytearray()
    assert process.stdout is not None
    reader = threading.Thread(target=lambda: [said.extend(block) for block in iter(lambda: os.read(fd, 65536), b"")])
    fd = process.stdout.fileno()
    reader.start()
    until = time.monotonic() + 400
    try:
        while not moment(world, said.decode(errors="replace")):
            assert process.poll() is None, said.decode()
            assert time.monotonic() < until, said.decode()
            time.sleep(0.01)
    finally:
        # Ansible's workers are in sessions of their own.
        for pid in [process.pid, *_descendants(process.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        # ssh's kept connections hold the pipe a few seconds longer
        reader.join(60)
        process.stdout.close()
    return said.decode()


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed(locked_world: World, password_file: Path, moment: str) -> None:
    world, host = locked_world, locked_world.hosts["web1"]
    settings = {name: getattr(host.server, name)
                for name in ("bootId", "rescueSshKey", "rescueMail", "monitoring", "noIntervention")}
    job = (*JOB, "-e", f"@{password_file}")
    said = _run_and_kill(world, job, MOMENTS[moment])
    done = world.ansible_playbook(*job)
    assert done.returncode == 0, f"{said}\n=== killed, again ===\n{done.stdout}"
    assert [boot.kind for boot in host.machine.boots] == ["rescue", "installed"], done.stdout
    assert {name: getattr(host.server, name) for name in settings} == settings
    rules, _text = Demo(host, 0).log_in(json.loads(password_file.read_text())["reset_root_password_password"])
    assert rules.count("tcp dport 22") == 1
    assert world.session_files() == []


def _lose_answer(account: Account, state: str) -> None:
    """Let the next call that reboots be carried out, and its answer never arrive."""
    if isinstance(account, OpenStack):
        account.nova.lose('{"rescue"' if state == "present" else '{"unrescue"')
    elif isinstance(account, SoftLayer):
        account.api.faults.add("RescueLayer" if state == "present" else "rebootDefault", "reset", acts=True)
    elif isinstance(account, OvhVps):
        account.api.faults.add("PUT", "/vps/", "reset", acts=True, times=1)


def _asked(account: Account) -> int:
    """How often a reboot was asked for."""
    return len([call for call in account.writes() if not str(getattr(call, "path", "")).endswith("/getConsoleUrl")])


@pytest.mark.parametrize("provider", ["openstack", "ovh_vps", "softlayer"])
def test_killed_between_the_call_and_its_answer(tmp_path: Path, provider: str) -> None:
    """Where setting what boots reboots: the provider has taken the call, and the controller never heard of it. SoftLayer by REST.

    tests/functional/plugins/module_utils/_session/test_killed.py kills at each other call.
    """
    with World(tmp_path / "world", {"web1": provider}) as world:
        host = world.hosts["web1"]
        account = host.account
        job = ["web1", "-m", "lifeboat.rescue.rescue_mode"]
        if isinstance(account, SoftLayer):
            job += ["-e", f"lifeboat_softlayer_endpoint_url={account.api.rest_url}"]
        is_asked: dict[str, Callable[[World, str], bool]] = {
            "present": lambda world, said: _asked(account) == 1, "absent": lambda world, said: _asked(account) == 2}
        for state, kinds in (("present", ["rescue"]), ("absent", ["rescue", "installed"])):
            wish = (*job, "-a", f"state={state} reboot_method=hard boot_timeout=900 wait_timeout=1400")
            _lose_answer(account, state)
            _run_and_kill(world, wish, is_asked[state], "ansible")
            assert _phase(world) == ("rebooting" if state == "present" else "leaving"), "it was announced before"
            done = world.ansible(*wish, timeout=1500)
            result = result_of(done.stdout)
            assert done.returncode == 0 and result["running"] == kinds[-1], done.stdout
            assert [boot.kind for boot in host.machine.boots] == kinds, done.stdout
        assert world.session_files() == []
        assert _asked(account) == 2
        if isinstance(account, SoftLayer):
            assert {call.transport for call in account.api.log} == {"rest"}
