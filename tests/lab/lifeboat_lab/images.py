# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab's disk images, built from Debian packages and cached.

    images = ensure()                 # builds what is not there yet; a minute or two, once
    images.disk("gpt"), images.disk("mbr")    # a server's disk with Debian 12 on it, raw, never to be written
    images.kernel, images.initramfs, images.rescue      # the rescue system: kernel, its first files, its root (erofs)
    prepare(images.disk("gpt"), Path("web1.img"), {"/root/.ssh/authorized_keys": File(key)})  # a copy with own files

`python -m lifeboat_lab.images` does the same and says where they are.

It works as root and as an ordinary user who has sub-ids (/etc/subuid). What is on the disks is told in `recipe`.
"""

from __future__ import annotations

import concurrent.futures
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from . import cpio, grub, recipe
from .recipe import PATH, SUITE, LabError, run

__all__ = ["File", "Images", "LabError", "ensure", "prepare"]

KEPT_DAYS = 7  # of images that another state of the code made

# program: Debian package. /usr/sbin need not be in the PATH of the user.
PROGRAMS = {"mmdebstrap": "mmdebstrap", "newuidmap": "uidmap", "mke2fs": "e2fsprogs", "debugfs": "e2fsprogs",
            "mkfs.vfat": "dosfstools", "mcopy": "mtools", "mkfs.xfs": "xfsprogs", "mkfs.erofs": "erofs-utils",
            "sfdisk": "fdisk", "mkswap": "util-linux", "openssl": "openssl", "ssh-keygen": "openssh-client",
            "qemu-system-x86_64": "qemu-system-x86", "qemu-img": "qemu-utils", "setpriv": "util-linux"}


class File(NamedTuple):
    """A regular file of root for prepare()."""

    data: bytes
    mode: int = 0o644


class Images(NamedTuple):
    """Where the images are. All of them are for reading only."""

    directory: Path

    @property
    def kernel(self) -> Path:
        """The kernel of the rescue system."""
        return self.directory / "vmlinuz"

    @property
    def initramfs(self) -> Path:
        """What the rescue system starts from: finds and mounts `rescue`."""
        return self.directory / "initramfs"

    @property
    def rescue(self) -> Path:
        """The root of the rescue system (erofs)."""
        return self.directory / "rescue.erofs"

    @property
    def direct_kernel(self) -> Path:
        """The kernel of the installed system, for a boot without its boot loader."""
        return self.directory / "direct-vmlinuz"

    @property
    def direct_initramfs(self) -> Path:
        """What the installed system starts from then: mounts its root, and no more."""
        return self.directory / "direct-initramfs"

    def root_uuid(self, layout: str) -> str:
        """Return the UUID of an installed system's root file system."""
        return str(json.loads((self.directory / "images.json").read_text())["root_uuid"][layout])

    def disk(self, layout: str) -> Path:
        """Return a server's disk with an installed system; layout is gpt or mbr."""
        return self.directory / f"{layout}.img"

    @property
    def host_keys(self) -> tuple[str, ...]:
        """Public SSH host keys of the installed system (lines "type key comment")."""
        return tuple(json.loads((self.directory / "images.json").read_text())["host_keys"].values())


def ensure(say: Callable[[str], None] = lambda line: None) -> Images:
    """Return the images, built first where they are not in the cache. say is told what goes on.

    Raises LabError.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lifeboat.rescue" / "images"
    cache.mkdir(parents=True, exist_ok=True)
    wanted = cache / _recipe_hash()
    if not wanted.exists():
        with open(cache / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not wanted.exists():
                _forget_old(cache)
                _build(wanted, say)
    os.utime(wanted)  # for _forget_old
    return Images(wanted)


def prepare(disk: Path, copy: Path, files: Mapping[str, File]) -> Path:
    """Make a copy of a server's disk with files of one's own in its root file system; return the copy.

    A file that is there already is replaced. The directories must exist, but for `.ssh` directories.
    It takes less than a second, and no boot. Only for disks of this module.
    """
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", "--", str(disk), str(copy)], check=True)
    copy.chmod(0o600)
    meta = json.loads((disk.parent / "images.json").read_text())
    with tempfile.TemporaryDirectory() as scratch:
        script = []
        for number, (path, entry) in enumerate(files.items()):
            source = Path(scratch) / str(number)
            source.write_bytes(entry.data)
            parent = os.path.dirname(path)
            if os.path.basename(parent) == ".ssh":
                script += [f"mkdir {parent}", f"set_inode_field {parent} mode 040700"]
            script += [f"rm {path}", f"write {source} {path}",
                       f"set_inode_field {path} mode 0100{entry.mode:03o}",
                       f"set_inode_field {path} uid 0", f"set_inode_field {path} gid 0"]
        offset = meta["root_offset"][disk.stem]
        run("debugfs", "-w", "-f", "/dev/stdin", f"{copy}?offset={offset}", stdin="\n".join(script) + "\n")
        for path, entry in files.items():
            # debugfs ends 0 whatever happened, so look
            done = run("debugfs", "-R", f"stat {path}", f"{copy}?offset={offset}")
            if f"Size: {len(entry.data)}" not in done:
                raise LabError(f"{path} could not be written into {copy}: {done}")
    return copy


def _recipe_hash() -> str:
    """Return the name of the images that this code makes."""
    digest = hashlib.sha256()
    for path in [*(Path(module.__file__ or "") for module in (recipe, cpio, grub)), *sorted(recipe.FILES.rglob("*"))]:
        if path.is_file():
            digest.update(f"{path.name} {path.stat().st_mode & 0o100}\n".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _build(wanted: Path, say: Callable[[str], None]) -> None:
    missing = sorted({package for program, package in PROGRAMS.items() if not shutil.which(program, path=PATH)})
    missing += [] if Path("/usr/share/keyrings/debian-archive-keyring.gpg").exists() else ["debian-archive-keyring"]
    if missing:
        raise LabError(f"To build the images, install these packages: apt-get install {' '.join(missing)}")
    if os.geteuid() and not _has_subids():
        raise LabError("An ordinary user needs a range of sub-ids to build the images: "
                       "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER")
    started = time.monotonic()
    say(f"Building the images of the lab in {wanted.parent} (Debian {SUITE}, about two minutes, once)")
    scratch = Path(tempfile.mkdtemp(prefix=".build-", dir=wanted.parent))
    try:
        with concurrent.futures.ThreadPoolExecutor() as pool:
            trees = [pool.submit(recipe.bootstrap, scratch, "target", recipe.TARGET_PACKAGES, recipe.TARGET_SETUP),
                     pool.submit(recipe.bootstrap, scratch, "rescue", recipe.RESCUE_PACKAGES, recipe.RESCUE_SETUP,
                                 recipe.RESCUE_WITHOUT)]
            for tree in concurrent.futures.as_completed(trees):
                tree.result()
        say(f"Packages are installed ({time.monotonic() - started:.0f} s); making the disks")
        _as_root_of_a_namespace("--pack", scratch)
        (scratch / "done").rename(wanted)
    finally:
        _as_root_of_a_namespace("--remove", scratch)
    say(f"The images are built ({time.monotonic() - started:.0f} s): {wanted}")


def _forget_old(cache: Path) -> None:
    """Remove the images that nobody has used for days (each state of the recipe makes its own), and what a build left.

    Only for whoever has the lock.
    """
    for path in cache.iterdir():
        old = path.stat().st_mtime < time.time() - KEPT_DAYS * 86400
        if path.is_dir() and (old or path.name.startswith(".build-")):
            _as_root_of_a_namespace("--remove", path)


def _has_subids() -> bool:
    try:
        run("unshare", "--map-root-user", "--map-auto", "--", "true")
    except LabError:
        return False
    return True


def _as_root_of_a_namespace(*arguments: str | Path) -> None:
    """Run the recipe's second half as (something like) root, so that files of any owner can be made."""
    prefix = ["unshare", "--map-root-user", "--map-auto", "--"] if os.geteuid() else []
    run(*prefix, sys.executable, "-m", recipe.__name__, *arguments,
        env={"PYTHONPATH": str(Path(__file__).parent.parent)})


def main() -> None:
    """Build the images."""
    try:
        print(f"The images are in {ensure(lambda line: print(line, flush=True)).directory}")
    except LabError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
