# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller is killed at each step of entering and leaving. The same command again ends in the same good state.

There is no needless reboot. tests/e2e/test_killed.py kills it while the disks are in use.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from lifeboat_lab.accounts import Account, OpenStack, OvhVps, SoftLayer
from lifeboat_lab.box import Systems
from lifeboat_lab.kill import Moment, phase, run_and_kill
from lifeboat_lab.world import World, result_of

ENTER = ("ansible-playbook", "lifeboat.rescue.enter", "-e", "rescue_hosts=web1", "-e", "rescue_mount=false")
LEAVE = ("ansible-playbook", "lifeboat.rescue.leave", "-e", "rescue_hosts=web1")
# A reboot that was announced and never asked for is waited for as long as a soft one may take.
LEAVE_SOON = ("ansible", "web1", "-m", "lifeboat.rescue.rescue_mode", "-a", "state=absent soft_timeout=10")

# What has just happened when the controller dies, by the API's log or by the session's record.
MOMENTS: dict[str, tuple[tuple[str, ...], Moment]] = {
    "put": (ENTER, lambda world, said: any(call.method == "PUT" for call in world.api.log)),
    "reboot": (ENTER, lambda world, said: any(call.path.endswith("/reboot") for call in world.api.log)),
    "log-in": (ENTER, lambda world, said: phase(world) == "rescue"),
    "restored": (LEAVE, lambda world, said: [call.method for call in world.api.log].count("PUT") == 2),
    "announced": (LEAVE_SOON, lambda world, said: phase(world) == "leaving"),
    "leaving": (LEAVE, lambda world, said: len(world.hosts["web1"].machine.boots) == 2),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed(world: World, moment: str) -> None:
    host = world.hosts["web1"]
    host.machine.faults.boot_time = 2  # or leaving would be over before it is killed
    settings = {name: getattr(host.server, name)
                for name in ("bootId", "rescueSshKey", "rescueMail", "monitoring", "noIntervention")}
    killed, is_moment = MOMENTS[moment]
    said = ""
    for program, *arguments in (ENTER, LEAVE if killed is ENTER else killed):
        if (program, *arguments) == killed:
            said = run_and_kill(world, program, arguments, is_moment)
        done = world.ansible(*arguments) if program == "ansible" else world.ansible_playbook(*arguments)
        assert done.returncode == 0, f"{said}\n=== killed, again ===\n{done.stdout}"
    assert [boot.kind for boot in host.machine.boots] == ["rescue", "installed"], done.stdout
    assert {name: getattr(host.server, name) for name in settings} == settings
    host.wait_for_ssh(60)
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

    tests/functional/plugins/module_utils/_control/_session/test_killed.py kills at each other call.
    """
    with World(tmp_path / "world", {"web1": provider}, boxes=Systems()) as world:
        host = world.hosts["web1"]
        account = host.account
        job = ["web1", "-m", "lifeboat.rescue.rescue_mode"]
        if isinstance(account, SoftLayer):
            job += ["-e", f"lifeboat_softlayer_endpoint_url={account.api.rest_url}"]
        is_asked: dict[str, Moment] = {
            "present": lambda world, said: _asked(account) == 1, "absent": lambda world, said: _asked(account) == 2}
        for state, kinds in (("present", ["rescue"]), ("absent", ["rescue", "installed"])):
            wish = (*job, "-a", f"state={state} reboot_method=hard boot_timeout=900 wait_timeout=1400")
            _lose_answer(account, state)
            run_and_kill(world, "ansible", wish, is_asked[state])
            assert phase(world) == ("rebooting" if state == "present" else "leaving"), "it was announced before"
            done = world.ansible(*wish, timeout=1500)
            result = result_of(done.stdout)
            assert done.returncode == 0 and result["running"] == kinds[-1], done.stdout
            assert [boot.kind for boot in host.machine.boots] == kinds, done.stdout
        assert world.session_files() == []
        assert _asked(account) == 2
        if isinstance(account, SoftLayer):
            assert {call.transport for call in account.api.log} == {"rest"}
