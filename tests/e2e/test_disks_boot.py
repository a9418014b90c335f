# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Servers on arrays, volumes and containers boot to a log-in after a repair."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from disks import Guest, Zoo
from disks.module import call, keys
from lifeboat_lab.machine import Machine

pytest_plugins = "disks.fixtures"


@pytest.mark.parametrize("name", ["boot-raid1-lvm", "boot-raid1-lvm-degraded", "boot-lvm-on-luks"])
def test_a_server_boots_after_a_repair(zoo: Zoo, tmp_path: Path, name: str) -> None:
    """The repair lets somebody in who was not: the account of root had no key. Then it boots by itself."""
    with zoo.plugged(name) as there:
        image, key = there.image, there.guest.public_key.strip()
        done = call(there.guest, "storage_mount", luks=keys(there), degraded="degraded" in name)
        assert done.get("changed"), done
        repaired = call(there.guest, "reset_root_password", user="root", authorized_keys=[key], password="correct horse battery 8")
        assert repaired.get("changed"), repaired
        host_keys = there.guest.run("cat /mnt/target/etc/ssh/ssh_host_*_key.pub").splitlines()
        assert call(there.guest, "storage_mount", state="unmounted")["clean"]
    with Machine("booted", list(there.layers.values()), tmp_path / "machine", memory=768) as machine, \
            contextlib.closing(Guest(machine, tmp_path, there.guest.key)) as guest:
        machine.power_on()
        guest.log_in([" ".join(line.split()[:2]) for line in host_keys], timeout=480)
        assert guest.run("hostname") == f"{image.systems[0].hostname}\n"
        mounted = [line.split() for line in guest.run("findmnt --noheadings --raw --output TARGET,FSTYPE,UUID").splitlines()]
        for mount in image.systems[0].mounts:
            assert [mount.path, mount.type, mount.uuid] in mounted
