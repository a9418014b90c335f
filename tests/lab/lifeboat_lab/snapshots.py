# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Snapshots of machines that run: how they are kept, and what makes a server of its own of each copy.

A snapshot is the state of a whole machine in a file. It is made once for each shape of machine (memory, disks, slots), kept
in the cache beside the images, and resumed many times. An agent in the guest waits in it, at a virtio port: as soon as a
copy runs, it is sent what this server is (clock, keys, disks, …), makes it so, and ends. `machine` makes and resumes them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import cpio
from .images import KEPT_DAYS
from .recipe import LabError

# What both agents begin with.
PORT = r"""
import fcntl, glob, json, os, shutil, subprocess, sys, time

def text(path):
    with open(path) as file:
        return file.read()

def put(path, data, mode=None):
    os.makedirs(os.path.dirname(path), mode=0o700 if path.endswith(".ssh/authorized_keys") else 0o755, exist_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", errors="surrogateescape") as file:
        file.write(data)
    if mode is not None:
        os.chmod(path, mode)

[name] = [os.path.basename(path) for path in glob.glob("/sys/class/virtio-ports/*") if text(path + "/name").strip() == "lab"]
port = os.open("/dev/" + name, os.O_RDWR)

def ask():
    os.write(port, b"ready\n")
    # Here the machine is saved. What follows is done in each copy.
    said = b""
    while not said.endswith(b"\n"):
        said += os.read(port, 1 << 16)
    up = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    asked = json.loads(said)
    time.clock_settime(time.CLOCK_REALTIME, asked["time"])
    # what to add to what the template's clock says, to have the time since the reset
    asked["offset"] = int(asked["age"] * 1e9) - up
    # Not every kernel sees by itself that it is a copy: or all copies would have the same random numbers. RNDRESEEDCRNG.
    with open("/dev/urandom", "wb", buffering=0) as pool:
        pool.write(bytes.fromhex(asked["noise"]))
        fcntl.ioctl(pool, 0x5207)
    for path, mode, data in asked["files"]:
        put(path, data, mode)
    return asked

def say_done():
    os.write(port, b"done\n")
    os.close(port)
"""

# Runs in the installed system whose state is kept, as a service that is gone when it has ended.
RUNNING_AGENT = PORT + r"""
shutil.rmtree("/root/.ssh")  # the key that the lab came in by
os.unlink("/run/lab-agent.py")
os.sync()
asked = ask()
put("/run/lab-boot-id", asked["boot_id"] + "\n", 0o444)
subprocess.run(["mount", "--bind", "/run/lab-boot-id", "/proc/sys/kernel/random/boot_id"], check=True)
os.sync()  # so that a reset loses nothing of it
say_done()
"""
# Brings that agent (standard input) into it when all has started, and what is used first into its memory.
START_RUNNING_AGENT = """
systemctl is-system-running --wait >/dev/null
modprobe virtio_console
cat > /run/lab-agent.py
python3 -c 'import base64, json, subprocess, zipfile, zipimport'
nft list ruleset >/dev/null
systemd-run --quiet --collect --unit=lab-agent python3 /run/lab-agent.py
"""

# The job of the rescue system whose state is kept. Its server's disks are given back before, and taken after.
RESCUE_AGENT = "#!/usr/bin/python3\n" + PORT + r"""
DRIVER = "/sys/bus/virtio/drivers/virtio_blk/"
WRAPPED = "/usr/local/sbin/lab-boot"

# What sessions and tests run first, so that it is read already: a log-in, Python, what looks at disks.
def quiet(*argv):
    subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60)

before = set(os.listdir("/run"))
quiet("sh", "-c", '''
cd /run && mkdir lab-warm && cd lab-warm
ssh-keygen -q -t ed25519 -N "" -f key && ssh-keygen -q -t ed25519 -N "" -f host
/usr/sbin/sshd -p 222 -h /run/lab-warm/host -o AuthorizedKeysFile=/run/lab-warm/key.pub -o StrictModes=no -o PidFile=/run/lab-warm/pid
echo "[127.0.0.1]:222 $(cat host.pub)" > known_hosts
ssh -i key -p 222 -o StrictHostKeyChecking=yes -o UserKnownHostsFile=/run/lab-warm/known_hosts 127.0.0.1 "
    python3 -c 'import argparse, base64, ctypes, datetime, hashlib, io, json, locale, logging, platform, re, shlex, shutil, signal,
import socket, stat, struct, subprocess, syslog, tarfile, tempfile, threading, traceback, typing, zipfile, zipimport'
    lsblk --json; blkid; findmnt; losetup"
cat /sbin/lvm /sbin/dmsetup /sbin/mdadm /sbin/cryptsetup /sbin/nft /sbin/blockdev /sbin/wipefs /lib/x86_64-linux-gnu/libdevmapper*
kill $(cat pid)
''')
for name in set(os.listdir("/run")) - before:
    quiet("rm", "-r", "/run/" + name)

disks = [os.path.basename(os.path.realpath(path + "/device")) for path in sorted(glob.glob("/sys/block/vd*"))
         if not text(path + "/serial").startswith("rescue")]
for disk in disks:
    put(DRIVER + "unbind", disk)
shutil.copy2("/run/live/rootfs" + WRAPPED, WRAPPED)
quiet("udevadm", "settle")
# Nobody has read the kernel's own boot id: it makes one at the first question.
quiet("umount", "/proc/sys/kernel/random/boot_id")
os.unlink("/run/lab-boot-id")
os.unlink("/lab-job")

asked = ask()
if asked["password"]:
    lines = text("/etc/shadow").splitlines(True)
    put("/etc/shadow", "".join("root:" + asked["password"] + ":" + line.split(":", 2)[2] if line.startswith("root:") else line
                               for line in lines))
for disk in disks:
    put(DRIVER + "bind", disk)
if disks:
    quiet("udevadm", "settle", "--timeout=60")
for path in glob.glob("/run/*"):
    os.utime(path)
# Who logs in sees the time since the reset, in which the machine would have booted. Nanoseconds are never negative.
put("/usr/local/sbin/lab-sshd", SSHD % (2 * divmod(asked["offset"], 10**9)), 0o755)
if asked["job"]:
    put("/lab-job", asked["job"], 0o755)
say_done()
if asked["job"]:
    os.execv("/lab-job", ["/lab-job"])
"""

# lab-sshd of the resumed rescue system: as that of the one that boots, in a time namespace of its own. 272: unshare.
SSHD = r"""#!/bin/sh
if [ -f /etc/lab-ssh-delay ]; then
    sleep "$(cat /etc/lab-ssh-delay)"
    rm -f /etc/lab-ssh-delay
fi
exec perl -e '
syscall(272, 0x80) == 0 or die "unshare: $!";
open(my $offsets, ">", "/proc/self/timens_offsets") or die $!;
print $offsets "monotonic %d %d\nboottime %d %d\n";
close($offsets) or die $!;
exec "/usr/sbin/sshd", "-D";'
"""

# Before the rescue system's own lab-boot: what reads the boot id while it boots must not make the kernel fix it.
BOOT = """#!/bin/sh
PATH=/usr/sbin:/usr/bin:/sbin:/bin
echo 00000000-0000-4000-8000-000000000000 > /run/lab-boot-id
mount --bind /run/lab-boot-id /proc/sys/kernel/random/boot_id
exec /run/live/rootfs/usr/local/sbin/lab-boot
"""


def rescue_initrd(first: Path, initrd: Path) -> None:
    """Write the initrd of a rescue system whose agent waits to be saved, from that of all others."""
    agent = RESCUE_AGENT.replace("DRIVER =", f"SSHD = {SSHD!r}\nDRIVER =", 1)
    entries = [cpio.directory(f"lab{path}") for path in ("", "/root", "/root/usr", "/root/usr/local", "/root/usr/local/sbin")]
    entries += [cpio.file("lab/root/lab-job", agent.encode(), 0o755),
                cpio.file("lab/root/usr/local/sbin/lab-boot", BOOT.encode(), 0o755)]
    initrd.write_bytes(first.read_bytes() + cpio.archive(entries))


class Agent:
    """Our end of the agent's port."""

    def __init__(self, connection: socket.socket):
        self._connection = connection

    def wait_for(self, word: str, timeout: float) -> None:
        """Return when the agent has said the word. Raises LabError."""
        said = b""
        try:
            self._connection.settimeout(timeout)
            while not said.endswith(b"\n"):
                more = self._connection.recv(100)
                if not more:
                    raise LabError(f"The machine ended before its agent had said {word}.")
                said += more
        except OSError:
            raise LabError(f"The agent in the machine has not said {word} within {timeout:g} s.") from None
        if said.split()[-1].decode() != word:
            raise LabError(f"The agent in the machine said {said!r}, not {word}.")

    def tell(self, asked: dict[str, Any], timeout: float) -> None:
        """Send what this copy is to be; return when it is. Raises LabError."""
        try:
            self._connection.settimeout(timeout)
            self._connection.sendall(json.dumps(asked).encode() + b"\n")
        except OSError as error:
            raise LabError(f"The agent in the machine takes nothing: {error}") from None
        self.wait_for("done", timeout)

    def close(self) -> None:
        """End it."""
        self._connection.close()


def cache() -> Path:
    """Return the directory that has the snapshots."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lifeboat.rescue" / "snapshots"


def ensure(name: str, parts: Sequence[str], make: Callable[[Path], None]) -> Path:
    """Return the directory of a snapshot, made first where it is not in the cache. Raises LabError.

    parts: all that it depends on. make: fills a new directory, which is kept only when that has succeeded.
    """
    key = hashlib.sha256(json.dumps(list(parts)).encode() + Path(__file__).read_bytes()).hexdigest()[:16]
    place = cache() / f"{name}-{key}"
    if not place.exists():
        cache().mkdir(parents=True, exist_ok=True)
        with open(cache() / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not place.exists():
                _forget_old()
                scratch = Path(tempfile.mkdtemp(prefix=".build-", dir=cache()))
                try:
                    make(scratch)
                    scratch.rename(place)
                except BaseException:
                    shutil.rmtree(scratch, ignore_errors=True)
                    raise
    os.utime(place)  # for _forget_old
    return place


def _forget_old() -> None:
    """Remove what nobody has used for days, and what a build left. Only for whoever has the lock."""
    for path in cache().iterdir():
        if path.is_dir() and (path.name.startswith(".build-") or path.stat().st_mtime < time.time() - KEPT_DAYS * 86400):
            shutil.rmtree(path)
