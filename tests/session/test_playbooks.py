# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the playbooks refuse."""

from __future__ import annotations

from lifeboat_lab.world import REPOSITORY, World


def test_bad_input_fails_before_anything_goes_down(world: World) -> None:
    repairs = sorted(path.parents[1].name for path in REPOSITORY.glob("roles/*/tasks/needed.yml"))
    cases = {
        ("-e", "rescue_hosts=web1", "-e", "rescue_tasks=make_coffee"):
            f"There is no repair make_coffee. Nothing was changed. Name a repair of this collection ({', '.join(repairs)})",
        ("-e", "rescue_hosts=web7", "-e", "rescue_tasks=fix_firewall"): "No host of the inventory matches web7",
        ("-e", "rescue_hosts=web1"): "Nothing to do was named",
        ("-e", "rescue_tasks=fix_firewall"): "No host was named",
        ("-e", "rescue_hosts=web1", "-e", "rescue_tasks=reset_root_password"): "The options of reset_root_password cannot be right",
        ("-e", "rescue_hosts=web1", "-e", "rescue_tasks=lifeboat.rescue.reset_root_password"):
            "The options of reset_root_password cannot be right",
        ("-e", "rescue_hosts=web1", "-e", "rescue_tasks=fix_firewall", "-e", "lifeboat_server=nobody"):
            "These credentials see: ns100001.ip-192-0-2.eu",
        ("-e", "rescue_hosts=web1", "-e", "rescue_tasks=fix_firewall", "-e", "enter_rescue_kernel=rescue99"):
            "It offers: hd (harddisk, id 1), ipxe-shell",
        ("-e", "rescue_hosts=web1", "-e", "rescue_tasks=fix_firewall", "-e", "lifeboat_public_key=nonsense"):
            "is no public key",
    }
    for arguments, sentence in cases.items():
        done = world.ansible_playbook("lifeboat.rescue.rescue", *arguments)
        assert done.returncode != 0 and sentence in " ".join(done.stdout.split()), (arguments, done.stdout)
    done = world.ansible("web1", "-m", "lifeboat.rescue.rescue_mode", OVH_CONSUMER_KEY="wrong")
    assert done.returncode != 0 and "credential" in done.stdout
    assert world.api.writes() == [] and world.hosts["web1"].machine.boots == []
