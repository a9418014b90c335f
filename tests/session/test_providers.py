# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What differs from provider to provider, and the audit over all of them."""

from __future__ import annotations

import json
from pathlib import Path

from lifeboat_lab.accounts import PROVIDERS, OpenStack
from lifeboat_lab.box import Systems
from lifeboat_lab.world import World, result_of


def audit(world: World, *more: str) -> tuple[int, str]:
    """Run the playbook audit over all accounts; its exit status and output on one line."""
    names = ",".join(sorted({account.provider for account in world.accounts.values()}))
    # The inventory's variables are the lab's, not localhost's.
    variables = {name: value for account in world.accounts.values() for name, value in account.variables().items()}
    done = world.ansible_playbook("lifeboat.rescue.audit", "-e", f"audit_providers={names}", "-e", json.dumps(
        {**variables, "lifeboat_session_dir": str(world.sessions), "lifeboat_connect_timeout": 1.0}), *more)
    return done.returncode, " ".join(done.stdout.split())


def test_the_audit_finds_who_was_left_in_rescue(tmp_path: Path) -> None:
    with World(tmp_path / "world", {name.replace("_", "-"): name for name in PROVIDERS}, boxes=Systems()) as world:
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


def test_a_rescue_image_without_ssh_ends_with_the_console(tmp_path: Path) -> None:
    """SystemRescue as shipped lets nobody in. Whoever says so beforehand is not kept waiting."""
    with World(tmp_path / "world", {"web1": "openstack"}, boxes=Systems()) as world:
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
