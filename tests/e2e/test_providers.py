# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The same playbook at every provider, in one run: plan, do, repeat. Only the hosts' variables differ, and the credentials.

OVH's dedicated servers have it alone, and closer, in test_chain.py. What is told of each provider without a whole job is in
tests/session.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from lifeboat_lab.accounts import PROVIDERS
from lifeboat_lab.demo import Demo
from lifeboat_lab.world import World

JOB = ("lifeboat.rescue.rescue", "-e", "rescue_hosts=lab", "-e", "rescue_tasks=reset_root_password,fix_firewall",
       # More at once would only take turns on the cores of a small machine.
       "--forks", "2")
OTHERS = [name for name in PROVIDERS if name != "ovh_dedicated"]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """One server at each provider, which runs. All of them are locked: the firewall lets no SSH in."""
    with World(tmp_path / "world", {name.replace("_", "-"): name for name in OTHERS}) as made:
        made.cheapen_boots()  # test_chain.py shows them
        for host in made.hosts.values():
            host.machine.power_on(made.running())
            host.wait_for_ssh(240)
            Demo(host, 0).lock_out()
        yield made


def results(output: str) -> dict[str, dict[str, object]]:
    """What `ansible` printed for each host."""
    found = {}
    for match in re.finditer(r"^(\S+) \| (?:SUCCESS|CHANGED) => ", output, re.MULTILINE):
        found[match[1]] = json.JSONDecoder().raw_decode(output[match.end():])[0]
    return found


def test_the_same_playbook_at_every_provider(world: World, password_file: Path) -> None:
    job = (*JOB, "-e", f"@{password_file}")
    password = json.loads(password_file.read_text())["reset_root_password_password"]
    # The plan, and results with the same keys everywhere. Nothing is written.
    done = world.ansible_playbook(*job, "--check", "--diff")
    assert done.returncode == 0, done.stdout
    planned = world.ansible("lab", "-m", "lifeboat.rescue.rescue_mode", "-a", "state=present", "--check")
    assert planned.returncode == 0, planned.stdout
    seen = results(planned.stdout)
    assert set(seen) == set(world.hosts)
    assert len({tuple(sorted(result)) for result in seen.values()}) == 1, seen
    assert all(result["changed"] for result in seen.values())
    assert [list(account.writes()) for account in world.accounts.values()] == [[]] * len(world.accounts)

    done = world.ansible_playbook(*job, "-vvv", timeout=1800)
    assert done.returncode == 0, done.stdout
    for host in world.hosts.values():
        assert [boot.kind for boot in host.machine.boots] == ["installed", "rescue", "installed"], host.name
        after, text = Demo(host, 0).log_in(password)
        assert "tcp dport 22" in after and "lifeboat.rescue" in text, host.name
    assert world.session_files() == []
    secrets = {password}.union(*(account.sensitive() for account in world.accounts.values()))
    assert not [secret for secret in secrets if secret in done.stdout]
    assert "PRIVATE KEY" not in done.stdout

    writes = [len(account.writes()) for account in world.accounts.values()]
    done = world.ansible_playbook(*job)
    assert done.returncode == 0, done.stdout
    assert len(re.findall(r"changed=0", done.stdout)) >= len(world.hosts)
    assert [len(account.writes()) for account in world.accounts.values()] == writes
    assert all(len(host.machine.boots) == 3 for host in world.hosts.values())
