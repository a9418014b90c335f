# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a disk, or a program that looks at one, may say: anything. No exception, an end, and nothing that leads out of the target."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.lifeboat.rescue.plugins.module_utils._errors import TargetError
from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue import _command, _kernel
from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue._storage import _devices, _fstab, _systems
from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue._storage._devices import Device, Devices

ROOT = Device("/dev/sda1", "8:1", "part", 1, on=["/dev/sda"], tag={"TYPE": "ext4", "UUID": "root", "PART_ENTRY_NUMBER": "1"})
LV = Device("/dev/mapper/lifeboatlook0-root", "253:0", "lvm", 1, on=["/dev/sda"], tag={"TYPE": "ext4"}, name="/dev/mapper/vg-root",
            layer="vg:1:/dev/sda", facts={"vg": "vg", "lv": "root"})
MD = Device("/dev/md900", "9:0", "raid1", 1, on=["/dev/sda"], tag={"TYPE": "btrfs"}, name="/dev/md/0", layer="md:1:/dev/sda",
            facts={"uuid": "1", "array": "h:0"})
RESCUE = Device("/dev/sdb", "8:16", "disk", 1, rescue="It is mounted at /.", tag={"TYPE": "ext4", "UUID": "rescue"})
DEVICES = Devices([Device("/dev/sda", "8:0", "disk", 1), ROOT, LV, MD, RESCUE])

WORDS = ["UUID=", "LABEL=", "PARTUUID=", "/dev/", "disk/by-id/", "md-uuid-", "dm-name-", "mapper/", "md0", "md/0", "sda", "sda1",
         "vg", "vg-root", "root", "rescue",
         "/", "..", "/..", "\\040", "\\134", "\\", "ext4", "btrfs", "subvol=", "subvolid=", ",", "=", " ", "\t", "\n", "\r",
         "#", "nofail", "bind", "\0", "\udcff", '"', "'", "swap", "none", ":", "$(reboot)", ";", "`", "ARRAY", "é", "-",
         "0", "99999999999999999999"]
texts = st.lists(st.sampled_from(WORDS) | st.text(max_size=5), max_size=60).map("".join)


def as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


@settings(max_examples=500, deadline=None)
@given(fstab=texts, crypttab=texts, mdadm=texts, subvolume=st.sampled_from([None, "@"]))
def test_any_fstab_crypttab_and_mdadm_conf(fstab, crypttab, mdadm, subvolume):
    encrypted, _cut = _fstab.parse_crypttab(as_bytes(crypttab))
    names = _fstab.Names(crypttab=encrypted, arrays=_fstab.parse_mdadm_conf(mdadm),
                         subvolumes={MD.path: {"@": 256}})
    for root in (ROOT, LV, MD):
        entries, _cut = _fstab.parse(as_bytes(fstab))
        _fstab.resolve(entries, root, DEVICES, names, subvolume)
        _fstab.resolve_crypttab(names, entries, root, DEVICES)
        for line in encrypted:
            json.dumps(line.as_result())
            assert line.status in (_fstab.RESOLVED, _fstab.SKIPPED, _fstab.UNRESOLVED) and (line.reason or line.status == _fstab.RESOLVED)
            assert line.device is None or not DEVICES.all[line.device].rescue
        for entry in entries:
            json.dumps(entry.as_result())
            assert entry.status in (_fstab.RESOLVED, _fstab.SKIPPED, _fstab.UNRESOLVED)
            assert entry.device is None or not DEVICES.all[entry.device].rescue
            if entry.status == _fstab.RESOLVED:
                assert entry.file.startswith("/") and ".." not in entry.file.split("/") and "\0" not in entry.file
                assert entry.subvolume in (None, 5, 256)


@settings(max_examples=500, deadline=None)
@given(path=st.text(min_size=1, max_size=40).filter(lambda text: "\0" not in text))
def test_escapes_come_back(path):
    """As addmntent(3) and the kernel write a name."""
    raw = as_bytes(f"/{path}")
    escaped = b"".join(b"\\%03o" % byte if bytes([byte]) in b"\\ \t\n#\r\v\f" else bytes([byte]) for byte in raw)
    entries, _cut = _fstab.parse(b"UUID=x " + escaped + b" ext4")
    assert entries[0].file.encode("utf-8", "surrogateescape") == raw
    assert _kernel.unescape(escaped).encode("utf-8", "surrogateescape") == raw


values = st.none() | st.booleans() | st.integers() | texts
nodes = st.deferred(lambda: values | st.lists(nodes, max_size=3) | st.dictionaries(
    st.sampled_from(["name", "maj:min", "type", "size", "ro", "serial", "children"]) | texts, nodes, max_size=8))
disks = st.recursive(
    st.fixed_dictionaries({"name": st.sampled_from(["/dev/sda", "/dev/sda1", "/dev/md0", "/dev/mapper/x", "/dev/loop0"]) | texts,
                           "maj:min": st.sampled_from(["8:0", "8:1", "9:0", "253:0"]) | values,
                           "type": st.sampled_from(["disk", "part", "lvm", "raid1", "crypt", "rom", "loop"]) | values, "size": values}),
    lambda children: st.fixed_dictionaries({"name": st.sampled_from(["/dev/sda", "/dev/sdb", "/dev/md0"]), "type": st.just("disk"),
                                            "size": st.just(1), "children": st.lists(children, max_size=4) | values}), max_leaves=12)


class Tools(_command.Runner):
    """lsblk, wipefs and blkid, out of their minds."""

    def __init__(self, tree, blkid, wipefs, code):
        super().__init__()
        self.said = {"lsblk": tree, "blkid": blkid, "wipefs": wipefs}
        self.code = code
        self.calls = 0

    def __call__(self, argv, **options):
        self.calls += 1
        return _command.Result(0 if argv[0] == "lsblk" else self.code, self.said[argv[0]], "")


class Quiet(_kernel.Kernel):
    """A kernel that knows of nothing."""

    def mounts(self):
        return []

    def swaps(self):
        return []

    def claimed(self, path):
        return False

    def holders(self, path):
        return []

    def links(self, kind):
        return {}

    def backing(self, path):
        return ""


paragraphs = st.lists(st.tuples(st.sampled_from(["DEVNAME", "TYPE", "UUID", "LABEL", "PART_ENTRY_NUMBER", "UUID_SUB", "PTTYPE"]) | texts,
                                st.sampled_from(["/dev/sda", "/dev/sda1", "/dev/md0", "btrfs", "ext4", "0x1f", "1", ""]) | texts),
                      max_size=20).map(lambda lines: "\n".join("" if not name else f"{name}={value}" for name, value in lines))


@settings(max_examples=400, deadline=None)
@given(tree=st.lists(disks | nodes, max_size=4) | nodes, blkid=paragraphs | texts, wipefs=texts, code=st.sampled_from([0, 1, 2, 8]))
def test_any_words_of_lsblk_and_blkid(tree, blkid, wipefs, code):
    tools = Tools(json.dumps({"blockdevices": tree}), blkid, wipefs, code)
    try:
        devices = _devices.discover(tools, Quiet(), (), _devices.Standing())
    except TargetError:
        return
    assert tools.calls <= 2 + len(devices.all)
    contents = {device.path: _systems.Content(root=True, fstab="/dev/sda1 / ext4\nUUID=x /x btrfs subvol=@\n") for device in devices}
    for system in _systems.judge(devices, contents):
        json.dumps(system.as_result())
        assert devices.below(system.root) == set()
