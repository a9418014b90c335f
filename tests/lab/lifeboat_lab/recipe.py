# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the lab's images are made of, and how. Private to `images`, which keeps what comes of it.

First mmdebstrap makes two trees as tar files (bootstrap); then this module runs as root of a user namespace, so that
the owners in the trees are right, and packs them: `python -m lifeboat_lab.recipe --pack DIRECTORY`. No mount, no loop
device, nothing of the host is touched.

The disks (partition numbers are those of the server):

| disk | 1 | 2 | 3 | 4 | 5 |
|---|---|---|---|---|---|
| gpt | BIOS boot | ESP, vfat, /boot/efi | ext4, / | xfs, /srv | |
| mbr | ext4, /boot | swap | extended | | ext4, / (logical) |

A change of this file, of `cpio`, of `grub` or of files/ makes new images.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import io
import json
import lzma
import os
import shlex
import shutil
import struct
import subprocess
import tarfile
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from . import cpio, grub

SUITE = "bookworm"
FILES = Path(__file__).parent / "files"
MIB = 1024 * 1024
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

TARGET_PACKAGES = ["dbus", "dosfstools", "grub-pc", "initramfs-tools", "iproute2", "iptables",
                   "linux-image-cloud-amd64", "lz4", "nftables", "openssh-server", "procps", "python3", "sudo",
                   "systemd-sysv", "udev", "xfsprogs"]
# The full kernel: the one for clouds, which is enough for the installed systems, has no f2fs, jfs or ufs.
# tang: for a server of keys that a test starts beside clevis.
RESCUE_PACKAGES = ["attr", "btrfs-progs", "busybox-static", "clevis-luks", "cryptsetup-bin", "dosfstools", "e2fsprogs",
                   "f2fs-tools", "fdisk", "gdisk", "iproute2", "iptables", "kmod", "linux-image-amd64", "lvm2", "mdadm",
                   "nftables", "ntfs-3g", "openssh-server", "parted", "procps", "python3", "rsync", "sysvinit-core",
                   "tang", "thin-provisioning-tools", "udev", "xfsprogs"]
# What no server's storage needs, three quarters of the modules.
RESCUE_WITHOUT = [f"/lib/modules/*/kernel/{path}/*" for path in (
    "drivers/accessibility", "drivers/bluetooth", "drivers/comedi", "drivers/edac", "drivers/gpu", "drivers/hwmon",
    "drivers/iio", "drivers/infiniband", "drivers/isdn", "drivers/leds", "drivers/media", "drivers/mtd",
    "drivers/net/can", "drivers/net/ethernet", "drivers/net/wireless", "drivers/staging", "drivers/video",
    "net/bluetooth", "net/mac80211", "net/wireless", "sound")]

# Runs in the tree. The root password is one that nobody knows, the administrator has none.
TARGET_SETUP = """
echo installed > /etc/hostname
printf '127.0.0.1 localhost\\n127.0.1.1 installed\\n' > /etc/hosts
echo nameserver 10.0.2.3 > /etc/resolv.conf
{ printf root:; head -c 32 /dev/urandom | base64 -w 0; } | chpasswd
useradd --create-home --shell /bin/bash --groups sudo admin
chmod 0440 /etc/sudoers.d/admin
systemctl enable systemd-networkd.service nftables.service
# what would run at some time of its own, and what only makes the boot longer
systemctl mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
    fstrim.timer systemd-tmpfiles-clean.timer systemd-networkd-wait-online.service systemd-binfmt.service \
    proc-sys-fs-binfmt_misc.automount dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount \
    sys-kernel-tracing.mount sys-fs-fuse-connections.mount modprobe@drm.service modprobe@efi_pstore.service \
    modprobe@fuse.service modprobe@loop.service modprobe@dm_mod.service systemd-pstore.service \
    systemd-update-utmp-runlevel.service getty@tty1.service serial-getty@ttyS0.service
update-initramfs -c -k all
install -d /boot/efi /boot/grub/i386-pc
cd /usr/lib/grub/i386-pc
cp -- *.mod *.lst boot.img /boot/grub/i386-pc/
rm -rf /var/cache/apt/*.bin /var/log/*.log /var/log/apt/*
"""
RESCUE_SETUP = """
echo rescue-customer-eu > /etc/hostname
printf '127.0.0.1 localhost\\n127.0.1.1 rescue-customer-eu\\n' > /etc/hosts
echo nameserver 10.0.2.3 > /etc/resolv.conf
: > /root/.bashrc
rm -f /etc/ssh/ssh_host_*
rm -rf /var/cache/apt/*.bin /var/log/*.log /var/log/apt/*
"""

FSTAB = {
    "gpt": "UUID={root} / ext4 errors=remount-ro 0 1\n"
           "UUID={esp} /boot/efi vfat umask=0077 0 0\n"
           "UUID={srv} /srv xfs defaults 0 0\n",
    "mbr": "UUID={root} / ext4 errors=remount-ro 0 1\n"
           "UUID={boot} /boot ext4 defaults 0 2\n"
           "UUID={swap} none swap sw 0 0\n",
}
PARAMETERS = "ro console=ttyS0 mitigations=off cryptomgr.notests quiet"
# As update-grub writes it, without the ornaments.
GRUB_CFG = """\
set default=0
set timeout=0
menuentry 'Debian GNU/Linux' --class debian --class gnu-linux --class gnu --class os {{
\tinsmod part_{table}
\tinsmod ext2
\tsearch --no-floppy --fs-uuid --set=root {boot_uuid}
\tlinux\t{prefix}/vmlinuz-{release} root=UUID={root_uuid} {parameters}
\tinitrd\t{prefix}/initrd.img-{release}
}}
"""
# The modules that the rescue system needs before it has its root, on any of the buses.
EARLY_MODULES = ["virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod", "nvme", "erofs", "overlay"]
# And the installed system, where it boots without its boot loader.
DIRECT_MODULES = ["virtio_pci", "virtio_blk", "ext4"]


class LabError(Exception):
    """The lab cannot be built or run; the text says why."""


def run(*argv: str | Path, stdin: str = "", env: Mapping[str, str] | None = None) -> str:
    """Run a program; return what it printed. Raises LabError."""
    done = subprocess.run([str(part) for part in argv], input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors="replace", check=False,
                          env={**os.environ, "PATH": PATH, "LC_ALL": "C", **(env or {})})
    if done.returncode:
        raise LabError(f"{argv[0]} failed ({done.returncode}):\n{done.stdout[-4000:]}")
    return done.stdout


def _mirrors() -> list[str]:
    """Return the sources.list lines for Debian that the apt of this host uses; none when it is no Debian."""
    listed = run("apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(COMPONENT)",
                 "Created-By: Packages", "Origin: Debian")
    lines = []
    for line in listed.splitlines():
        uri, codename, component = line.split()
        if codename in (SUITE, f"{SUITE}-updates", f"{SUITE}-security") and component == "main":
            lines.append(f"deb {uri} {codename} {component}")
    return sorted(set(lines))


def mmdebstrap(scratch: Path, *words: str | Path, env: Mapping[str, str] | None = None) -> None:
    """Make the tree of a Debian. Raises LabError. scratch: a directory that goes with the build. words: as the program takes them."""
    command: list[str | Path] = ["mmdebstrap", "--mode=unshare"]
    where = {}
    if os.geteuid() == 0:
        # Its mounts are in a namespace that ends with it, and it ends with the process that we started, which ends with us.
        command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
                   "mmdebstrap", "--mode=root"]
        where = {"TMPDIR": str(scratch)}
    run(*command, "--skip=output/dev", "--aptopt=Acquire::Languages none", *words,
        env={"DEBIAN_FRONTEND": "noninteractive", **where, **(env or {})})


def bootstrap(scratch: Path, name: str, packages: Iterable[str], setup: str, without: Iterable[str] = ()) -> None:
    """Make the tar file of a tree: Debian with packages and our files, without some, then setup run in it."""
    with tarfile.open(scratch / f"{name}.files.tar", "w") as tar:
        for path in sorted((FILES / name).rglob("*")):
            if path.is_file():
                _add(tar, str(path.relative_to(FILES / name)), path.read_bytes(),
                     0o755 if path.stat().st_mode & 0o100 else 0o644)
    mmdebstrap(
        scratch, "--variant=apt", "--dpkgopt=force-unsafe-io",
        "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in without), f"--include={','.join(packages)}",
        f"--customize-hook=tar-in {shlex.quote(str(scratch / name))}.files.tar /",
        f'--customize-hook=chroot "$1" sh -euc {shlex.quote(setup)}',
        SUITE, scratch / f"{name}.tar", *_mirrors(),
        # the initramfs is made once, by the setup, when its configuration is there
        env={"INITRD": "No"})


def _add(tar: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    tar.addfile(entry, io.BytesIO(data))


def _pack(scratch: Path) -> None:
    """Make the images in scratch/done from the two tar files."""
    target, rescue, done = scratch / "target", scratch / "rescue", scratch / "done"
    done.mkdir()
    for tree in (target, rescue):
        tree.mkdir()
        run("tar", "--extract", "--xattrs", "--xattrs-include=*", "--numeric-owner", "--same-permissions",
            "--file", f"{tree}.tar", "--directory", tree)
        for name in ("hostname", "resolv.conf"):  # mmdebstrap gives them the modes that the host's have
            (tree / "etc" / name).chmod(0o644)
        (tree / "dev").mkdir(0o755)  # its nodes, which only a real root could make, come from the kernel
    (target / "etc/machine-id").write_text(f"{uuid.uuid4().hex}\n")
    release = next((target / "lib/modules").iterdir()).name
    rescue_release = next((rescue / "lib/modules").iterdir()).name
    packed = rescue / f"boot/vmlinuz-{rescue_release}"
    (done / "vmlinuz").write_bytes(_unpacked(packed.read_bytes()))
    packed.unlink()
    busybox = rescue / "usr/bin/busybox"
    (done / "initramfs").write_bytes(_initramfs(rescue, rescue_release, EARLY_MODULES, busybox, "init"))
    (done / "direct-vmlinuz").write_bytes((target / f"boot/vmlinuz-{release}").read_bytes())  # LZ4: quick to unpack itself
    (done / "direct-initramfs").write_bytes(_initramfs(target, release, DIRECT_MODULES, busybox, "init-direct"))
    with concurrent.futures.ThreadPoolExecutor() as pool:
        erofs = pool.submit(run, "mkfs.erofs", "-zlz4", done / "rescue.erofs", rescue)
        roots = {"gpt": _gpt(done / "gpt.img", target, release, scratch),
                 "mbr": _mbr(done / "mbr.img", target, release, scratch)}
        erofs.result()
    meta = {"root_offset": {layout: root[0] for layout, root in roots.items()},
            "root_uuid": {layout: root[1] for layout, root in roots.items()}}
    keys = {path.name: path.read_text().strip() for path in (target / "etc/ssh").glob("ssh_host_*_key.pub")}
    (done / "images.json").write_text(json.dumps({**meta, "host_keys": keys}, indent=2) + "\n")
    for path in done.iterdir():
        path.chmod(0o444)


def _unpacked(kernel: bytes) -> bytes:
    """Return the ELF file in a compressed kernel; QEMU starts it as it is (by PVH).

    To unpack itself takes the full kernel 12 s under emulation. Where it is: Documentation/x86/boot.rst.
    """
    sectors = kernel[0x1F1] or 4
    offset, length = struct.unpack_from("<II", kernel, 0x248)
    start = (sectors + 1) * 512 + offset
    try:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(kernel[start:start + length])
    except lzma.LZMAError as error:
        raise LabError(f"The rescue system's kernel is not packed with xz: {error}") from None


def _initramfs(tree: Path, release: str, early: Sequence[str], busybox: Path, init: str) -> bytes:
    """Return the first files of the system in a tree, not compressed: QEMU hands them over faster than they unpack.

    early: the modules that it needs before it has its root. init: the name of its /init among our files.
    """
    modules = tree / "usr/lib/modules" / release
    paths = {}
    needs = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _colon, rest = line.partition(":")
        name = Path(path).name.removesuffix(".ko").replace("-", "_")
        paths[name] = path
        needs[name] = [Path(need).name.removesuffix(".ko").replace("-", "_") for need in rest.split()]
    order: list[str] = []

    def visit(name: str) -> None:
        for need in needs.get(name, []):
            visit(need)
        if name in paths and name not in order:
            order.append(name)

    for name in ["crc32c_generic", *early]:
        visit(name)
    entries = [cpio.directory(name) for name in ("bin", "dev", "proc", "root", "sys")]
    entries += [cpio.file("init", (FILES / "initramfs" / init).read_bytes(), 0o755),
                cpio.file("bin/busybox", busybox.read_bytes(), 0o755), cpio.link("bin/sh", "busybox"),
                cpio.file("modules", "".join(f"{name}.ko\n" for name in order).encode())]
    entries += [cpio.file(f"{name}.ko", (modules / paths[name]).read_bytes()) for name in order]
    return cpio.archive(entries)


def _gpt(disk: Path, tree: Path, release: str, scratch: Path) -> tuple[int, str]:
    """Make the GPT disk; return where its root file system starts, in bytes, and its UUID."""
    uuids = {"root": str(uuid.uuid4()), "srv": str(uuid.uuid4()), "esp": uuid.uuid4().hex[:8].upper()}
    esp = f"{uuids['esp'][:4]}-{uuids['esp'][4:]}"
    _new_disk(disk, 2560, "label: gpt\n"
              "start=1MiB, size=1MiB, type=21686148-6449-6E6F-744E-656564454649\n"
              "start=2MiB, size=64MiB, type=U\n"
              "start=66MiB, size=2048MiB, type=L\n"
              "start=2114MiB, size=400MiB, type=L\n")
    run("mkfs.vfat", "-F", "16", "-i", uuids["esp"], "-n", "ESP", "--offset", str(2 * MIB // 512), disk,
        str(64 * 1024))
    readme = scratch / "esp.txt"
    readme.write_text("The EFI system partition. This server boots by BIOS.\n")
    run("mcopy", "-i", f"{disk}@@{2 * MIB}", readme, "::/README.TXT")
    (tree / "etc/fstab").write_text(FSTAB["gpt"].format(root=uuids["root"], srv=uuids["srv"], esp=esp))
    _grub_files(tree, release, "gpt", uuids["root"], uuids["root"], "/boot", "(,gpt3)/boot/grub")
    _ext4(disk, 66, 2048, uuids["root"], tree)
    _xfs(disk, 2114, 400, uuids["srv"], scratch)
    grub.install(disk, (tree / "boot/grub/i386-pc/boot.img").read_bytes(),
                 (tree / "boot/grub/i386-pc/core.img").read_bytes(), 2048)
    return 66 * MIB, uuids["root"]


def _mbr(disk: Path, tree: Path, release: str, scratch: Path) -> tuple[int, str]:
    """Make the MBR disk from the same tree; return the same of it."""
    uuids = {name: str(uuid.uuid4()) for name in ("root", "boot", "swap")}
    _new_disk(disk, 2560, "label: dos\n"
              "start=1MiB, size=256MiB, type=83, bootable\n"
              "start=257MiB, size=128MiB, type=82\n"
              "start=385MiB, size=2174MiB, type=5\n"
              "start=386MiB, size=2048MiB, type=83\n")
    (tree / "etc/fstab").write_text(FSTAB["mbr"].format(**uuids))
    _grub_files(tree, release, "msdos", uuids["boot"], uuids["root"], "", "(,msdos1)/grub")
    _ext4(disk, 1, 256, uuids["boot"], tree / "boot")
    core = (tree / "boot/grub/i386-pc/core.img").read_bytes()
    boot = (tree / "boot/grub/i386-pc/boot.img").read_bytes()
    (tree / "boot").rename(scratch / "boot")
    (tree / "boot").mkdir(0o755)
    _ext4(disk, 386, 2048, uuids["root"], tree)
    swap = scratch / "swap"
    with swap.open("wb") as file:
        file.truncate(128 * MIB)
    run("mkswap", "--uuid", uuids["swap"], swap)
    _splice(swap, disk, 257 * MIB)
    grub.install(disk, boot, core, 1)
    return 386 * MIB, uuids["root"]


def _new_disk(disk: Path, size: int, table: str) -> None:
    """Make a sparse disk of so many MiB with a partition table in the words of sfdisk."""
    with disk.open("wb") as file:
        file.truncate(size * MIB)
    run("sfdisk", "--quiet", disk, stdin=table)


def _grub_files(tree: Path, release: str, table: str, boot_uuid: str, root_uuid: str, prefix: str, home: str) -> None:
    """Write grub.cfg and core.img into /boot/grub, for a boot loader whose files are at home."""
    (tree / "boot/grub/grub.cfg").write_text(GRUB_CFG.format(
        table=table, boot_uuid=boot_uuid, root_uuid=root_uuid, prefix=prefix, release=release,
        parameters=PARAMETERS))
    # the target's own GRUB, so that the host needs none
    run("chroot", tree, "grub-mkimage", "--format=i386-pc", "--directory=/usr/lib/grub/i386-pc", f"--prefix={home}",
        "--output=/boot/grub/i386-pc/core.img", "biosdisk", "ext2", f"part_{table}")


def _ext4(disk: Path, start: int, size: int, fs_uuid: str, tree: Path) -> None:
    """Make an ext4 file system of size MiB at start MiB, with the content of tree."""
    run("mke2fs", "-q", "-F", "-t", "ext4", "-U", fs_uuid, "-d", tree, "-E",
        f"offset={start * MIB},lazy_itable_init=0,lazy_journal_init=0,nodiscard", disk, f"{size}M")


def _xfs(disk: Path, start: int, size: int, fs_uuid: str, scratch: Path) -> None:
    """Make an xfs file system of size MiB at start MiB, with one file in it."""
    content = scratch / "srv.txt"
    content.write_text("Served from here.\n")
    proto = scratch / "srv.proto"
    proto.write_text(f"/\n0 0\nd--755 0 0\nindex.txt ---644 0 0 {content}\n$\n")
    volume = scratch / "srv.img"
    with volume.open("wb") as file:
        file.truncate(size * MIB)
    run("mkfs.xfs", "-q", "-m", f"uuid={fs_uuid}", "-p", proto, volume)
    _splice(volume, disk, start * MIB)


def _splice(source: Path, disk: Path, offset: int) -> None:
    """Copy source into disk at offset, leaving holes where source has them."""
    with source.open("rb") as read, disk.open("r+b") as write:
        end = read.seek(0, os.SEEK_END)
        position = 0
        while position < end:
            try:
                position = os.lseek(read.fileno(), position, os.SEEK_DATA)
            except OSError:  # nothing but a hole
                return
            hole = os.lseek(read.fileno(), position, os.SEEK_HOLE)
            read.seek(position)
            write.seek(offset + position)
            shutil.copyfileobj(io.BytesIO(read.read(hole - position)), write)
            position = hole


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The second half of making the images, for root of a namespace.")
    parser.add_argument("--pack", type=Path, metavar="DIRECTORY", help="make the images from the trees in DIRECTORY")
    parser.add_argument("--remove", type=Path, metavar="DIRECTORY", help="remove DIRECTORY, whose files have owners")
    arguments = parser.parse_args()
    if arguments.pack:
        _pack(arguments.pack)
    if arguments.remove:
        shutil.rmtree(arguments.remove)
