# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Entering and leaving rescue, ad hoc, at a server that is dead: check mode, do, repeat."""

from __future__ import annotations

import stat

from lifeboat_lab.world import World, result_of


def _reads_and_writes(world: World, before: int) -> tuple[int, int]:
    calls = world.api.log[before:]
    return len(calls), sum(call.method != "GET" for call in calls)


def test_state_present_and_absent(world: World) -> None:
    host = world.hosts["web1"]
    settings = {name: getattr(host.server, name)
                for name in ("bootId", "rescueSshKey", "rescueMail", "monitoring", "noIntervention")}

    done = world.ansible("web1", "-m", "lifeboat.rescue.rescue_mode", "-a", "state=present", "--check", "--diff")
    planned = result_of(done.stdout)
    assert planned["changed"] and planned["running"] == "unknown" and planned["login"] is None
    assert "noIntervention" in done.stdout.split("=> {")[0]
    folder = world.sessions / "ovh_dedicated" / host.server.name
    assert world.api.writes() == [] and host.machine.boots == [] and not folder.exists()

    done = world.ansible("web1", "-m", "lifeboat.rescue.rescue_mode", "-a", "state=present")
    entered = result_of(done.stdout)
    assert done.returncode == 0, done.stdout
    assert (entered["changed"], entered["armed"], entered["running"], entered["fresh"]) == (True, True, "rescue", True)
    assert entered["boot"]["name"] == "rescue12-customer"
    assert "the rescue system answers" in done.stdout.split("=> {")[0], "progress is shown"
    assert [boot.kind for boot in host.machine.boots] == ["rescue"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir() if path.suffix != ".pub"} == {0o600}

    before = len(world.api.log)
    done = world.ansible("web1", "-m", "lifeboat.rescue.rescue_mode", "-a", "state=present")
    again = result_of(done.stdout)
    assert (again["changed"], again["running"], again["fresh"]) == (False, "rescue", True)
    assert again["evidence"]["boot_id"] == entered["evidence"]["boot_id"]
    calls, writes = _reads_and_writes(world, before)
    assert calls <= 2 and writes == 0, [(call.method, call.path) for call in world.api.log[before:]]

    done = world.ansible("web1", "-m", "lifeboat.rescue.rescue_mode", "-a", "state=absent", "--check", "--diff")
    assert result_of(done.stdout)["changed"] and len(host.machine.boots) == 1

    done = world.ansible("web1", "-m", "lifeboat.rescue.rescue_mode", "-a", "state=absent")
    left = result_of(done.stdout)
    assert done.returncode == 0, done.stdout
    assert (left["changed"], left["armed"], left["running"], left["fresh"]) == (True, False, "installed", True)
    assert [boot.kind for boot in host.machine.boots] == ["rescue", "installed"]
    assert {name: getattr(host.server, name) for name in settings} == settings
    assert not folder.exists()

    before = len(world.api.log)
    done = world.ansible("web1", "-m", "lifeboat.rescue.rescue_mode", "-a", "state=absent")
    assert (result_of(done.stdout)["changed"], result_of(done.stdout)["running"]) == (False, "installed")
    assert _reads_and_writes(world, before)[1] == 0 and len(host.machine.boots) == 2


def test_login_by_password_plants_the_key(world: World) -> None:
    done = world.ansible("web1", "-m", "lifeboat.rescue.rescue_mode", "-a", "state=present login=password", "-vvv")
    entered = result_of(done.stdout)
    assert done.returncode == 0, done.stdout
    assert entered["running"] == "rescue" and entered["evidence"]["logged_in"]
    assert world.hosts["web1"].server.rescueSshKey is None
    assert not [secret for secret in world.api.sensitive() if secret in done.stdout]

    done = world.ansible("web1", "-m", "lifeboat.rescue.rescue_mode", "-a", "state=present login=password")
    assert result_of(done.stdout)["changed"] is False
