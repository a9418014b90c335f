#!/usr/bin/python
# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: storage_mount
short_description: Mount an installed system, and unmount it cleanly
version_added: 0.1.0
author:
  - The lifeboat.rescue contributors (@lifeboat-rescue)
description:
  - Mounts the file systems of an installed system by its own C(fstab), and unmounts them. It runs in the rescue system.
  - What it lies on is started first, arrays, volume groups and encrypted containers, and stopped again in the end. What was
    running before is left running.
  - Every step is written to a journal in the rescue system's memory before it is taken, and undone in reverse. When the
    module is killed half-way, the next call, for mounting or unmounting, first undoes what was done.
  - What commands in the installed system need (C(/dev), C(/proc), C(/sys), C(/run), a C(resolv.conf) that resolves) is
    mounted in a mount namespace only, which P(lifeboat.rescue.chroot_ssh#connection) enters. Outside of it nothing is
    ever bound into the target. Its C(/run) is an empty one of its own, so that package scripts find neither the rescue
    system's services nor its C(systemd).
  - From mounting to unmounting the target belongs to one job, which is a run of C(ansible-playbook) or C(ansible). Another job
    is refused. A job whose process is gone from the same controller is taken over silently, as is one that has been idle for an
    hour while nothing runs in the target.
  - The target may belong to a server that was broken into. A mount point that is a link, that has C(..) in it or that
    leads out of the target is not used, options of C(fstab) are taken from a short list only, and device nodes on its
    file systems do nothing (C(nodev)).
requirements:
  - Python 3.8 or later, lsblk, blkid, blockdev, mount, umount, unshare, nsenter; mdadm, lvm, cryptsetup, dmsetup, btrfs for
    what they are for. Must be run as root.
extends_documentation_fragment:
  - lifeboat.rescue.attributes
  - lifeboat.rescue.storage
attributes:
  action:
    description: Has an action plugin of the same name, which tells the module whom it works for.
    support: full
  idempotent:
    description: When run twice in a row with the same arguments, the second run changes nothing and says so.
    support: full
options:
  state:
    description:
      - V(mounted) has the installed system mounted, complete, as the other options say. When it is mounted in another
        way, it is unmounted first.
      - V(unmounted) unmounts it and makes sure that all writes have reached the disks. Needs no other option but
        O(kill_processes).
    type: str
    choices: [mounted, unmounted]
    default: mounted
  path:
    description: Where to mount the root of the installed system. Directories that are missing are made, and removed
      again.
    type: str
    default: /mnt/target
  mode:
    description:
      - V(rw) mounts for reading and writing. File systems that were not unmounted cleanly get their journal replayed.
        Check mode says for which this will happen. File systems that C(fstab) has as read-only stay so, but the root.
      - V(ro) leaves every byte of the disks as it is. Journals are not replayed and the devices are set read-only,
        since even a file system that is mounted read-only may otherwise write. Arrays and volume groups that are not active
        are built on overlays that keep in memory what would be written. The files of a file system that was not
        unmounted cleanly may then look incomplete.
    type: str
    choices: [ro, rw]
    default: rw
  system:
    description:
      - Which installed system is meant, by its C(id) of M(lifeboat.rescue.storage_info) or by the device of its root
        file system.
      - Required where there are several. The error then lists them.
    type: str
  force:
    description:
      - Mount the installed system although C(/usr), C(/boot), C(/etc) or C(/var) is missing, which its C(fstab) says
        is on a file system of its own.
      - Other file systems that are missing are skipped, and listed in RV(left_out).
    type: bool
    default: false
  degraded:
    description: Start an array, or mount a btrfs, that the installed system needs although disks of it are missing.
    type: bool
    default: false
  partial:
    description: Activate a volume group that the installed system needs although disks of it are missing. Volumes that lie on
      these are left out.
    type: bool
    default: false
  take_over:
    description: Take the target over from another job, which is known to be dead.
    type: bool
    default: false
  owner:
    description: The job that this is done for. It is set by the action plugin, to user, controller and process.
    type: str
  gone:
    description: An owner that is known to be gone. It is set by the action plugin.
    type: str
  kill_processes:
    description:
      - Before unmounting, end the processes that use the target, first by asking them to end, then by force.
      - Without it, such processes are listed in the error, and nothing is unmounted.
    type: bool
    default: false
seealso:
  - module: lifeboat.rescue.storage_info
  - plugin: lifeboat.rescue.chroot_ssh
    plugin_type: connection
"""

EXAMPLES = r"""
# web1.rescue is a host from here on where the role enter_rescue has brought it up in the same run:
# ansible-playbook -i inventory lifeboat.rescue.enter this.yml -e rescue_hosts=web1 -e rescue_mount=false
- name: Look into the installed system
  hosts: web1.rescue
  gather_facts: false
  tasks:
    - name: Mount it for reading
      lifeboat.rescue.storage_mount:
        state: mounted
        mode: ro

    - name: Read its fstab
      ansible.builtin.command: cat /mnt/target/etc/fstab
      changed_when: false

    - name: Unmount it
      lifeboat.rescue.storage_mount:
        state: unmounted
        kill_processes: true
"""

RETURN = r"""
path:
  description: Where it is mounted.
  returned: when O(state=mounted)
  type: str
  sample: /mnt/target
read_only:
  description: Whether it is mounted for reading only.
  returned: when O(state=mounted)
  type: bool
system:
  description: The installed system, as M(lifeboat.rescue.storage_info) tells it.
  returned: when O(state=mounted)
  type: dict
mounts:
  description: What is mounted, each with C(source), C(target), C(fstype) and C(options), in the order of mounting.
  returned: when O(state=mounted)
  type: list
  elements: dict
left_out:
  description: What C(fstab) has and is not mounted, each with C(spec), C(file) and C(reason).
  returned: when O(state=mounted)
  type: list
  elements: dict
namespace:
  description: File of the mount namespace for commands in the target. Null in check mode.
  returned: when O(state=mounted)
  type: str
  sample: /run/lifeboat/target.ns
ssh_host_keys:
  description: Public SSH host keys of the installed system.
  returned: when O(state=mounted)
  type: list
  elements: str
notes:
  description: What is odd about it, in sentences.
  returned: when O(state=mounted)
  type: list
  elements: str
unmounted:
  description: What was unmounted, or would be, in order.
  returned: when O(state=unmounted)
  type: list
  elements: str
clean:
  description: Whether nothing of the target is mounted and all that was written to it is on the disks.
  returned: when O(state=unmounted)
  type: bool
failure:
  description: What failed (C(code), C(message)), what state the server is in (C(state)), what to do next (C(todo)),
    and C(details).
  returned: failure
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue import _entry
from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue._storage import _mounting


def main():
    # no_log: the keys are told apart from the rest in what it returns, but not safely in what it would write to syslog.
    module = AnsibleModule(
        no_log=True,
        argument_spec={
            "state": {"type": "str", "choices": ["mounted", "unmounted"], "default": "mounted"},
            "path": {"type": "str", "default": "/mnt/target"},
            "mode": {"type": "str", "choices": ["ro", "rw"], "default": "rw"},
            "system": {"type": "str"},
            "force": {"type": "bool", "default": False},
            "degraded": {"type": "bool", "default": False},
            "partial": {"type": "bool", "default": False},
            "kill_processes": {"type": "bool", "default": False},
            "take_over": {"type": "bool", "default": False},
            "owner": {"type": "str"},
            "gone": {"type": "str"},
            **_entry.ARGUMENTS,
        },
        supports_check_mode=True,
    )
    asked = module.params

    def work():
        storage = _mounting.Storage(keys=_entry.keys(asked["luks"]), degraded=asked["degraded"], partial=asked["partial"],
                                    owner=asked["owner"] or "", take_over=["*"] if asked["take_over"] else [asked["gone"] or ""])
        if asked["state"] == "mounted":
            return storage.mount(asked["path"], asked["mode"], asked["system"], asked["force"], module.check_mode)
        return storage.unmount(asked["kill_processes"], module.check_mode)

    _entry.answer(module, work)


if __name__ == "__main__":
    main()
