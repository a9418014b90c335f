# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What `storage_info` costs in a rescue system with many block devices, and how that grows.

In a machine of the lab there are loop devices, each with a file system of its own. All of them are read, as storage_info does not know
before in which of them a system is installed. Beside it the bare script that somebody would write: lsblk, and then blkid, mount, a look
for os-release, and umount for each device that lsblk tells.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from disks import Guest
from disks.module import call, install
from lifeboat_lab.images import ensure
from lifeboat_lab.machine import Machine

GOAL_SECONDS = 3.0
GOAL_DEVICES = 100

# $1: how many there are to be. They are as small as file systems come, and of two kinds.
MORE = """
set -e
modprobe -q loop
mkdir -p /run/many
have=$(losetup --noheadings --list --output NAME | wc -l)
for number in $(seq $have $(($1 - 1))); do
    truncate -s 4M /run/many/$number
    case $((number % 2)) in
        0) mkfs.ext4 -q -O ^has_journal /run/many/$number ;;
        1) mkfs.vfat /run/many/$number >/dev/null ;;
    esac
    losetup --find /run/many/$number
done
udevadm settle
"""

SCRIPT = """
mkdir -p /mnt/script
lsblk --noheadings --paths --list --output NAME | while read -r device; do
    kind=$(blkid -p -o value -s TYPE "$device") || continue
    mount -t "$kind" -o ro,noload "$device" /mnt/script 2>/dev/null || mount -t "$kind" -o ro "$device" /mnt/script 2>/dev/null || continue
    [ ! -e /mnt/script/etc/os-release ] || echo "$device"
    umount /mnt/script
done
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, nargs="*", default=[0, 25, 50, 100, 200])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    lab = ensure(lambda line: print(line, file=sys.stderr, flush=True))
    with tempfile.TemporaryDirectory(prefix="lifeboat-bench-") as name:
        machine = Machine("bench", [], Path(name) / "machine", images=lab, hotplug=True, memory=1024)
        guest = Guest(machine, Path(name))
        try:
            guest.boot()
            install(guest)
            for count in sorted(options.devices):
                guest.run(f"sh -c '{MORE}' sh {count}", timeout=600)
                ours, script = [], []
                for _round in range(options.rounds):
                    info = call(guest, "storage_info")
                    assert sum(each["kind"] == "loop" for each in info["disks"]) == count, info
                    assert not [each for each in info["filesystems"] if each["kind"] == "loop" and each["reason"]], info
                    ours.append(info["took"])
                    began = time.monotonic()
                    guest.run("sh -s", stdin=SCRIPT.encode(), timeout=600)
                    script.append(time.monotonic() - began)
                goal = f", goal {GOAL_SECONDS:g}" if count == GOAL_DEVICES else ""
                middle = options.rounds // 2
                print(f"(g) storage_info with {count} more devices: {min(ours):.2f} ({sorted(ours)[middle]:.2f}){goal}; "
                      f"the script {min(script):.2f} ({sorted(script)[middle]:.2f})", flush=True)
        finally:
            guest.close()
            machine.close()


if __name__ == "__main__":
    main()
