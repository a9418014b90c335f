# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is in the trees of installed systems: tiny, but each file is of the kind that it is in a real one."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import hashlib
import io
import struct
import tarfile
from collections.abc import Mapping
from pathlib import Path

from lifeboat_lab import recipe

RELEASE = {
    "debian": ('PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\nVERSION_ID="12"\n'
               'VERSION="12 (bookworm)"\nVERSION_CODENAME=bookworm\nID=debian\n'),
    "ubuntu": ('PRETTY_NAME="Ubuntu 22.04.4 LTS"\nNAME="Ubuntu"\nVERSION_ID="22.04"\nVERSION="22.04.4 LTS (Jammy '
               'Jellyfish)"\nVERSION_CODENAME=jammy\nID=ubuntu\nID_LIKE=debian\n'),
    "fedora": ('NAME="Fedora Linux"\nVERSION="40 (Server Edition)"\nID=fedora\nVERSION_ID=40\n'
               'PRETTY_NAME="Fedora Linux 40 (Server Edition)"\n'),
    "opensuse-tumbleweed": ('NAME="openSUSE Tumbleweed"\n# VERSION="20240501"\nID="opensuse-tumbleweed"\n'
                            'ID_LIKE="opensuse suse"\nVERSION_ID="20240501"\nPRETTY_NAME="openSUSE Tumbleweed"\n'),
    "rocky": ('NAME="Rocky Linux"\nVERSION="9.3 (Blue Onyx)"\nID="rocky"\nID_LIKE="rhel centos fedora"\n'
              'VERSION_ID="9.3"\nPRETTY_NAME="Rocky Linux 9.3 (Blue Onyx)"\n'),
}
KERNEL = {"debian": "6.1.0-18-amd64", "ubuntu": "5.15.0-105-generic", "fedora": "6.8.5-301.fc40.x86_64",
          "opensuse-tumbleweed": "6.8.8-1-default", "rocky": "5.14.0-362.8.1.el9_3.x86_64"}
SELINUX = {"fedora", "rocky"}

DEBIAN_PACKAGES = [*recipe.TARGET_PACKAGES, "btrfs-progs", "cryptsetup-initramfs", "lvm2", "mdadm"]

# Names that a careless reader stumbles over.
ODD_NAMES = (" leading and trailing ", "new\nline", "tab\there", "back\\slash", "-rf", "$(reboot)", "'quote\"", "*",
             "\u00fcml\u00e4ut \u65e5\u672c", "not-utf8-\udcff\udcfe", "n" * 200, "...")


@dataclasses.dataclass(frozen=True)
class Tree:
    """The root of an installed system. id: of its distribution. fstab: its text.

    boot: where the files of its boot loader are: bios (GRUB for i386-pc), uefi (an ESP at /boot/efi), both, or "".
    (None: left out).
    """

    id: str
    hostname: str
    fstab: str
    boot: str = "bios"
    files: Mapping[str, bytes | str | None] = dataclasses.field(default_factory=dict)

    def tar(self) -> bytes:
        """Return it as a tar file; the only programs in it, those of busybox, are put there by the builder."""
        return _System(self).end()

    def state(self) -> bytes:
        """Return what tells one state of it from another."""
        return self.tar()


@dataclasses.dataclass(frozen=True)
class Plain(Tree):
    """A tree that is no Linux system: nothing is in it but files."""

    id: str = ""
    hostname: str = ""
    fstab: str = ""

    def tar(self) -> bytes:
        """Return it as a tar file."""
        tar = _Tar()
        for path, content in self.files.items():
            tar.file(path, content or b"")
        return tar.end()


@dataclasses.dataclass(frozen=True)
class Debian(Tree):
    """A whole Debian that boots by itself: packages, initramfs, GRUB.

    root: what its kernel is told to be its root. boot_uuid: of the file system that is its /boot, where it has one of its
    own. Of what Tree has, id and boot do not matter.
    """

    root: str = ""
    boot_uuid: str = ""

    def build(self, scratch: Path) -> Path:
        """Make it; return its tar file, in scratch."""
        recipe.bootstrap(scratch, "target", DEBIAN_PACKAGES, self._setup())
        return scratch / "target.tar"

    def state(self) -> bytes:
        """Return what tells one state of it from another."""
        files = [path for path in sorted(recipe.FILES.rglob("*")) if path.is_file() and "target" in path.parts]
        return repr((self._setup(), DEBIAN_PACKAGES, [(path.name, path.read_bytes()) for path in files])).encode()

    def _setup(self) -> str:
        """Return what runs in the tree: its files are there before the initramfs is made, GRUB's come last."""
        lines = []
        for path, content in {"etc/fstab": self.fstab, **self.files}.items():
            data = content.encode() if isinstance(content, str) else content or b""
            lines.append(f"install -d /{path.rpartition('/')[0]}\nbase64 -d > /{path} <<END\n{base64.encodebytes(data).decode()}END")
            if data.startswith(b"#!"):
                lines.append(f"chmod +x /{path}")
            elif path.endswith(".key"):
                lines.append(f"chmod 600 /{path}")
        grub = (f"search --no-floppy --fs-uuid --set=root {self.boot_uuid}\n"
                f"linux /vmlinuz-$release root={self.root} ro console=ttyS0 mitigations=off cryptomgr.notests quiet\n"
                "initrd /initrd.img-$release\nboot\n")
        return "\n".join([*lines, recipe.TARGET_SETUP, f"""
echo {self.hostname} > /etc/hostname
release=$(ls /lib/modules)
cat > /boot/grub/grub.cfg <<END
{grub}END
cat > /tmp/early.cfg <<END
search --no-floppy --fs-uuid --set=root {self.boot_uuid}
set prefix=(\\$root)/grub
END
grub-mkimage --format=i386-pc --directory=/usr/lib/grub/i386-pc --prefix=/grub --config=/tmp/early.cfg \\
    --output=/boot/grub/i386-pc/core.img biosdisk part_gpt ext2 search search_fs_uuid normal linux boot
rm /tmp/early.cfg
"""])


class _Tar:
    def __init__(self) -> None:
        self._bytes = io.BytesIO()
        # Closed by end().
        self._tar = tarfile.open(fileobj=self._bytes, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape")  # noqa: SIM115
        self._directories: set[str] = set()

    def end(self) -> bytes:
        self._tar.close()
        return self._bytes.getvalue()

    def directory(self, path: str, mode: int = 0o755, owner: tuple[int, int] = (0, 0)) -> None:
        parent = path.rpartition("/")[0]
        if parent and parent not in self._directories:
            self.directory(parent)
        if path not in self._directories:
            self._directories.add(path)
            self._add(tarfile.DIRTYPE, path, mode, owner)

    def file(self, path: str, content: bytes | str, mode: int = 0o644, owner: tuple[int, int] = (0, 0),
             **xattrs: str) -> None:
        parent = path.rpartition("/")[0]
        if parent:
            self.directory(parent)
        data = content.encode() if isinstance(content, str) else content
        self._add(tarfile.REGTYPE, path, mode, owner, data, xattrs={name.replace("__", "."): value for name, value in xattrs.items()})

    def link(self, path: str, target: str, hard: bool = False) -> None:
        parent = path.rpartition("/")[0]
        if parent:
            self.directory(parent)
        self._add(tarfile.LNKTYPE if hard else tarfile.SYMTYPE, path, 0o777, link=target)

    def node(self, path: str, kind: bytes, mode: int, major: int = 0, minor: int = 0) -> None:
        self._add(kind, path, mode, numbers=(major, minor))

    def _add(self, kind: bytes, path: str, mode: int, owner: tuple[int, int] = (0, 0), data: bytes = b"",
             link: str = "", numbers: tuple[int, int] = (0, 0), xattrs: Mapping[str, str] | None = None) -> None:
        entry = tarfile.TarInfo(path)
        entry.type, entry.mode, entry.size, entry.linkname = kind, mode, len(data), link
        entry.uid, entry.gid = owner
        entry.mtime = 1700000000
        entry.devmajor, entry.devminor = numbers
        entry.pax_headers = {f"SCHILY.xattr.{name}": value for name, value in (xattrs or {}).items()}
        self._tar.addfile(entry, io.BytesIO(data))


class _System(_Tar):
    """A root that looks as one of the distribution does: merged /usr, dangling resolv.conf and all."""

    def __init__(self, tree: Tree):
        super().__init__()
        self._tree = tree
        for path in ("dev", "proc", "sys", "run", "mnt", "media", "opt", "srv", "home", "boot", "usr/bin", "usr/sbin",
                     "usr/lib", "usr/lib64", "etc/ssh", "var/lib", "var/log", "var/tmp", "root"):
            self.directory(path, 0o700 if path == "root" else 0o755)
        self.directory("tmp", 0o1777)
        for name in ("bin", "sbin", "lib", "lib64"):
            self.link(name, f"usr/{name}")
        self.node("dev/null", tarfile.CHRTYPE, 0o666, 1, 3)
        # what the tree itself says of a file goes before what is here
        files: dict[str, bytes | str | None] = {
            "usr/lib/os-release": RELEASE[tree.id],
            "etc/hostname": f"{tree.hostname}\n",
            "etc/machine-id": f"{self._digest('machine-id')[:32]}\n",
            "etc/fstab": tree.fstab,
            "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nadmin:x:1000:1000::/home/admin:/bin/sh\n",
            "etc/group": "root:x:0:\nshadow:x:42:\nadmin:x:1000:\n",
            "etc/shadow": "root:*:19700:0:99999:7:::\nadmin:!:19700:0:99999:7:::\n",
            "etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {tree.hostname}\n",
            "etc/ssh/sshd_config": "Include /etc/ssh/sshd_config.d/*.conf\nUsePAM yes\n",
            "etc/ssh/ssh_host_ed25519_key.pub": self._public_key(),
            "etc/default/grub": "GRUB_TIMEOUT=5\nGRUB_CMDLINE_LINUX=\"\"\n",
            "var/log/syslog": f"Jan  1 00:00:00 {tree.hostname} kernel: Linux version {KERNEL[tree.id]}\n" * 100,
            "var/lib/dpkg/status" if tree.id in ("debian", "ubuntu") else "var/lib/rpm/rpmdb.sqlite": "Package: base\n",
            "home/admin/.profile": "umask 022\n",
            **self._boot(),
            **tree.files,
        }
        modes = {"etc/shadow": (0o640, (0, 42)), "home/admin/.profile": (0o600, (1000, 1000))}
        self.directory("home/admin", 0o700, (1000, 1000))
        for path, content in files.items():
            if content is not None:
                secret = path == "etc/crypttab" or path.endswith(".key")
                mode, owner = modes.get(path, (0o600 if secret else 0o644, (0, 0)))
                self.file(path, content, mode, owner, **self._label(path))
        self.link("etc/os-release", "../usr/lib/os-release")
        self.link("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf")
        self.link("etc/mtab", "../proc/self/mounts")
        self._oddities()

    def _label(self, path: str) -> dict[str, str]:
        if self._tree.id not in SELINUX or path.startswith("boot/efi"):
            return {}
        kind = "shadow_t" if path == "etc/shadow" else "etc_t" if path.startswith("etc/") else "usr_t"
        return {"security__selinux": f"system_u:object_r:{kind}:s0"}

    def _boot(self) -> dict[str, bytes | str | None]:
        release = KERNEL[self._tree.id]
        initramfs = {"debian": "initrd.img-{}", "ubuntu": "initrd.img-{}"}.get(self._tree.id, "initramfs-{}.img")
        if self._tree.id.startswith("opensuse"):
            initramfs = "initrd-{}"
        grub = "grub" if self._tree.id in ("debian", "ubuntu") else "grub2"
        files: dict[str, bytes | str | None] = {
            # the head of a real one: where `file` and boot loaders look
            f"boot/vmlinuz-{release}": b"\0" * 0x1FE + b"\x55\xaa\xeb\x6aHdrS" + struct.pack("<H", 0x020F) + b"\0" * 4096,
            f"boot/{initramfs.format(release)}": gzip.compress(b"070701" + b"0" * 104, mtime=0),
            f"boot/config-{release}": "CONFIG_X86_64=y\n",
            f"boot/{grub}/grub.cfg": f"linux /vmlinuz-{release} root=UUID=\n",
            f"usr/lib/modules/{release}/modules.dep": "",
        }
        if self._tree.boot in ("bios", "both"):
            files[f"boot/{grub}/i386-pc/normal.mod"] = b"\x7fELF"
        if self._tree.boot in ("uefi", "both"):
            files[f"boot/{grub}/x86_64-efi/normal.mod"] = b"\x7fELF"
            files[f"boot/efi/EFI/{self._tree.id}/grubx64.efi"] = b"MZ" + b"\0" * 62
            files["boot/efi/EFI/BOOT/BOOTX64.EFI"] = b"MZ" + b"\0" * 62
        return files

    def _oddities(self) -> None:
        for name in ODD_NAMES:
            self.file(f"srv/odd/{name}", f"{len(name)}\n", user__zoo="here")
        self.file("srv/odd/first", "one content\n")
        self.link("srv/odd/second", "srv/odd/first", hard=True)
        self.link("srv/odd/out", "../../../../../../etc/shadow")
        self.link("srv/odd/circle", "circle")
        self.node("srv/odd/fifo", tarfile.FIFOTYPE, 0o600)
        self.file("srv/odd/setuid", "#!/bin/sh\n", 0o4755)
        self.file("srv/odd/empty", b"")

    def _digest(self, what: str) -> str:
        return hashlib.sha256(f"{self._tree.hostname}/{what}".encode()).hexdigest()

    def _public_key(self) -> str:
        parts = [b"ssh-ed25519", bytes.fromhex(self._digest("host key"))]
        blob = b"".join(struct.pack(">I", len(part)) + part for part in parts)
        return f"ssh-ed25519 {base64.b64encode(blob).decode()} root@{self._tree.hostname}\n"
