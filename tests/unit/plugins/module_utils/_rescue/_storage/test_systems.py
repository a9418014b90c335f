# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which subvolume of a btrfs is the installed system: what it boots from, and none of what is kept beside that."""

from __future__ import annotations

import os

import pytest

from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue import _command
from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue._storage import _systems

UBUNTU = "UUID=x / btrfs defaults,subvol=@ 0 1\nUUID=x /home btrfs subvol=@home 0 2\n"
SUSE = "UUID=x / btrfs defaults 0 0\n"


class Btrfs(_command.Runner):
    """Answers as btrfs does. parts: (id, path, whether it has a parent)."""

    def __init__(self, parts, default=5):
        super().__init__()
        self.parts, self.default = parts, default

    def __call__(self, argv, **options):
        assert argv[:2] == ["btrfs", "subvolume"]
        if argv[2] == "get-default":
            return _command.Result(0, f"ID {self.default} {'(FS_TREE)' if self.default == 5 else 'gen 9 top level 5 path x'}\n", "")
        return _command.Result(0, "".join(f"ID {number} gen 9 top level 5 parent_uuid {'1-2' if parent else '-':36} path {path}\n"
                                          for number, path, parent in self.parts), "")


@pytest.mark.parametrize(("parts", "default", "roots", "expected"), [
    # As it is installed.
    ([(256, "@", False), (257, "@home", False), (258, "@snapshots/1/snapshot", True)], 5,
     {"@": UBUNTU, "@snapshots/1/snapshot": UBUNTU}, ["@"]),
    # Gone back to a snapshot: it has a parent, and what was moved away has none.
    ([(256, "timeshift-btrfs/snapshots/1/@", False), (260, "@", True)], 5,
     {"@": UBUNTU, "timeshift-btrfs/snapshots/1/@": UBUNTU}, ["@"]),
    # The same, under a name that nobody can guess.
    ([(256, "old", False), (260, "again", True)], 5,
     {"old": UBUNTU.replace("@ ", "again "), "again": UBUNTU.replace("@ ", "again ")}, ["again"]),
    # The same, and no fstab names one (the boot loader does): both are told, for somebody to choose.
    ([(256, "@old", False), (260, "@", True)], 5, {"@old": SUSE, "@": SUSE}, ["@old", "@"]),
    ([(260, "@", True)], 5, {"": SUSE, "@": SUSE}, ["", "@"]),
    # By both, where the number is that of what was there before.
    ([(256, "@old", False), (260, "@", True)], 5,
     {"@old": "UUID=x / btrfs subvol=/@,subvolid=256\n", "@": "UUID=x / btrfs subvolid=256,subvol=/@\n"}, ["@"]),
    # By its number.
    ([(256, "old", False), (260, "again", True)], 5, {"old": "UUID=x / btrfs subvolid=260\n", "again": "UUID=x / btrfs subvolid=260\n"},
     ["again"]),
    # And deleted since.
    ([(260, "@", True)], 5, {"@": UBUNTU}, ["@"]),
    # The fstab names one that is not there, or is no system: what there is, is the system.
    ([(256, "@new", False)], 5, {"@new": UBUNTU}, ["@new"]),
    ([(256, "@new", False), (257, "@", False)], 5, {"@new": UBUNTU}, ["@new"]),
    # openSUSE: a snapshot is the default, and fstab names none.
    ([(256, "@", False), (260, "@/.snapshots/1/snapshot", True), (261, "@/.snapshots/2/snapshot", True)], 260,
     {"@/.snapshots/1/snapshot": SUSE, "@/.snapshots/2/snapshot": SUSE}, ["@/.snapshots/1/snapshot"]),
    # Two systems on one.
    ([(256, "@one", False), (257, "@two", False)], 5, {"@one": UBUNTU.replace("@ ", "@one "), "@two": UBUNTU.replace("@ ", "@two ")},
     ["@one", "@two"]),
    # What an engine for containers keeps.
    ([(256, "@", False), (300, "@/var/lib/docker/btrfs/subvolumes/a1", False)], 5,
     {"@": UBUNTU, "@/var/lib/docker/btrfs/subvolumes/a1": "# UNCONFIGURED FSTAB FOR BASE SYSTEM\n"}, ["@"]),
    # The same where the root is at the top.
    ([(300, "var/lib/machines/a", False)], 5, {"": SUSE, "var/lib/machines/a": ""}, [""]),
    # The default one is booted unless the boot loader says otherwise, whatever the fstab that it was copied with says.
    ([(256, "one", False), (300, "two", True)], 300,
     {"one": "UUID=x / btrfs subvol=one\n", "two": "UUID=x / btrfs subvol=one\n"}, ["one", "two"]),
    # More than are read: what matters has the highest numbers.
    ([(256 + number, f"v/{number}", False) for number in range(1001)] + [(2000, "@", True)], 5, {"@": SUSE, "v/1": ""}, ["v/1", "@"]),
    ([(256 + number, f"v/{number}", False) for number in range(1001)] + [(2000, "d", True)], 2000, {"d": SUSE}, ["d"]),
    # Each says that it is the other: then nobody can tell.
    ([(256, "a", False), (257, "b", False)], 5, {"a": UBUNTU.replace("@ ", "b "), "b": UBUNTU.replace("@ ", "a ")}, ["a", "b"]),
    ([(256, "a", False), (257, "b", False), (258, "c", False)], 5,
     {"a": UBUNTU.replace("@ ", "b "), "b": UBUNTU.replace("@ ", "a "), "c": SUSE}, ["a", "b", "c"]),
], ids=["installed", "rolled back", "another name", "no name", "no name at the top", "both", "number", "deleted", "gone", "no system",
        "default", "two", "containers", "containers below the top", "default named away", "many", "many and a default", "each other",
        "each other and one more"])
def test_what_a_btrfs_boots_from(tmp_path, parts, default, roots, expected):
    for _number, path, _parent in parts:
        (tmp_path / path).mkdir(parents=True, exist_ok=True)
    for path, fstab in roots.items():
        root = tmp_path / path
        (root / "usr").mkdir(parents=True)
        (root / "etc").mkdir()
        (root / "etc/fstab").write_text(fstab)
    top = _systems.Content()
    _systems._try_to_read(str(tmp_path), top)
    top.subvolumes = _systems._subvolumes(Btrfs(parts, default), str(tmp_path), top)
    assert [part.path if part else "" for part, _content in _systems._roots(top)] == expected


def test_a_subvolume_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "etc").mkdir()
    os.symlink("/", tmp_path / "@")
    top = _systems.Content()
    parts = _systems._subvolumes(Btrfs([(256, "@", False)]), str(tmp_path), top)
    assert parts[0].content.root is False
