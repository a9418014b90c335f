# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Setting what boots next, and rebooting, ad hoc: check mode, do, repeat; told by a new boot, or by down and up."""

from __future__ import annotations

import typing as t

from lifeboat_lab.world import World, result_of


def _call(world: World, module: str, *arguments: str) -> dict[str, t.Any]:
    done = world.ansible("web1", "-m", f"lifeboat.rescue.{module}", *arguments)
    return {**result_of(done.stdout), "output": done.stdout}


def test_netboot_and_reboot(running: World) -> None:
    world, host = running, running.hosts["web1"]
    rescue = host.server.boot("rescue12-customer").bootId

    # What boots next: check mode, do, repeat. Nothing is rebooted by that.
    plan = _call(world, "netboot", "-a", "boot=rescue", "--check", "--diff")
    assert plan["changed"] and '"rescue12-customer"' in plan["output"] and world.api.writes() == []
    done = _call(world, "netboot", "-a", "boot=rescue")
    assert done["changed"] and done["armed"] and host.server.bootId == rescue
    again = _call(world, "netboot", "-a", "boot=rescue12-customer")
    assert not again["changed"] and len(world.api.writes()) == 1
    refused = _call(world, "netboot", "-a", f"boot={host.server.boot('poweroff').bootId}")
    assert refused["failed"] and "boot=poweroff" in refused["msg"] and host.server.bootId == rescue
    assert _call(world, "netboot", "-a", "boot=harddisk")["changed"]
    assert [boot.kind for boot in host.machine.boots] == ["installed"]

    # A reboot of the running system: planned, then by SSH.
    before = host.ssh("cat /proc/sys/kernel/random/boot_id").stdout.strip()
    plan = _call(world, "reboot", "--check")
    assert plan["changed"] and plan["evidence"]["boot_id"] == before and len(host.machine.boots) == 1
    done = _call(world, "reboot", "-a", "method=auto")
    assert (done["changed"], done["running"], done["fresh"]) == (True, "installed", True), done["output"]
    assert done["evidence"]["boot_id"] != before and host.server.reboots == []

    # One that hangs is rebooted by the provider, after the deadline.
    host.ssh("ln -sf /bin/true /usr/local/sbin/systemctl")
    done = _call(world, "reboot", "-a", "method=auto soft_timeout=5")
    assert (done["running"], done["fresh"]) == ("installed", True), done["output"]
    assert "the soft reboot had no effect" in done["output"] and len(host.server.reboots) == 1
    assert [boot.kind for boot in host.machine.boots] == ["installed"] * 3


def test_a_reboot_where_nobody_can_log_in(running: World) -> None:
    """And armed by hand: the rescue system that comes was given no key."""
    world, host = running, running.hosts["web1"]
    host.machine.faults.boot_time = 10  # it must be seen to be down, also on a busy machine
    assert _call(world, "netboot", "-a", "boot=rescue")["changed"]
    refused = _call(world, "reboot", "-a", "method=soft installed_user=nobody")
    assert refused["failed"] and not refused["changed"] and "cannot be rebooted softly" in refused["msg"]
    done = _call(world, "reboot", "-a", "installed_user=nobody")
    assert (done["changed"], done["running"], done["fresh"], done["login"]) == (True, "unknown", True, None), done["output"]
    assert [boot.kind for boot in host.machine.boots] == ["installed", "rescue"] and len(host.server.reboots) == 1
