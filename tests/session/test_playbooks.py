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
        ("-e", "rescue_hosts=web1"): "No repair was named",
        ("-e", "rescue_tasks=fix_firewall"): "No host was named",
        ("-e", "rescue_hosts=web1", "-e", "rescue_tasks=reset_root_password"): "Nothing is given to set. Give one of reset_root_password",
        ("-e", "rescue_hosts=web1", "-e", "rescue_tasks=lifeboat.rescue.reset_root_password"):
            "Nothing is given to set. Give one of reset_root_password",
        ("-e", "rescue_hosts=web1", "-e", "rescue_tasks=reset_root_password", "-e", "reset_root_password_authorized_keys="):
            "reset_root_password_authorized_keys is a text, and must be a list",
        ("-e", "rescue_hosts=web1", "-e", "rescue_tasks=reset_root_password", "-e",
         '{"reset_root_password_authorized_keys": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ me"}'):
            "reset_root_password_authorized_keys is a text, and must be a list",
        ("-e", "rescue_hosts=web1", "-e", "rescue_tasks=reset_root_password", "-e", '{"reset_root_password_authorized_keys": ["me"]}'):
            "must have lines of .pub files; one of its lines is not",
        ("-e", "rescue_hosts=web1", "-e", "rescue_tasks=reset_root_password", "-e", "reset_root_password_password=a", "-e",
         "reset_root_password_password_hash=b"): "reset_root_password_password and reset_root_password_password_hash exclude each other",
        ("-e", "rescue_hosts=web1", "-e", "rescue_tasks=fix_firewall", "-e", "lifeboat_server=nobody"):
            "These credentials see: ns100001.ip-192-0-2.eu",
        ("-e", "rescue_hosts=web1", "-e", "rescue_tasks=fix_firewall", "-e", "enter_rescue_kernel=rescue99"):
            "It offers: hd (harddisk, id 1), ipxe-shell",
        ("-e", "rescue_hosts=web1", "-e", "rescue_tasks=fix_firewall", "-e", "lifeboat_public_key=nonsense"):
            "not an SSH public key",
    }
    for arguments, sentence in cases.items():
        done = world.ansible_playbook("lifeboat.rescue.rescue", *arguments)
        assert done.returncode != 0 and sentence in " ".join(done.stdout.split()), (arguments, done.stdout)
    done = world.ansible("web1", "-m", "lifeboat.rescue.rescue_mode", OVH_CONSUMER_KEY="wrong")
    assert done.returncode != 0 and "credential" in done.stdout
    assert world.api.writes() == [] and world.hosts["web1"].machine.boots == []
