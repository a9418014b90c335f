# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What goes wrong at providers, with the machine really behaving so."""

from __future__ import annotations

import subprocess
import typing as t

import pytest

from lifeboat_lab.world import World, result_of

PRESENT = ("web1", "-m", "lifeboat.rescue.rescue_mode")


def _enter(world: World, options: str = "", timeout: float = 600) -> tuple[dict[str, t.Any], str]:
    done = world.ansible(*PRESENT, "-a", f"state=present {options}", timeout=timeout)
    return result_of(done.stdout), done.stdout


def _kinds(world: World) -> list[str]:
    return [boot.kind for boot in world.hosts["web1"].machine.boots]


def test_the_reboot_never_happens(running: World) -> None:
    """It is acknowledged, its task is done, and the old system goes on answering."""
    host = running.hosts["web1"]
    host.machine.faults.ignore_resets = 1
    result, output = _enter(running, "reboot_method=hard boot_timeout=30")
    assert (result["running"], result["fresh"]) == ("rescue", True), output
    assert "the installed system from before the reboot still answers" in output
    assert "one more power cycle" in output
    assert _kinds(running) == ["installed", "rescue"] and len(host.server.reboots) == 2


def test_the_old_system_still_answers(running: World) -> None:
    """The reset takes effect late. Nothing of the old system is taken for the new one, and no second reset is asked for."""
    host = running.hosts["web1"]
    host.machine.faults.linger = 12
    result, output = _enter(running, "reboot_method=hard")
    assert (result["running"], result["fresh"]) == ("rescue", True), output
    assert "the installed system from before the reboot still answers" in output
    assert _kinds(running) == ["installed", "rescue"] and len(host.server.reboots) == 1


def test_a_soft_reboot_is_preferred(running: World) -> None:
    """The running system is asked first; the API's reboot is not used."""
    host = running.hosts["web1"]
    result, output = _enter(running)
    assert (result["running"], result["fresh"]) == ("rescue", True), output
    assert _kinds(running) == ["installed", "rescue"] and host.server.reboots == []


def test_the_installed_system_boots_instead(world: World) -> None:
    """Rescue is armed, the disk boots all the same, once: one power cycle more. Twice: a named error."""
    host = world.hosts["web1"]
    host.machine.faults.wrong_boot = 1
    result, output = _enter(world)
    assert (result["running"], result["fresh"]) == ("rescue", True), output
    assert "the installed system booted instead of the rescue system" in output
    assert _kinds(world) == ["installed", "rescue"]


def test_the_installed_system_boots_for_good(world: World) -> None:
    host = world.hosts["web1"]
    host.machine.faults.wrong_boot = 2
    result, _output = _enter(world)
    assert result["failed"] and result["changed"] and result["failure"]["code"] == "wrong_system"
    assert "rescue12-customer is set to boot next, and the installed system runs" in result["msg"]
    assert _kinds(world) == ["installed", "installed"]


def test_ssh_is_refused_for_90_seconds(world: World) -> None:
    host = world.hosts["web1"]
    host.machine.faults.ssh_delay = 90
    result, output = _enter(world)
    assert (result["running"], result["fresh"]) == ("rescue", True), output
    assert result["evidence"]["uptime"] > 90
    assert _kinds(world) == ["rescue"] and len(host.server.reboots) == 1


def test_the_task_fails(world: World) -> None:
    """A named error at once, no endless wait; the next call asks for another reboot, whose task is purged once it is done."""
    world.api.faults.add("POST", "/reboot$", "task_ends", status="ovhError", resets=False, times=1)
    result, _output = _enter(world)
    assert result["failed"] and result["changed"] and "ovhError" in result["msg"]
    assert "rescue12-customer is set to boot next" in result["msg"] and _kinds(world) == []
    world.api.faults.add("POST", "/reboot$", "task_purged", times=1)
    result, output = _enter(world)
    assert (result["running"], result["fresh"]) == ("rescue", True), output
    assert len(world.hosts["web1"].server.reboots) == 2 and _kinds(world) == ["rescue"]


def test_the_api_has_hiccups(world: World) -> None:
    """404, 429, 500, 503 with HTML and broken connections now and then, one of them after the reboot was taken."""
    world.api.faults.add("POST", "/reboot$", "reset", times=1, acts=True)
    world.api.faults.add("GET", "/dedicated/server/[^/]+$", "404", times=1)
    for number, kind in enumerate(("500", "503-html", "429", "reset")):
        world.api.faults.add("GET", "/", kind, every=5, after=number)
    world.api.faults.add("PUT", "/", "503-html", times=1)
    result, output = _enter(world)
    assert (result["running"], result["fresh"]) == ("rescue", True), output
    assert len(world.hosts["web1"].server.reboots) == 1, "the lost answer must not double the reboot"
    assert _kinds(world) == ["rescue"]


@pytest.mark.parametrize("same_controller", [True, False])
def test_two_rescues_at_once(world: World, same_controller: bool) -> None:
    """On one controller the second waits and finds it done; from another controller it is refused. One reboot in all."""
    world.hosts["web1"].machine.faults.boot_time = 12  # the first is still waiting when the second looks
    first = subprocess.Popen(world.command("ansible", [*PRESENT, "-a", "state=present"]), env=world.ansible_environment(),
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        world.hosts["web1"].machine.wait_for_boot(1, 60)
        option = "" if same_controller else f"session_dir={world.directory}/elsewhere"
        result, output = _enter(world, option)
        told = first.communicate(timeout=300)[0]
    finally:
        first.kill()
        first.communicate()
    assert first.returncode == 0, told
    if same_controller:
        assert (result["changed"], result["running"]) == (False, "rescue"), output
        assert "another job on this controller is using this server" in output
    else:
        assert result["failed"] and not result["changed"] and result["failure"]["code"] in ("busy", "login_refused"), output
    assert _kinds(world) == ["rescue"] and len(world.hosts["web1"].server.reboots) == 1
