# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The zoo: images of servers' disks, each with what is to be found on it, and a judge of what is done to them.

    with Zoo(tmp_path) as zoo:                                  # a rescue machine, one for all
        with zoo.plugged("raid1-lvm") as there:                 # in seconds; what is written to it goes nowhere
            there.image.systems                                 # what is to be found, see describe
            there.guest.run("lsblk")                            # root's shell; or zoo.machine.address, zoo.guest.key
            assert there.left() == []                           # what is mounted or mapped now and was not before
        assert there.written() == {}                            # not one byte was written

What is there: `python -m disks --list`, and zoo.py. How it is made: build.py. What judges: verify.py.
"""

from .describe import Content, Disk, Image, Mount, Secret, System
from .guest import CommandError, Guest
from .session import There, Zoo
from .verify import File, Snapshot, all_files, altered, changed, listing, same, snapshot
from .zoo import IMAGES

__all__ = ["IMAGES", "CommandError", "Content", "Disk", "File", "Guest", "Image", "Mount", "Secret", "Snapshot", "System",
           "There", "Zoo", "all_files", "altered", "changed", "listing", "same", "snapshot"]
