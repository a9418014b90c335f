# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The same playbook at every provider, in one run: plan, do, repeat. Only the hosts' variables differ, and the credentials.

OVH's dedicated servers have it alone, and closer, in test_chain.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from lifeboat_lab.accounts import PROVIDERS, OpenStack
from lifeboat_lab.demo import LOCKED_OUT, Demo
from lifeboat_lab.images import File
from lifeboat_lab.world import World, result_of

JOB = ("lifeboat.rescue.rescue", "-e", "rescue_hosts=lab", "-e", "rescue_tasks=reset_root_password,fix_firewall",
       # More at once would only take turns on the cores of a small machine.
       "--forks", "2")
OTHERS = [name for name in PROVIDERS if name != "ovh_dedicated"]


def audit(world: World, *more: str) -> tuple[int, str]:
    """Run the playbook audit over all accounts; its exit status and output on one line."""
    names = ",".join(sorted({account.provider for account in world.accounts.values()}))
    # The inventory's variables are the lab's, not localhost's.
    variables = {name: value for account in world.accounts.values() for name, value in account.variables().items()}
    done = world.ansible_playbook("lifeboat.rescue.audit", "-e", f"audit_providers={names}", "-e", json.dumps(
        {**variables, "lifeboat_session_dir": str(world.sessions), "lifeboat_connect_timeout": 1.0}), *more)
    return done.returncode, " ".join(done.stdout.split())


def test_the_audit_finds_who_was_left_in_rescue(tmp_path: Path) -> None:
    with World(tmp_path / "world", {name.replace("_", "-"): name for name in PROVIDERS}) as world:
        status, said = audit(world)
        assert status == 0 and '"in_rescue": []' in said, said

        # Somebody did so by hand: at two of them the API tells.
        dedicated, nova = world.hosts["ovh-dedicated"].server, world.accounts["openstack"]
        dedicated.bootId = dedicated.boot("rescue12-customer").bootId
        assert isinstance(nova, OpenStack)
        nova.rescue(world.hosts["openstack"].server)
        writes = [len(account.writes()) for account in world.accounts.values()]
        status, said = audit(world)
        assert status != 0 and f"{dedicated.name} (ovh_dedicated) is in rescue, or set to boot it, since unknown" in said, said
        status, said = audit(world, "-e", "audit_hours=0")
        assert status != 0 and "openstack (openstack) is in rescue, or set to boot it, since 20" in said and "by user " in said, said
        status, said = audit(world, "-e", "audit_hours=0", "-e", "audit_fail=false")
        assert status == 0 and dedicated.name in said, said
        assert [len(account.writes()) for account in world.accounts.values()] == writes


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """One server at each provider. All of them are locked: the firewall lets no SSH in."""
    hosts = {name.replace("_", "-"): name for name in OTHERS}
    with World(tmp_path / "world", hosts, files={"/etc/nftables.conf": File(LOCKED_OUT.encode(), 0o755)}) as made:
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
    for host in world.hosts.values():
        host.machine.power_on()
        host.machine.wait_for_boot(1, 120)

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


def test_a_rescue_image_without_ssh_ends_with_the_console(tmp_path: Path) -> None:
    """SystemRescue as shipped lets nobody in. Whoever says so beforehand is not kept waiting."""
    with World(tmp_path / "world", {"web1": "openstack"}) as world:
        host = world.hosts["web1"]
        host.machine.faults.ssh_delay = 9999
        call = ("web1", "-m", "lifeboat.rescue.rescue_mode", "-a")
        done = world.ansible(*call, "state=present boot_timeout=20")
        said = " ".join(done.stdout.split())
        assert done.returncode != 0 and "did not come up within" in said and "SystemRescue as shipped" in said, said
        assert "Look at its console: http://127.0.0.1:6080/vnc" in said

        done = world.ansible(*call, "state=present login=console")
        result = result_of(done.stdout)
        assert done.returncode == 0 and result["changed"] and (result["armed"], result["running"]) == (True, "unknown"), done.stdout
        assert result["console_url"].startswith("http://127.0.0.1:6080/vnc")
        assert [boot.kind for boot in host.machine.boots] == ["rescue"]
        again = result_of(world.ansible(*call, "state=present login=console").stdout)
        assert again["changed"] is False

        refused = world.ansible(*call, "state=absent")
        assert refused.returncode != 0 and "force=true" in refused.stdout, refused.stdout
        done = world.ansible(*call, "state=absent force=true")
        assert done.returncode == 0 and result_of(done.stdout)["running"] == "installed", done.stdout
        assert [boot.kind for boot in host.machine.boots] == ["rescue", "installed"]
