#!/usr/bin/python
# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: storage_info
short_description: Find disks, file systems and installed systems
version_added: 0.1.0
author:
  - The lifeboat.rescue contributors (@lifeboat-rescue)
description:
  - Tells which disks and file systems a server has, and which installed systems are on them. It runs in the rescue
    system.
  - Installed systems are found by what is on the file systems, never by their names or order. Their C(fstab) is
    resolved line by line against what is really there.
  - Nothing is changed. File systems are read in a mount namespace of the module's own, without a replay of their
    journals, over read-only loop devices, so that not one byte on the disks changes.
  - Disks that the rescue system itself uses are listed, and marked, and not read.
  - Arrays, volume groups and encrypted containers that are not active are built for the moment that it takes to look, on
    overlays that keep in memory what would be written, and are gone afterwards.
requirements:
  - Python 3.8 or later, lsblk, blkid, mount; mdadm, lvm, cryptsetup, dmsetup, btrfs for what they are for. With debugfs
    it is faster. Must be run as root.
extends_documentation_fragment:
  - lifeboat.rescue.attributes
  - lifeboat.rescue.storage
attributes:
  diff_mode:
    description: This module changes nothing.
    support: none
  idempotent:
    description: This module changes nothing.
    support: full
notes:
  - Snapshots, of LVM and of btrfs, are not taken for systems. Of a btrfs, what is booted is the subvolume that the system's
    own C(fstab) names for C(/), or else the default one, whatever it was made from.
  - ZFS pools are listed with the reason why they are not read. A BSD on UFS and a Windows are recognised, and cannot be
    mounted.
seealso:
  - module: lifeboat.rescue.storage_mount
"""

EXAMPLES = r"""
# web1.rescue is a host from here on where the role enter_rescue has brought it up in the same run:
# ansible-playbook -i inventory lifeboat.rescue.enter this.yml -e rescue_hosts=web1
- name: See what is on the disks
  hosts: web1.rescue
  gather_facts: false
  tasks:
    - name: Find the installed systems
      lifeboat.rescue.storage_info:
      register: storage

    - name: Show them
      ansible.builtin.debug:
        msg: "{{ storage.systems }}"

- name: See what is in an encrypted container, too
  hosts: web1.rescue
  gather_facts: false
  vars:
    web1_disk_passphrase: "{{ lookup('ansible.builtin.env', 'WEB1_DISK_PASSPHRASE') }}"
  tasks:
    - name: Find the installed systems
      lifeboat.rescue.storage_info:
        luks:
          - passphrase: "{{ web1_disk_passphrase }}"
      register: opened
      when: web1_disk_passphrase | length > 0

    - name: Show the containers
      ansible.builtin.debug:
        msg: "{{ opened.containers | default('WEB1_DISK_PASSPHRASE is not set.') }}"
"""

RETURN = r"""
disks:
  description: The disks, and other block devices that lie on no other.
  returned: success
  type: list
  elements: dict
  contains:
    device:
      description: Path in the rescue system.
      type: str
      sample: /dev/sda
    kind:
      description: Its type, as C(lsblk) says.
      type: str
      sample: disk
    size:
      description: Bytes.
      type: int
    read_only:
      description: Whether it can be written to.
      type: bool
    model:
      description: As it says of itself.
      type: str
    serial:
      description: As it says of itself.
      type: str
    wwn:
      description: World wide name.
      type: str
    transport:
      description: How it is connected.
      type: str
      sample: nvme
    by_id:
      description: Its names in C(/dev/disk/by-id).
      type: list
      elements: str
    table:
      description: Type of its partition table, C(gpt) or C(dos).
      type: str
    partitions:
      description: Paths of its partitions.
      type: list
      elements: str
    rescue:
      description: Whether the rescue system uses it. Nothing on such a disk is ever read or mounted.
      type: bool
    reason:
      description: How that was seen.
      type: str
filesystems:
  description: What is recognised on disks and partitions, also when it is not supported.
  returned: success
  type: list
  elements: dict
  contains:
    device:
      description: Path in the rescue system.
      type: str
    "on":
      description: Devices that it lies on (its disk, the members of its array, its volume group's physical volumes).
      type: list
      elements: str
    disk:
      description: Path of the disk that it is on; the first one, where there are several.
      type: str
    kind:
      description: Type of the device, as C(lsblk) says.
      type: str
      sample: lvm
    subvolumes:
      description: Of a btrfs, its subvolumes, each with its C(id), its C(path) from the top of the file system, whether it
        is a C(snapshot) and whether it is the C(default).
      type: list
      elements: dict
    size:
      description: Bytes.
      type: int
    type:
      description: As C(blkid) says, for example C(ext4), C(swap) or C(LVM2_member).
      type: str
    uuid:
      description: UUID of the file system.
      type: str
    label:
      description: Label of the file system.
      type: str
    partuuid:
      description: UUID of the partition.
      type: str
    partlabel:
      description: Name of the partition.
      type: str
    by_id:
      description: Its names in C(/dev/disk/by-id).
      type: list
      elements: str
    mounted:
      description: Where it is mounted.
      type: str
    rescue:
      description: Whether it is on a disk that the rescue system uses.
      type: bool
    supported:
      description: Whether this collection knows how to mount it.
      type: bool
    needs_replay:
      description: Whether its journal will be replayed when it is mounted for writing. Null where that is not known.
      type: bool
    dirty:
      description: Whether it was not unmounted cleanly, or has errors recorded. Null where that is not known.
      type: bool
    reason:
      description: Why it was not read. Of an ext2, ext3 or ext4 that no C(fstab) has, only the names in its top directory may
        have been read, where none of them is one of a system.
      type: str
arrays:
  description: The md arrays.
  returned: success
  type: list
  elements: dict
  contains:
    device:
      description: Its path, or what that would be.
      type: str
      sample: /dev/md/0
    uuid:
      description: As C(blkid) tells it for the members.
      type: str
    name:
      description: As its members have it.
      type: str
    level:
      description: As the kernel says.
      type: str
      sample: raid1
    metadata:
      description: Version of its metadata.
      type: str
      sample: "1.2"
    members:
      description: Those that are there.
      type: list
      elements: str
    raid_disks:
      description: How many it should have.
      type: int
    degraded:
      description: How many it lacks.
      type: int
volumes:
  description: The logical volumes of LVM that could be activated.
  returned: success
  type: list
  elements: dict
  contains:
    device:
      description: Its path, or what that would be.
      type: str
      sample: /dev/mapper/vg0-root
    group:
      description: Name of its volume group.
      type: str
    group_uuid:
      description: UUID of its volume group, as two of them may have the same name.
      type: str
    name:
      description: Its name.
      type: str
    layout:
      description: As C(lvs) says.
      type: str
      sample: thin,sparse
    snapshot:
      description: Whether it is a snapshot.
      type: bool
    missing:
      description: How many disks its volume group lacks.
      type: int
containers:
  description: The encrypted containers (LUKS).
  returned: success
  type: list
  elements: dict
  contains:
    device:
      description: Its path.
      type: str
    uuid:
      description: Its UUID.
      type: str
    version:
      description: Of LUKS.
      type: str
      sample: "2"
    open:
      description: Whether it could be looked into.
      type: bool
    key:
      description: Which key of O(luks) opened it. Null where it was open already, or is locked.
      type: str
      sample: passphrase
systems:
  description: The installed systems.
  returned: success
  type: list
  elements: dict
  contains:
    id:
      description: What to give to M(lifeboat.rescue.storage_mount) as its
        O(lifeboat.rescue.storage_mount#module:system). The UUID of the root file system, or else of its partition,
        where it is the only one with it. Else the device.
      type: str
    root:
      description: Device of its root file system.
      type: str
    uuid:
      description: UUID of its root file system.
      type: str
    subvolume:
      description: Of a btrfs, the path of its subvolume from the top of the file system.
      type: str
    mountable:
      description: Whether M(lifeboat.rescue.storage_mount) can mount it.
      type: bool
    label:
      description: Label of its root file system.
      type: str
    os:
      description: From its C(os-release), the keys C(id), C(id_like), C(name), C(version), C(version_id),
        C(pretty_name) as far as they are there. C(family) is C(debian), C(redhat), C(suse), C(arch), C(alpine) or
        C(gentoo), C(windows), C(bsd), or not there.
      type: dict
    hostname:
      description: From its C(/etc/hostname).
      type: str
    arch:
      description: What its programs are made for, as C(uname -m) says.
      type: str
      sample: x86_64
    boot_mode:
      description: What its boot loader is made for, as far as the evidence agrees.
      type: str
      sample: bios
    kernels:
      description: Kernels, each with its C(version) and whether there is an C(initramfs) for it.
      type: list
      elements: dict
    fstab:
      description: The lines of its C(fstab), each with C(line), C(spec), C(file), C(vfstype), C(options) and what was
        made of it. The C(device) that is meant and the C(uuid) of what is on it, the C(status) C(resolved), C(skipped)
        or C(unresolved), and the C(reason).
      type: list
      elements: dict
    crypttab:
      description: The lines of its C(crypttab), each with C(line), C(name), C(spec), C(options) and what was made of it. The
        C(device) that is meant and its C(uuid), the C(status) C(resolved), C(skipped) or C(unresolved), and the C(reason).
      type: list
      elements: dict
    ssh_host_keys:
      description: Its public SSH host keys.
      type: list
      elements: str
    notes:
      description: What is odd about it.
      type: list
      elements: str
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
    module = AnsibleModule(argument_spec=_entry.ARGUMENTS, supports_check_mode=True, no_log=True)
    _entry.answer(module, lambda: {"changed": False, **_mounting.Storage(keys=_entry.keys(module.params["luks"])).info()})


if __name__ == "__main__":
    main()
