# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Jobs that know nothing of each other, as AWX runs them: each may have a folder of sessions of its own."""

from __future__ import annotations

import json
import re
from pathlib import Path

from lifeboat_lab.box import Systems
from lifeboat_lab.server import Installed
from lifeboat_lab.world import World, result_of

MODE = ("web1", "-m", "lifeboat.rescue.rescue_mode", "-a")
INFO = ("web1", "-m", "lifeboat.rescue.rescue_mode_info")


def _kinds(world: World) -> list[str]:
    return [boot.kind for boot in world.hosts["web1"].machine.boots]


def _elsewhere(world: World, name: str) -> list[str]:
    """Arguments for a job with a folder of sessions of its own, and the user's key."""
    return ["-e", f"lifeboat_session_dir={world.directory / name}", "-e", f"lifeboat_private_key_file={world.admin_key}"]


def test_a_job_goes_on_from_another_one(running: World) -> None:
    """The record in the rescue system, signed by the user's key, is believed by each."""
    assert running.ansible(*MODE, "state=present reboot_method=hard", *_elsewhere(running, "one")).returncode == 0
    done = running.ansible(*INFO, *_elsewhere(running, "two"))
    told = result_of(done.stdout)
    assert (told["running"], told["session"]["phase"]) == ("rescue", "rescue") and told["login"]["command"], done.stdout
    leave = ("lifeboat.rescue.leave", "-e", "rescue_hosts=web1")
    done = running.ansible_playbook(*leave, *_elsewhere(running, "three"), "--check")
    # It logs in there, to see what is mounted.
    assert done.returncode == 0 and "ok: [web1 -> web1.rescue(" in done.stdout, done.stdout
    assert _kinds(running) == ["installed", "rescue"]
    done = running.ansible_playbook(*leave, *_elsewhere(running, "four"))
    assert done.returncode == 0, done.stdout
    assert _kinds(running) == ["installed", "rescue", "installed"]
    server = running.hosts["web1"].server
    assert (server.bootId, server.rescueSshKey or None, server.noIntervention) == (1, None, False)


def test_a_key_that_goes_with_the_job_is_refused(running: World) -> None:
    """In AWX, a job's home is gone when the job is."""
    awx = {"AWX_PRIVATE_DATA_DIR": "/runner"}
    # The inventory of the lab names a folder of its own; this is as it would be without.
    for check in (["--check"], []):
        done = running.ansible(*MODE, "state=present", *check, "-e", "{'lifeboat_session_dir': null}", **awx)
        assert done.returncode != 0 and "The home of this job goes with it" in done.stdout, done.stdout
    told = result_of(running.ansible(*INFO, "-e", "{'lifeboat_session_dir': null}", **awx).stdout)
    assert told["ready"] is False and "The home of this job goes with it" in told["not_ready"][0]
    assert _kinds(running) == ["installed"] and running.api.writes() == []
    for lasting in (["-e", f"lifeboat_session_dir={running.sessions}"], ["-e", f"lifeboat_private_key_file={running.admin_key}"]):
        done = running.ansible(*MODE, "state=present", "--check", *lasting, **awx)
        assert done.returncode == 0, done.stdout


def test_what_is_missing_is_told_before(running: World) -> None:
    """By rescue_mode_info, by check mode, and by the call itself, in the same words."""
    assert result_of(running.ansible(*INFO).stdout)["ready"] is True
    public = running.admin_key.with_suffix(".pub").read_text().strip()
    unheld = json.dumps({"lifeboat_public_key": public})
    told = result_of(running.ansible(*INFO, "-e", unheld, SSH_AUTH_SOCK="").stdout)
    [why] = told["not_ready"]
    assert told["ready"] is False and "No agent has the private half" in why
    for check in (["--check"], []):
        done = running.ansible(*MODE, "state=present", *check, "-e", unheld, SSH_AUTH_SOCK="")
        assert done.returncode != 0 and why in done.stdout, done.stdout
    assert _kinds(running) == ["installed"] and running.api.writes() == []


def test_a_server_that_did_not_come_back_is_rescued_again(running: World) -> None:
    """Its sshd was broken by the way. Nobody waits for it once more."""
    host = running.hosts["web1"]
    assert running.ansible(*MODE, "state=present reboot_method=hard").returncode == 0
    host.machine.faults.boot_time = 3600
    short = ["-e", "lifeboat_boot_timeout=8", "-e", "lifeboat_soft_timeout=8", "-e", "lifeboat_reboot_method=hard"]
    done = running.ansible(*MODE, "state=absent", *short)
    assert done.returncode != 0 and "did not come up within" in done.stdout, done.stdout
    assert _kinds(running) == ["installed", "rescue", "installed"]
    host.machine.faults.boot_time = 0
    # A box has no disk to be mounted, so the job itself fails, in rescue.
    done = running.ansible_playbook("lifeboat.rescue.rescue", "-e", "rescue_hosts=web1", "-e", "rescue_tasks=fix_firewall", *short)
    assert _kinds(running) == ["installed", "rescue", "installed", "rescue"], done.stdout
    assert "Have the installed system run" not in done.stdout.split("Enter rescue")[0], done.stdout


def test_somebody_elses_rescue_is_recognised_by_looking(tmp_path: Path) -> None:
    """SoftLayer does not tell what is in rescue. The password that it shows lets us look."""
    with World(tmp_path / "world", {"web1": "softlayer"}, boxes=Systems()) as world:
        host = world.hosts["web1"]
        host.machine.power_on(Installed())
        host.wait_for_ssh(60)
        assert world.ansible(*MODE, "state=present").returncode == 0
        done = world.ansible(*MODE, "state=present", "-e", f"lifeboat_session_dir={tmp_path / 'other'}",
                             "-e", "{'ansible_ssh_private_key_file': null}")
        taken = result_of(done.stdout)
        assert done.returncode == 0 and (taken["changed"], taken["running"]) == (True, "rescue"), done.stdout
        assert _kinds(world) == ["installed", "rescue"]


def test_lines_of_progress(running: World) -> None:
    """They have the host's name, how long it has been waited for, and the limit; or they are not there."""
    host = running.hosts["web1"]
    done = running.ansible(*MODE, "state=present reboot_method=hard boot_timeout=77")
    lines = done.stdout.split("=> {")[0].splitlines()
    assert "web1: asking the provider for a hard reboot" in lines, done.stdout
    assert any(re.search(r"^web1: .* \(\d+ s of (77 s, waiting for the rescue system|1200 s, waiting for the provider)\)$", line)
               for line in lines), done.stdout
    assert not any(line.startswith(host.server.name) for line in lines)
    done = running.ansible(*MODE, "state=absent", "-e", "lifeboat_progress=false")
    assert done.returncode == 0 and not [line for line in done.stdout.splitlines() if line.startswith("web1: ")], done.stdout
