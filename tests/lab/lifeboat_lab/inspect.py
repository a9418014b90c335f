# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is on a server's disk, file by file, so that a test can tell what a session changed.

    before = inspect_disk(machine.boots[0].disks, workdir)
    after = inspect_disk(machine.disks, workdir)           # the machine must be off
    assert set(diff_manifests(before, after)) == {"/etc/shadow"}

The disk is read by a machine of its own, so that it needs no root, and any file system that the rescue system knows.
Nothing is written to it: the machine has a throwaway layer over it, into which a file system that was not unmounted
may replay its journal.
"""

from __future__ import annotations

import hashlib
import stat
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .images import Images, LabError
from .machine import Machine
from .server import Rescue

# Runs in the rescue system: one tar of all file systems onto the scratch disk, each below its UUID.
JOB = r"""#!/bin/sh
exec > /dev/console 2>&1
set -eu
trap 'poweroff -f' EXIT
for device in $(lsblk --noheadings --list --paths --output NAME); do
    eval "$(blkid --output export "$device" | grep -E '^(TYPE|UUID)=' || true)"
    case "${TYPE-}" in
        ext2 | ext3 | ext4 | xfs | vfat | btrfs)
            mkdir -p "/mnt/$UUID"
            mount -o ro "$device" "/mnt/$UUID"
            ;;
    esac
    unset TYPE UUID
done
tar --create --format=pax --xattrs --xattrs-include='*' --numeric-owner \
    --file /dev/disk/by-id/virtio-scratch --directory /mnt .
sync
echo 'lab: inspected'
"""


class Entry(NamedTuple):
    """One file: kind (file, dir, link, char, block, fifo), permission bits, owner, and what is in it.

    digest is the sha256 of a file's content, a link's target, a device's numbers, or empty. xattrs: name to value.
    """

    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    digest: str
    xattrs: dict[str, str]


KINDS = {tarfile.REGTYPE: "file", tarfile.AREGTYPE: "file", tarfile.DIRTYPE: "dir", tarfile.SYMTYPE: "link",
         tarfile.CHRTYPE: "char", tarfile.BLKTYPE: "block", tarfile.FIFOTYPE: "fifo"}


def inspect_disk(disks: Sequence[Path] | Path, workdir: Path, images: Images | None = None,
                 timeout: float = 180) -> dict[str, Entry]:
    """Return what is on the disks of one server: path in the installed system to Entry.

    What its /etc/fstab mounts stands where it mounts it, other file systems at UUID=<uuid>/path.
    Times of files are not looked at; sockets are left out. Raises LabError.
    """
    disks = [disks] if isinstance(disks, Path) else list(disks)
    workdir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=workdir, prefix="inspect-") as scratch:
        archive = Path(scratch) / "archive.tar"
        with archive.open("wb") as file:
            file.truncate(16 << 30)  # a hole
        with Machine("inspect", disks, Path(scratch) / "machine", scratch=archive, images=images, resumes=True) as machine:
            machine.power_on(Rescue(job=JOB))
            console = machine.wait_for_boot(1, timeout).console
            machine.wait_for_off(timeout)
        said = console.read_text(errors="replace")
        if "lab: inspected" not in said:
            raise LabError(f"The disk could not be inspected: {said[-2000:]}")
        with tarfile.open(archive, "r:") as tar:
            return _manifest(tar)


def _manifest(tar: tarfile.TarFile) -> dict[str, Entry]:
    found: dict[tuple[str, str], Entry] = {}
    fstabs = {}
    for member in tar:
        system, _slash, path = member.name.removeprefix("./").partition("/")
        if not system or system == ".":
            continue
        path = f"/{path}"
        if member.islnk():  # one more name of a file that came before
            other, _slash, first = member.linkname.removeprefix("./").partition("/")
            found[system, path] = found[other, f"/{first}"]
            continue
        digest = member.linkname
        if member.isfile():
            content = tar.extractfile(member)
            assert content is not None
            data = content.read()
            digest = hashlib.sha256(data).hexdigest()
            if path == "/etc/fstab":
                fstabs[system] = data.decode(errors="replace")
        elif member.ischr() or member.isblk():
            digest = f"{member.devmajor}:{member.devminor}"
        xattrs = {name.removeprefix("SCHILY.xattr."): value for name, value in member.pax_headers.items()
                  if name.startswith("SCHILY.xattr.")}
        found[system, path] = Entry(KINDS[member.type], stat.S_IMODE(member.mode), member.uid, member.gid,
                                    member.size, digest, xattrs)
    mounts = {}
    for text in fstabs.values():
        for line in text.splitlines():
            what, _space, rest = line.strip().partition(" ")
            if what.startswith("UUID=") and rest.lstrip().startswith("/"):
                mounts[what.removeprefix("UUID=")] = rest.split()[0].rstrip("/")
    manifest = {}
    # the deepest mount point last: it hides the directory that it is mounted on
    for (system, path), entry in sorted(found.items(), key=lambda item: len(mounts.get(item[0][0], ""))):
        prefix = mounts.get(system, f"UUID={system}")
        manifest[(prefix + path).rstrip("/") or "/"] = entry
    return manifest


def diff_manifests(before: dict[str, Entry], after: dict[str, Entry]) -> dict[str, tuple[Entry | None, Entry | None]]:
    """Return what differs: path to (before, after), with None where there was or is no such file."""
    return {path: (before.get(path), after.get(path)) for path in sorted(before.keys() | after.keys())
            if before.get(path) != after.get(path)}
