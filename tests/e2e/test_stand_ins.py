# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A box, a machine that boots and one that resumes snapshots are the same to the session: the same results, for the same reasons."""

from __future__ import annotations

import shlex
import subprocess
import typing as t
from pathlib import Path

from lifeboat_lab.box import Systems
from lifeboat_lab.machine import Running
from lifeboat_lab.server import Installed
from lifeboat_lab.world import World, result_of

# What each boot, server and controller has of its own. A box has the kernel of the machine that runs the tests.
IDENTITIES = {"evidence": {"boot_id", "host_key", "uptime", "kernel"}, "session": {"folder", "id", "started_at"},
              "login": {"command", "host", "known_hosts_file", "port", "private_key_file"}}
OF_ITS_OWN = {"address", "timings"}


def _comparable(result: dict[str, t.Any]) -> dict[str, t.Any]:
    """The result with None in place of each identity and time."""
    found: dict[str, t.Any] = {name: None if name in OF_ITS_OWN else value for name, value in result.items()}
    for name, identities in IDENTITIES.items():
        if isinstance(found[name], dict):
            found[name] = {key: type(value) if key in identities else value for key, value in found[name].items()}
    return found


def _call(world: World, module: str, *arguments: str) -> dict[str, t.Any]:
    done = world.ansible("web1", "-m", f"lifeboat.rescue.{module}", *arguments)
    assert done.returncode == 0, done.stdout
    return result_of(done.stdout)


def _course(world: World, start: Installed | Running) -> list[dict[str, t.Any]]:
    """What there is to tell of a server from the first look at it to the last."""
    host = world.hosts["web1"]
    results = [_call(world, "rescue_mode_info")]
    host.machine.power_on(start)
    host.wait_for_ssh(240)
    results.append(_call(world, "rescue_mode_info"))
    entered = _call(world, "rescue_mode", "-a", "state=present")
    results += [entered, _call(world, "rescue_mode_info")]
    if world.boxes is None:
        _refuses_to_leave_a_disk_in_use(world, entered["login"]["command"])
    results.append(_call(world, "rescue_mode", "-a", "state=absent"))
    results.append(_call(world, "rescue_mode_info"))
    assert [boot.kind for boot in host.machine.boots] == ["installed", "rescue", "installed"]
    assert host.server.reboots == [], "both of its systems rebooted by themselves when they were asked to"
    assert world.session_files() == []
    return results


def _refuses_to_leave_a_disk_in_use(world: World, login: str) -> None:
    """Nothing is mounted, but somebody is at work on a disk."""
    rescue = [*shlex.split(login), "-o", "BatchMode=yes"]
    subprocess.run([*rescue, "(exec 3<>/dev/vda3; exec sleep 900) </dev/null >/dev/null 2>&1 &"], check=True, timeout=60)
    done = world.ansible("web1", "-m", "lifeboat.rescue.rescue_mode", "-a", "state=absent")
    assert done.returncode != 0 and "/dev/vda3 is written to by sleep (pid " in done.stdout, done.stdout
    subprocess.run([*rescue, "pkill -x sleep"], check=True, timeout=60)


def test_all_stand_ins_give_the_same(tmp_path: Path) -> None:
    with World(tmp_path / "machine") as booted:
        of_a_machine = _course(booted, Installed())
        assert not any(boot.resumed for boot in booted.hosts["web1"].machine.boots)
    with World(tmp_path / "resumed") as resumed:
        machine = resumed.hosts["web1"].machine
        machine.resumes = True
        of_a_snapshot = _course(resumed, resumed.running())
        # Back into the installed system it boots: that is no snapshot.
        assert [boot.resumed for boot in machine.boots] == [True, True, False]
    with World(tmp_path / "box", boxes=Systems()) as boxed:
        of_a_box = _course(boxed, Installed())
    for number, (machine_says, *others) in enumerate(zip(of_a_machine, of_a_snapshot, of_a_box, strict=True)):
        for other in others:
            assert _comparable(other) == _comparable(machine_says), f"result {number}"
    reasons = [result["evidence"]["reason"] for result in of_a_machine]
    assert reasons[0] == "nothing answers by SSH" and len(set(reasons)) == 3, reasons
