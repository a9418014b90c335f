# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Systems as directory trees, which boxes run. Made once, beside the images in the cache.

    tree = ensure_tree("bookworm")         # the installed system of the images; "rescue": their rescue system
    tree = ensure_tree("trixie")           # a small Debian 13, whose sshd is OpenSSH 10: a minute, once

Kernels and modules are left out. The programs that shut a system down ask process 1 of the box for it; what is there of systemd
cannot, for it does not run.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from . import recipe
from .images import Images, ensure
from .recipe import run

IMAGE_TREES = ("bookworm", "rescue")
# Debian suite: what is installed beside the essential packages.
SUITES = {"trixie": ["iproute2", "openssh-server", "procps", "python3", "sudo"]}
# In place of systemctl, shutdown, reboot, poweroff and halt. The signals are those of `boxed`.
SHUTDOWN = """\
#!/bin/sh
# Asks process 1 of this box to reboot or to end.
name=${0##*/}
case $name in
systemctl)
    for word in "$@"; do
        case $word in
        reboot | poweroff | halt) name=$word ;;
        -*) ;;
        *) break ;;
        esac
    done
    [ "$name" != systemctl ] || exec /usr/lib/systemctl-of-systemd "$@"
    ;;
shutdown)
    name=poweroff
    for word in "$@"; do
        case $word in
        -r | --reboot) name=reboot ;;
        -c) exit 0 ;;
        esac
    done
    ;;
esac
[ "$name" != reboot ] || { kill -s TERM 1; exit; }
kill -s USR2 1
"""
TRIXIE_SETUP = """
echo installed > /etc/hostname
printf '127.0.0.1 localhost\\n127.0.1.1 installed\\n' > /etc/hosts
echo 'PermitRootLogin yes' > /etc/ssh/sshd_config.d/lab.conf
{ printf root:; head -c 32 /dev/urandom | base64 -w 0; } | chpasswd
useradd --create-home --shell /bin/bash --groups sudo admin
echo 'admin ALL=(ALL:ALL) NOPASSWD: ALL' > /etc/sudoers.d/admin
chmod 0440 /etc/sudoers.d/admin
rm -rf /var/cache/apt/*.bin /var/log/*.log /var/log/apt/*
"""


class Tree(NamedTuple):
    """A system. For reading only."""

    directory: Path

    @property
    def root(self) -> Path:
        """Its root directory. Where an ordinary user made it, its files belong to the user's sub-ids."""
        return self.directory / "root"

    @property
    def host_keys(self) -> tuple[str, ...]:
        """Its public SSH host keys (lines "type key comment"); none for the rescue system, which gets new ones at each boot."""
        return tuple(json.loads((self.directory / "host_keys.json").read_text()))


def ensure_tree(name: str, images: Images | None = None, say: Callable[[str], None] = lambda line: None) -> Tree:
    """Return the tree of that name, made first where it is not in the cache. say is told what goes on. Raises LabError."""
    if name not in (*IMAGE_TREES, *SUITES):
        raise ValueError(name)
    images = images or ensure(say)
    cache = images.directory.parent
    origin = images.directory.name if name in IMAGE_TREES else ""
    digest = hashlib.sha256(origin.encode() + Path(__file__).read_bytes()).hexdigest()[:16]
    wanted = cache / f"tree-{name}-{digest}"
    if not wanted.exists():
        with open(cache / "lock-trees", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not wanted.exists():
                say(f"Making the tree {name} for boxes in {cache} (once)")
                _make(name, images, wanted)
    os.utime(wanted)  # for `images`, which forgets what nobody has used for days
    return Tree(wanted)


def in_namespace(*argv: str | Path) -> str:
    """Run a program as (something like) root, to whom files may be given away. Return what it printed. Raises LabError."""
    return run(*namespace_prefix(), *argv, env={"PYTHONPATH": str(Path(__file__).parent.parent)})


def namespace_prefix() -> list[str]:
    """Words to put before a command that needs files of many owners, for whoever runs this."""
    return ["unshare", "--map-root-user", "--map-auto", "--"] if os.geteuid() else []


def _make(name: str, images: Images, wanted: Path) -> None:
    scratch = Path(tempfile.mkdtemp(prefix=".tree-", dir=wanted.parent))
    try:
        if name in SUITES:
            _bootstrap(name, scratch / "tree.tar")
        in_namespace(sys.executable, "-m", "lifeboat_lab.trees", "--unpack", name, images.directory, scratch)
        (scratch / "done").rename(wanted)
    finally:
        in_namespace(sys.executable, "-m", recipe.__name__, "--remove", scratch)


def _bootstrap(suite: str, tar: Path) -> None:
    """Make a tar file of a small Debian, from the mirrors of this host."""
    listed = run("apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(COMPONENT)", "Created-By: Packages",
                 "Origin: Debian")
    lines = set()
    for line in listed.splitlines():
        uri, codename, component = line.split()
        if component == "main" and not codename.endswith("-backports"):
            lines.add(f"deb {uri} {re.sub('^[a-z]+', suite, codename)} main")
    recipe.mmdebstrap(
        tar.parent, "--variant=apt", "--dpkgopt=force-unsafe-io",
        "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*", f"--include={','.join(SUITES[suite])}",
        f'--customize-hook=chroot "$1" sh -euc {shlex.quote(TRIXIE_SETUP)}', suite, tar, *sorted(lines))


# ------------------------------------------------------------------------------------------------ as root of the namespace


def _unpack(name: str, images: Path, scratch: Path) -> None:
    """Make the tree in scratch/done."""
    root = scratch / "done/root"
    root.mkdir(parents=True)
    if name == "rescue":
        run("fsck.erofs", f"--extract={root}", "--force", images / "rescue.erofs")
    elif name == "bookworm":
        offset = json.loads((images / "images.json").read_text())["root_offset"]["gpt"]
        _unpack_ext4(f"{images / 'gpt.img'}?offset={offset}", root)
    else:
        run("tar", "--extract", "--xattrs", "--xattrs-include=*", "--numeric-owner", "--same-permissions", "--file",
            scratch / "tree.tar", "--directory", root)
        (root / "dev").mkdir(exist_ok=True)
        (root / "etc/machine-id").write_text(f"{os.urandom(16).hex()}\n")
    for path in [*(root / "usr/lib/modules").glob("*"), *(root / "boot").iterdir(), root / "lost+found"]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for place in ("etc/hostname", "etc/resolv.conf"):
        (root / place).touch()
        (root / place).chmod(0o644)
    _replace_shutdown(root)
    keys = [path.read_text().strip() for path in sorted((root / "etc/ssh").glob("ssh_host_*_key.pub"))]
    (scratch / "done/host_keys.json").write_text(json.dumps(keys) + "\n")
    scratch.chmod(0o755)


def _unpack_ext4(device: str, root: Path) -> None:
    """Copy a file system of images. debugfs copies owners and permissions, but not the sticky, set-user-id and set-group-id bits."""
    run("debugfs", "-R", f"rdump / {root}", device)
    directories = [path for path in [root, *root.rglob("*")] if path.is_dir() and not path.is_symlink()]
    script = "".join(f'ls -p "/{path.relative_to(root)}"\n' for path in directories)
    answers = run("debugfs", "-f", "/dev/stdin", device, stdin=script)
    here = iter(directories)
    directory = root
    for line in answers.splitlines():
        if line.startswith("debugfs: ls"):
            directory = next(here)
            continue
        words = line.split("/")  # /inode/mode/uid/gid/name/size/
        if len(words) == 8 and words[5] not in ("", ".", ".."):
            mode = int(words[2], 8)
            if mode & 0o7000 and mode & 0o170000 != 0o120000:
                (directory / words[5]).chmod(mode & 0o7777)


def _replace_shutdown(root: Path) -> None:
    systemctl = root / "usr/bin/systemctl"
    names = ["usr/sbin/shutdown", "usr/sbin/reboot", "usr/sbin/poweroff", "usr/sbin/halt"]
    if systemctl.exists():
        systemctl.rename(root / "usr/lib/systemctl-of-systemd")
        names.append("usr/bin/systemctl")
    for name in names:
        # /sbin and /bin may be directories of their own
        path = (root / name) if (root / "sbin").is_symlink() else (root / name.removeprefix("usr/"))
        path.unlink(missing_ok=True)
        path.write_text(SHUTDOWN)
        path.chmod(0o755)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Makes the trees of boxes.")
    parser.add_argument("--unpack", nargs=3, metavar=("NAME", "IMAGES", "SCRATCH"), help="the second half, for root of a namespace")
    arguments = parser.parse_args()
    if arguments.unpack:
        _unpack(arguments.unpack[0], Path(arguments.unpack[1]), Path(arguments.unpack[2]))
    else:
        for each in (*IMAGE_TREES, *SUITES):
            print(ensure_tree(each, say=print).root)
