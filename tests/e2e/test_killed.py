# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller is killed while the disks are in use, and when it leaves. The same command again ends in the same good state.

tests/session/test_killed.py kills it at the steps before.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lifeboat_lab.demo import Demo
from lifeboat_lab.kill import Moment, phase, run_and_kill
from lifeboat_lab.world import World

JOB = ("lifeboat.rescue.rescue", "-e", "rescue_hosts=web1", "-e", "rescue_tasks=reset_root_password,fix_firewall")

# What has just happened when the controller dies, by the session's record, or by what Ansible says.
MOMENTS: dict[str, Moment] = {
    "mounted": lambda world, said: "TASK [Do what was asked for]" in said,
    "repaired": lambda world, said: "TASK [Leave rescue]" in said,
    "unmounted": lambda world, said: "TASK [lifeboat.rescue.exit_rescue : Have the installed system run]" in said,
    "leaving": lambda world, said: phase(world) == "leaving",
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed(locked_world: World, password_file: Path, moment: str) -> None:
    world, host = locked_world, locked_world.hosts["web1"]
    settings = {name: getattr(host.server, name)
                for name in ("bootId", "rescueSshKey", "rescueMail", "monitoring", "noIntervention")}
    job = (*JOB, "-e", f"@{password_file}")
    said = run_and_kill(world, "ansible-playbook", job, MOMENTS[moment])
    done = world.ansible_playbook(*job)
    assert done.returncode == 0, f"{said}\n=== killed, again ===\n{done.stdout}"
    assert [boot.kind for boot in host.machine.boots] == ["rescue", "installed"], done.stdout
    assert {name: getattr(host.server, name) for name in settings} == settings
    rules, _text = Demo(host, 0).log_in(json.loads(password_file.read_text())["reset_root_password_password"])
    assert rules.count("tcp dport 22") == 1
    assert world.session_files() == []
