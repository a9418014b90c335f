# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mounting and unmounting for real: loop devices with partitions, this kernel's ext4 and xfs, real namespaces.

Each test works in a mount namespace of its own, so that nothing of it can be left behind here. What was left is judged
by a verifier that uses nothing of the collection.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import pathlib
import secrets
import select
import shutil
import subprocess
import traceback

import pytest

from ansible_collections.lifeboat.rescue.plugins.module_utils._errors import BadInput, Busy, LifeboatError, TargetError
from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue import _child, _command, _journal, _kernel, _lock, _loop, _target
from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue._storage import _devices, _ext4_listing, _layers, _mounting, _systems
from lifeboat_lab.waiting import until


def sh(script, *args, before=()):
    """Run a shell script that stops at the first error. Return what it prints."""
    done = subprocess.run([*before, "/bin/sh", "-euc", script, "sh", *map(str, args)], capture_output=True, text=True,
                          timeout=60, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


APART = ("unshare", "--mount", "--propagation", "private")


def cannot():
    """Why these tests cannot run here, or None."""
    if os.geteuid() != 0:
        return "needs root"
    if not os.path.exists("/dev/loop-control"):
        return "needs loop devices"
    missing = [name for name in ("mkfs.ext4", "mkfs.xfs", "sfdisk", "partx", "losetup", "blkid") if not shutil.which(
        name, path="/usr/sbin:/sbin:/usr/bin:/bin")]
    return f"needs {', '.join(missing)}" if missing else None


pytestmark = [
    pytest.mark.skipif(cannot() is not None, reason=str(cannot())),
    # Python 3.12 warns of a fork beside threads, such as those that other tests may have left. Nothing here has any.
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]

# $1: directory. $2: image. $3: extra lines of fstab. $4: a script that changes the root file system further. $5: a word
# that makes the labels unlike those of other tests that run at the same time.
BUILD = r"""
cd "$1"; truncate -s 480M "$2"
printf 'label: gpt\nsize=1M, type=21686148-6449-6E6F-744E-656564454649\nsize=48M\nsize=320M\nsize=32M\nsize=16M\n' |
  sfdisk -q "$2"
disk=$(losetup --find --show "$2")
trap 'cd "$1"; umount -q m/var || :; umount -q m || :; partx -d "$disk"; losetup -d "$disk"' EXIT
partx -d "$disk" 2>/dev/null || :
partx -a "$disk"
mkfs.ext4 -q -L "root-$5" "${disk}p2"; mkfs.xfs -q -f -L 'my var' "${disk}p3"; mkfs.ext2 -q -L "boot-$5" "${disk}p4"
mkswap -q -L "swap-$5" "${disk}p5" >/dev/null
mkdir -p m; mount "${disk}p4" m; mkdir m/grub m/grub/i386-pc; touch m/vmlinuz-6.1.0-1-amd64 m/initrd.img-6.1.0-1-amd64
umount m
mount "${disk}p2" m
cd m
mkdir -p etc/ssh usr/lib usr/bin usr/sbin var boot dev proc sys run tmp home data
ln -s usr/bin bin; ln -s usr/lib lib; ln -s usr/lib64 lib64; mkdir usr/lib64
ln -s /run/systemd/resolve/stub-resolv.conf etc/resolv.conf
printf 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n' > usr/lib/os-release
ln -s ../usr/lib/os-release etc/os-release
echo lost > etc/hostname
echo 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGV4YW1wbGU root@lost' > etc/ssh/ssh_host_ed25519_key.pub
printf '#!/bin/sh\nexit 0\n' > usr/sbin/policy-rc.d; chmod 0755 usr/sbin/policy-rc.d
for name in sh cat ls; do
  program=$(readlink -f "$(command -v $name)"); cp "$program" usr/bin/$name
  ldd "$program" | sed -n 's/^[^/]*\(\/[^ ]*\) (0x.*/\1/p' | while read -r library; do
    mkdir -p ".${library%/*}"; cp -n "$library" ".$library"; done
done
cat > etc/fstab <<X
# made by a test
LABEL=root-$5	/ ext4 errors=remount-ro,noatime 0 1
/dev/sdb3 /var xfs defaults,uquota
LABEL=boot-$5 /boot ext2 defaults,ro 0 2
LABEL=swap-$5 none swap sw 0 0
UUID=0f0f0f0f-0000-4000-8000-000000000000 /data ext4 nofail 0 2
$3
X
mount "${disk}p3" var; mkdir var/lib; echo inside > var/lib/file
eval "$4"
cd ..
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """A disk with a small Debian: root on ext4, /var on xfs, /boot on ext2."""
    return build(tmp_path_factory.mktemp("image"))


def build(directory, fstab="", more=""):
    path = directory / "disk.img"
    tag = secrets.token_hex(2)
    sh(BUILD, directory, path, fstab.replace("@", tag), more, tag, before=APART)
    return path


@contextlib.contextmanager
def attached(path):
    """The disk in an image, as a loop device with its partitions."""
    disk = sh('losetup --find --show "$1"', path)
    try:
        # A test that died may have left partitions of a loop device that had this name.
        sh('partx -d "$1" 2>/dev/null || :; partx -a "$1"', disk)
        yield disk
    finally:
        sh('partx -d "$1" || :; losetup -d "$1"', disk)


@pytest.fixture
def disk(image, tmp_path):
    """A copy of that disk, attached."""
    copy = tmp_path / "disk.img"
    sh('cp --sparse=always "$1" "$2"', image, copy)
    with attached(copy) as path:
        yield path


def alone(function):
    """Run function() in a child with a mount namespace of its own, where /mnt and /run are fresh. Errors come back."""
    source, sink = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            # A namespace can be kept only in one with a lower number, and Linux 6.18 counts per processor.
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
            _child._leave_mount_namespace()
            sh("mount -t tmpfs tmpfs /mnt; mount -t tmpfs -o mode=0755 tmpfs /run")
            function()
            code = 0
        except BaseException:
            os.write(sink, traceback.format_exc().encode()[-60000:])
        finally:
            os._exit(code)
    os.close(sink)
    ready = select.select([source], [], [], 120)[0]
    with os.fdopen(source) as file:
        text = file.read() if ready else "It did not end within 120 s."
    if not ready:
        os.kill(pid, 9)
    status = os.waitpid(pid, 0)[1]
    if status != 0:
        pytest.fail(text or f"status {status}", pytrace=False)


class World:
    """What the kernel shows, without any help of the collection."""

    def __init__(self, disk):
        self.disk = disk
        self.before = self.look()

    def look(self):
        mounts = [line.split()[2:6] for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines()]
        return {"mounts": mounts, "read-only": sh('for d in "$1" "$1"p*; do blockdev --getro "$d"; done', self.disk),
                # /run/mount is mount(8)'s own.
                "target": sorted(os.listdir("/mnt")), "run": sorted(set(os.listdir("/run")) - {"lifeboat", "mount"})}

    def assert_clean(self):
        """Nothing is left, and nobody holds the disk."""
        assert self.look() == self.before
        assert set(os.listdir("/run/lifeboat") if os.path.exists("/run/lifeboat") else []) <= {"storage.lock"}
        for path in [self.disk, *sh('echo "$1"p*', self.disk).split()]:
            os.close(os.open(path, os.O_RDONLY | os.O_EXCL))


def digest(disk):
    with open(disk, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def storage(runner=None, patience=10):
    return _mounting.Storage(runner or _command.Runner(timeout=60), patience=patience)


# What is found ------------------------------------------------------------------------------------------------------


def test_a_disk_without_content_hides_nothing_behind_it(image, tmp_path):
    """blkid ends at the first device that it has nothing to say of."""
    (tmp_path / "blank.img").write_bytes(bytes(1 << 20))
    blank = sh('losetup --find --show "$1"', tmp_path / "blank.img")

    def behind(disk):
        def work():
            found = storage().info()
            assert [each["root"] for each in found["systems"] if each["root"].startswith(disk)] == [f"{disk}p2"]
            assert blank in [each["device"] for each in found["disks"]]
        alone(work)

    try:
        for _dummy in range(10):
            with attached(image) as disk:
                # Another test may have given back one with a lower number meanwhile.
                if int(blank[len("/dev/loop"):]) < int(disk[len("/dev/loop"):]):
                    behind(disk)
                    return
        pytest.fail("no loop device is to be had behind the first one")
    finally:
        sh('losetup -d "$1"', blank)


def test_info_finds_the_system_and_changes_nothing(disk):
    def work():
        world, before = World(disk), digest(disk)
        found = storage().info()
        assert digest(disk) == before
        world.assert_clean()
        own = next(each for each in found["disks"] if each["device"] == disk)
        assert (own["table"], own["rescue"], len(own["partitions"])) == ("gpt", False, 5)
        system = next(each for each in found["systems"] if each["root"] == f"{disk}p2")
        assert system["id"] == sh('blkid -p -o value -s UUID "$1"', f"{disk}p2")
        assert system["os"] == {"id": "debian", "version_id": "12", "pretty_name": "Debian GNU/Linux 12 (bookworm)",
                                "family": "debian"}
        assert (system["hostname"], system["arch"], system["boot_mode"]) == ("lost", os.uname().machine, "bios")
        assert system["kernels"] == [{"version": "6.1.0-1-amd64", "initramfs": True}]
        assert system["ssh_host_keys"] == ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGV4YW1wbGU"]
        assert [(line["file"], line["device"], line["status"]) for line in system["fstab"]] == [
            ("/", f"{disk}p2", "resolved"), ("/var", None, "unresolved"), ("/boot", f"{disk}p4", "resolved"),
            ("none", f"{disk}p5", "skipped"), ("/data", None, "unresolved")]

    alone(work)


def make_dirty(disk, tmp_path):
    """Copy the disk while it is mounted and in use: journals to replay, and an inode that is open but has no name."""
    copy = tmp_path / "dirty.img"
    sh(r"""
        mkdir -p "$3"; mount "$1"p2 "$3"; mount "$1"p3 "$3/var"
        head -c 3000000 /dev/urandom > "$3/gone"; echo x > "$3/var/new"; sync -f "$3/gone"; sync -f "$3/var/new"
        exec 3< "$3/gone"; rm "$3/gone"; echo y > "$3/new"; echo z > "$3/var/newer"
        sync -f "$3/new"; sync -f "$3/var/new"
        cp --sparse=always "$1" "$2"
        exec 3<&-; umount "$3/var"; umount "$3"
    """, disk, copy, tmp_path / "m", before=APART)
    return copy


def test_read_only_leaves_every_byte_of_a_disk_that_crashed(disk, tmp_path):
    def work():
        with attached(make_dirty(disk, tmp_path)) as dirty:
            detached(disk)
            world, before = World(dirty), digest(dirty)
            found = {each["device"]: each["needs_replay"] for each in storage().info()["filesystems"]}
            assert (found[f"{dirty}p2"], found[f"{dirty}p3"], found[f"{dirty}p4"]) == (True, True, False)
            result = storage().mount("/mnt/target", "ro", f"{dirty}p2", force=True)
            assert result["changed"]
            with pytest.raises(OSError, match="Read-only"):
                pathlib.Path("/mnt/target/etc/x").write_text("x")
            # Not even by writing to the device.
            with open(f"{dirty}p2", "r+b", buffering=0) as device, pytest.raises(PermissionError):
                device.write(b"x")
            storage().unmount()
            assert digest(dirty) == before
            world.assert_clean()

    alone(work)


def test_a_look_at_a_broken_file_system_does_not_write(image, disk, tmp_path):
    """ext4 notes in its superblock that it has met an error, also where it is mounted read-only."""
    def work():
        broken = tmp_path / "broken.img"
        sh('cp --sparse=always "$1" "$2"', image, broken)
        with attached(broken) as other:
            sh('debugfs -w -R "clri <2>" "$1" 2>&1', f"{other}p2")
            sh('blockdev --flushbufs "$1"', other)
            before = digest(other)
            told = {each["device"]: each["reason"] for each in storage().info()["filesystems"]}
            assert told[f"{other}p2"].startswith("It cannot be mounted: ")
            assert digest(other) == before

    alone(work)


def detached(disk):
    """Take a disk out of sight, as its twin would make every UUID ambiguous."""
    sh('partx -d "$1"', disk)


def test_the_replay_of_a_journal_is_told_before(disk, tmp_path):
    def work():
        with attached(make_dirty(disk, tmp_path)) as dirty:
            detached(disk)
            world, before = World(dirty), digest(dirty)
            planned = storage().mount("/mnt/target", "rw", f"{dirty}p2", force=True, check=True)
            assert digest(dirty) == before
            world.assert_clean()
            assert f"{dirty}p2 on /mnt/target type ext4 (rw,noatime,nodev), its journal will be replayed\n" in \
                planned["diff"]["after"]
            storage().mount("/mnt/target", "rw", f"{dirty}p2", force=True)
            assert pathlib.Path("/mnt/target/new").read_text() == "y\n"
            storage().unmount()
            assert digest(dirty) != before
            world.assert_clean()

    alone(work)


# Mounting and unmounting -----------------------------------------------------------------------------------------


def test_check_do_repeat(disk):
    def work():
        world, system = World(disk), f"{disk}p2"
        before = digest(disk)
        with pytest.raises(TargetError, match=r"/var .*cannot be told"):
            storage().mount("/mnt/target", "rw", system)
        planned = storage().mount("/mnt/target", "rw", system, force=True, check=True)
        world.assert_clean()
        assert digest(disk) == before

        done = storage().mount("/mnt/target", "rw", system, force=True)
        assert planned["changed"] and done["changed"]
        assert planned["mounts"] == done["mounts"]
        assert [(each["source"], each["target"], each["options"]) for each in done["mounts"]] == [
            (f"{disk}p2", "/mnt/target", "rw,noatime,nodev"), (f"{disk}p4", "/mnt/target/boot", "ro,nodev")]
        assert [each["file"] for each in done["left_out"]] == ["/var", "none", "/data"]
        assert sh("findmnt -nro TARGET,SOURCE -R /mnt/target").split("\n") == [
            f"/mnt/target {disk}p2", f"/mnt/target/boot {disk}p4"]
        assert done["ssh_host_keys"] == ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGV4YW1wbGU"]

        for wanted in (None, system, done["system"]["id"]):
            again = storage().mount("/mnt/target", "rw", wanted, force=True)
            assert not again["changed"]
            assert {key: again[key] for key in done if key not in ("changed", "diff")} == \
                {key: done[key] for key in done if key not in ("changed", "diff")}
        # While it is mounted, it is not taken for a disk of the rescue system.
        found = storage().info()
        assert system in [each["root"] for each in found["systems"]]
        assert not next(each for each in found["disks"] if each["device"] == disk)["rescue"]

        planned = storage().unmount(check=True)
        assert planned["changed"] and not planned["clean"]
        assert os.path.ismount("/mnt/target/boot")
        done = storage().unmount()
        assert done == {"changed": True, "clean": True, "unmounted": planned["unmounted"], "diff": planned["diff"]}
        assert done["unmounted"] == ["/mnt/target/boot", "/mnt/target"]
        world.assert_clean()
        assert not storage().unmount()["changed"]
        assert not storage().unmount(check=True)["changed"]
        assert sh('e2fsck -fn "$1" 2>&1; echo clean', system).endswith("clean")

    alone(work)


def test_another_mode_means_to_mount_again(disk):
    def work():
        world = World(disk)
        for mode in ("rw", "ro", "rw"):
            assert storage().mount("/mnt/target", mode, f"{disk}p2", force=True)["changed"]
            assert sh("findmnt -nro OPTIONS /mnt/target").startswith(mode)
        assert storage().mount("/mnt/deep/er/target", "rw", f"{disk}p2", force=True)["changed"]
        assert not os.path.exists("/mnt/target")
        storage().unmount()
        world.assert_clean()

    alone(work)


def test_commands_inside_have_what_they_need_and_outside_sees_nothing(disk):
    def work():
        os.mkdir("/run/udev")
        pathlib.Path("/run/sshd.pid").write_text("1")
        world = World(disk)
        run = _command.Runner(timeout=20)
        result = storage().mount("/mnt/target", "rw", f"{disk}p2", force=True)
        assert result["namespace"] == "/run/lifeboat/target.ns"
        assert _target.namespace_of("/mnt/target") == result["namespace"]
        script = "cat /etc/resolv.conf; echo; /usr/sbin/policy-rc.d; echo policy $?; ls /run; " \
                 "ls /proc/self/ns /sys/block; echo x > /dev/null; echo x > /run/daemon.pid"
        done = _target.inside(run, "/mnt/target", ["sh", "-euc", f"set +e; {script}"])
        assert done.err == ""
        assert done.out.startswith(pathlib.Path("/etc/resolv.conf").read_text() + "\npolicy 101\n")
        assert "udev" in done.out
        assert "sshd.pid" not in done.out
        # Nothing of the rescue system can be reached, not even by one who breaks out of a chroot.
        assert _target.inside(run, "/mnt/target", ["sh", "-c", "cat /proc/self/mountinfo"]).out.split()[4] == "/"
        assert _target.inside(run, "/mnt/target", ["sh", "-c", "ls -d /mnt/target"], check=False).rc == 2
        # It stays for the next command, and is the target's own.
        assert _target.inside(run, "/mnt/target", ["cat", "/run/daemon.pid"]).out == "x\n"
        assert not os.path.exists("/run/daemon.pid")
        assert sh("findmnt -nro TARGET -R /mnt/target").split("\n") == ["/mnt/target", "/mnt/target/boot"]
        assert os.listdir("/mnt/target/run") == os.listdir("/mnt/target/dev") == []
        assert os.readlink("/mnt/target/etc/resolv.conf") == "/run/systemd/resolve/stub-resolv.conf"
        assert pathlib.Path("/mnt/target/usr/sbin/policy-rc.d").read_text() == "#!/bin/sh\nexit 0\n"
        storage().unmount()
        world.assert_clean()

    alone(work)


def test_what_is_read_only_has_a_tmp_in_memory(disk):
    def work():
        world = World(disk)
        storage().mount("/mnt/target", "ro", f"{disk}p2", force=True)
        run = _command.Runner(timeout=20)
        assert _target.inside(run, "/mnt/target", ["sh", "-c", "echo x > /x; echo x > /tmp/x; cat /tmp/x"], check=False).out == "x\n"
        assert _target.inside(run, "/mnt/target", ["cat", "/tmp/x"]).out == "x\n"  # for the next command, too
        assert os.listdir("/mnt/target/tmp") == []
        storage().unmount()
        world.assert_clean()

    alone(work)


def test_who_keeps_it_busy_is_named_and_ended(disk):
    def work():
        world = World(disk)
        storage().mount("/mnt/target", "rw", f"{disk}p2", force=True)
        held, closing = os.pipe()
        script = "trap '' TERM; cd /mnt/target; echo up; while read -r x; do :; done"
        stubborn = subprocess.Popen(["/bin/sh", "-c", script], stdin=held, stdout=subprocess.PIPE)
        inside = subprocess.Popen(["nsenter", "--mount=/run/lifeboat/target.ns", "/bin/sh", "-c", "echo up; cat"],
                                  stdin=held, stdout=subprocess.PIPE)
        assert stubborn.stdout.readline() == inside.stdout.readline() == b"up\n"
        mounts = pathlib.Path("/proc/self/mountinfo").read_text()
        with pytest.raises(Busy) as caught:
            storage().unmount()
        assert f"sh (pid {stubborn.pid}) works there" in caught.value.what
        assert f"(pid {inside.pid})" in caught.value.what
        assert pathlib.Path("/proc/self/mountinfo").read_text() == mounts
        storage(patience=0.5).unmount(kill=True)
        assert (stubborn.wait(5), inside.wait(5)) == (-9, -15)
        os.close(closing)
        world.assert_clean()

    alone(work)


def test_what_is_mounted_a_second_time_is_not_clean(disk):
    def work():
        world = World(disk)
        storage().mount("/mnt/target", "rw", f"{disk}p2", force=True)
        sh("mkdir /mnt/second; mount --bind /mnt/target /mnt/second")
        with pytest.raises(Busy, match="it is mounted at /mnt/second too"):
            storage(patience=0.2).unmount()
        sh("umount /mnt/second; rmdir /mnt/second")
        assert storage().unmount()["clean"]
        world.assert_clean()

    alone(work)


def test_the_lock_is_held_as_long_as_a_command_goes_on(tmp_path):
    """Also where we are killed while it does."""
    run = _command.Runner()
    with _lock.locked(str(tmp_path / "run"), 0.1) as fd:
        run.shared = (fd,)
        run(["sh", "-c", "sleep 1 >/dev/null 2>&1 &"])
    with pytest.raises(Busy), _lock.locked(str(tmp_path / "run"), 0.1):
        pass
    with _lock.locked(str(tmp_path / "run"), 10):
        pass


def test_the_lock_is_held_for_programs_that_close_it(tmp_path, monkeypatch):
    """As lvm closes all that it was given open; we are killed while it is at work."""
    monkeypatch.setattr(_command, "_CLOSERS", ("python3",))
    place, begun = str(tmp_path / "run"), tmp_path / "begun"
    program = f"import os, time; os.closerange(3, 256); open({str(begun)!r}, 'w').close(); time.sleep(1)"
    pid = os.fork()
    if pid == 0:
        run = _command.Runner()
        with _lock.locked(place) as fd:
            run.shared = (fd,)
            run(["python3", "-c", program])
        os._exit(0)
    until(begun.exists)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    with pytest.raises(Busy), _lock.locked(place, 0.1):
        pass
    with _lock.locked(place, 10):
        pass


def test_what_no_overlay_can_be_made_over_is_told(tmp_path, monkeypatch):
    def run(argv, **options):
        return _command.Result(1 if argv[:2] == ["dmsetup", "info"] else 0, "", "")

    def ioctl(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    locked = [_devices.Device(f"/dev/no{number}", f"0:{number}", "disk", 1 << 20, tag={"TYPE": "crypto_LUKS", "UUID": f"u{number}"})
              for number in range(2)]
    found = _devices.Devices(locked)
    layers = _layers.Layers(run, _kernel.Kernel(), _journal.Journal(str(tmp_path)), "look", [_layers.Key(passphrase="x")])
    assert [device.unsupported for device in layers.build(found, lambda built: found)] == [
        "It is locked, and cannot be opened: No space left on device"] * 2


def test_a_loop_device_goes_by_itself(tmp_path, monkeypatch):
    """Also of a kernel that does not know the newest call, and where we are killed."""
    path = tmp_path / "file"
    path.write_bytes(bytes(1 << 20))

    def look(device):
        return sh('losetup --noheadings --raw --output BACK-FILE,RO,AUTOCLEAR "$1"', device)

    for newest in (True, False):
        for read_only in (True, False):
            with _loop.loop_over(str(path), read_only) as device:
                assert look(device) == f"{path} {read_only:d} 1"
            assert sh('losetup --associated "$1"', path) == ""
        if newest:
            monkeypatch.setattr(_loop, "_LOOP_CONFIGURE", 0x4CFF)
    held, closing = os.pipe()
    pid = os.fork()
    if pid == 0:
        with _loop.loop_over(str(path)):
            os.write(closing, b"x")
            select.select([], [], [], 60)
        os._exit(0)
    os.read(held, 1)
    assert sh('losetup --associated "$1"', path) != ""
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    assert sh('losetup --associated "$1"', path) == ""


def test_a_namespace_of_somebody_else(disk):
    """A service that was started meanwhile has a copy of every mount. It must not keep the disk, or be named."""
    def work():
        world = World(disk)
        os.mkdir("/mnt/target")  # so that its mounts are not taken away with the directory
        storage().mount("/mnt/target", "rw", f"{disk}p2", force=True)
        service = subprocess.Popen(["unshare", "--mount", "sh", "-c", "echo up; cat"], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE)
        assert service.stdout.readline() == b"up\n"
        with pytest.raises(Busy, match=f"pid {service.pid}"):
            storage(patience=0.5).unmount()
        with pytest.raises(Busy, match="What storage_mount mounted is unmounted"):
            storage(patience=0.5).unmount()
        service.stdin.close()
        service.wait(5)
        assert storage().unmount() == {"changed": True, "clean": True, "unmounted": [],
                                       "diff": {"before": "", "after": ""}}
        os.rmdir("/mnt/target")
        world.assert_clean()

    alone(work)


def test_what_others_do_there_is_respected(disk):
    def work():
        world = World(disk)
        # Written to by somebody, as by a file system check or a restore.
        fd = os.open(f"{disk}p2", os.O_RDWR)
        child = subprocess.Popen(["sh", "-c", "echo up; cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                 pass_fds=[fd])
        os.close(fd)
        assert child.stdout.readline() == b"up\n"
        with pytest.raises(Busy, match=rf"\(pid {child.pid}\) has {disk}p2 open"):
            storage().mount("/mnt/target", "rw", f"{disk}p2", force=True)
        child.stdin.close()
        child.wait(5)
        world.assert_clean()
        # Mounted by hand.
        sh('mkdir /mnt/hand; mount "$1" /mnt/hand', f"{disk}p2")
        with pytest.raises(Busy, match="mounted at /mnt/hand"):
            storage().mount("/mnt/target", "rw", f"{disk}p2", force=True)
        with pytest.raises(Busy, match="mounted at /mnt/hand"):
            storage().mount("/mnt/hand", "rw", f"{disk}p2", force=True)
        sh("umount /mnt/hand; rmdir /mnt/hand")
        # Something mounted by hand in our target.
        storage().mount("/mnt/target", "rw", f"{disk}p2", force=True)
        sh("mount -t tmpfs tmpfs /mnt/target/tmp")
        with pytest.raises(Busy, match="tmpfs at /mnt/target/tmp"):
            storage().unmount(kill=True)
        assert os.path.ismount("/mnt/target")
        sh("umount /mnt/target/tmp")
        storage().unmount()
        world.assert_clean()
        # Another one at work.
        with _lock.locked("/run/lifeboat"), pytest.raises(Busy, match=f"Process {os.getpid()} has been at work on the disks here for"):
            storage(patience=0.2).mount("/mnt/target", "rw", f"{disk}p2", force=True)
        world.assert_clean()

    alone(work)


@pytest.mark.parametrize("path", ["/", "//", "/mnt/..", "mnt", "/mnt/../..", "/proc/version"])
def test_no_bad_path(path):
    with pytest.raises(BadInput):
        storage().mount(path, check=True)


def test_two_systems_are_listed_and_one_is_chosen(image, disk, tmp_path):
    def work():
        other = tmp_path / "other.img"
        sh('cp --sparse=always "$1" "$2"', image, other)
        with attached(other) as second:
            # The same disk twice: labels and UUIDs are looked for beside the root file system, kernel's names say nothing.
            with pytest.raises(BadInput, match="installed systems") as caught:
                storage().mount("/mnt/target")
            roots = {each["root"]: each["id"] for each in caught.value.details["systems"]}
            assert roots[f"{disk}p2"] == f"{disk}p2"
            with pytest.raises(TargetError, match="Which disk the installed system calls sdb cannot be told"):
                storage().mount("/mnt/target", "rw", f"{second}p2")
            with pytest.raises(BadInput, match="no installed system '/dev/nope'"):
                storage().mount("/mnt/target", "rw", "/dev/nope")
            result = storage().mount("/mnt/target", "rw", f"{second}p2", force=True)
            assert {each["source"][:len(second)] for each in result["mounts"]} == {second}
            assert "/var" not in {each["target"][len("/mnt/target"):] for each in result["mounts"]}
            storage().unmount()

    alone(work)


def test_what_cannot_be_mounted_beside_the_root_is_told(disk):
    class Fails(_command.Runner):
        def __call__(self, argv, **options):
            if argv[0] == "mount" and argv[-1] == "/mnt/target/boot":
                raise _command.CommandFailed("mount failed with exit code 32: bad superblock")
            return super().__call__(argv, **options)

    def work():
        world = World(disk)
        with pytest.raises(TargetError, match="/var"):
            storage(Fails(60)).mount("/mnt/target", "rw", f"{disk}p2")
        world.assert_clean()
        done = storage(Fails(60)).mount("/mnt/target", "rw", f"{disk}p2", force=True)
        assert [each["target"] for each in done["mounts"]] == ["/mnt/target"]
        assert {"spec": f"{disk}p4", "file": "/boot",
                "reason": "It cannot be mounted: mount failed with exit code 32: bad superblock"} in done["left_out"]
        storage().unmount()
        world.assert_clean()

    alone(work)


def test_what_has_no_name_of_interest_is_mounted_where_a_system_wants_it(disk):
    """Its top can be listed, but the kernel does not take it: check mode says so, and mode=rw."""
    def work():
        sh('label=$(blkid -p -o value -s LABEL "$1"); mkfs.ext4 -q -F -O ^metadata_csum -L "$label" "$1"; '
           'debugfs -w -R "set_bg 0 block_bitmap 999999999" "$1"', f"{disk}p4")
        sh('blockdev --flushbufs "$1"', disk)
        device = _devices.Device(f"{disk}p4", "", "part", tag={"TYPE": "ext4"})
        assert _ext4_listing.listings(_command.Runner(), [device]) == {device.path: ["lost+found"]}
        world = World(disk)
        for check in (True, False):
            done = storage().mount("/mnt/target", "rw", f"{disk}p2", force=True, check=check)
            reason = next(each["reason"] for each in done["left_out"] if each["file"] == "/boot")
            assert reason.startswith("It cannot be mounted: ")
        storage().unmount()
        world.assert_clean()

    alone(work)


@pytest.mark.parametrize(("mode", "quota", "expected"), [
    ("rw", True, "rw,uquota,pqnoenforce,inode64,nodev"),
    ("rw", False, "rw,inode64,nodev"),
    ("ro", True, "ro,inode64,nodev,norecovery"),
])
def test_quotas_of_an_xfs_stay_as_they_are(mode, quota, expected):
    device = _devices.Device("/dev/vdb2", "254:2", "part", tag={"TYPE": "xfs", "UUID": "x"})
    looked = storage()
    looked.devices, looked.contents = _devices.Devices([device]), {device.path: _systems.Content(quota=quota)}
    planned = looked._planned(device, "/var", ["defaults", "uquota", "pqnoenforce", "inode64", "discard"], mode)
    assert ",".join(planned.options) == expected


def test_more_means_mount_what_lacks(disk):
    def work():
        world, system = World(disk), f"{disk}p2"
        secret = _layers.Key(passphrase="correct horse")

        def mount(*keys):
            storage_ = _mounting.Storage(_command.Runner(timeout=60), keys=keys)
            return storage_.mount("/mnt/target", "rw", system, force=True)["changed"]

        # A line of its fstab is not served: with a key it might be.
        assert [mount(), mount(), mount(secret), mount(secret), mount()] == [True, False, True, False, False]
        assert "correct horse" not in pathlib.Path("/run/lifeboat/journal.json").read_text()
        storage().unmount()
        world.assert_clean()

    alone(work)


@pytest.mark.parametrize(("more", "said"), [
    ("rm etc/fstab; mkdir etc/fstab", "could not be read whole"),
    ("mkdir boot/grub; rmdir boot/grub; ln -s grub boot/grub", None),
])
def test_a_system_that_cannot_be_read_whole(tmp_path, more, said):
    path = build(tmp_path, "", more)

    def work():
        with attached(path) as disk:
            world = World(disk)
            if said:
                with pytest.raises(TargetError, match=said):
                    storage().mount("/mnt/target", "rw", f"{disk}p2")
                world.assert_clean()
            done = storage().mount("/mnt/target", "rw", f"{disk}p2", force=True)
            assert done["mounts"][0]["target"] == "/mnt/target"
            assert [note for note in done["notes"] if note.startswith("Not all of it can be read: ")] or said
            storage().unmount()
            world.assert_clean()

    alone(work)


@pytest.mark.parametrize("to", ["/run/udev/queue", "../run/lvm/hints", "/run/lock", "/run/udev"])
def test_resolv_conf_that_leads_into_what_the_rescue_system_keeps(tmp_path, to):
    path = build(tmp_path, "", f"rm etc/resolv.conf; ln -s {to} etc/resolv.conf")

    def work():
        with attached(path) as disk:
            sh("mkdir /run/udev /run/lvm; touch /run/lvm/hints")
            world = World(disk)
            done = storage().mount("/mnt/target", "rw", f"{disk}p2", force=True)
            assert any("resolv.conf leads to no file" in note for note in done["notes"])
            storage().unmount()
            assert os.listdir("/run/udev") == [] and pathlib.Path("/run/lvm/hints").read_bytes() == b""
            world.assert_clean()

    alone(work)


# Killed -------------------------------------------------------------------------------------------------------------


class Killer(_command.Runner):
    """Dies, as by kill -9, before its n-th command that changes something, or before the n-th write of the journal."""

    def __init__(self, count):
        super().__init__(timeout=60)
        self.count, self.pid = count, os.getpid()

    def tick(self):
        if os.getpid() == self.pid:
            self.count -= 1
            if self.count == 0:
                os._exit(9)

    def __call__(self, argv, **options):
        if argv[0] in ("mount", "umount", "unshare", "blockdev"):
            self.tick()
        return super().__call__(argv, **options)


def killed(count, work):
    """Do work(runner) in a child that dies at its count-th step. Return whether it did."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            runner = Killer(count)
            save, end = _journal.Journal.save, _journal.Journal.end
            _journal.Journal.save = lambda self: (runner.tick(), save(self))
            _journal.Journal.end = lambda self: (runner.tick(), end(self))
            work(runner)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 9)
    return code == 9


@pytest.mark.parametrize("then", ["unmounted", "mounted"])
@pytest.mark.parametrize("during", ["mounting", "unmounting"])
def test_killed_at_each_step(disk, during, then):
    def work():
        world = World(disk)
        steps = 0
        while True:
            if during == "unmounting":
                storage().mount("/mnt/target", "ro", f"{disk}p2", force=True)
            steps += 1
            dead = killed(steps, lambda runner: storage(runner).mount("/mnt/target", "ro", f"{disk}p2", force=True)
                          if during == "mounting" else storage(runner).unmount())
            if then == "mounted":
                result = storage().mount("/mnt/target", "ro", f"{disk}p2", force=True)
                assert len(result["mounts"]) == 2
                assert _target.inside(_command.Runner(20), "/mnt/target", ["cat", "/etc/hostname"]).out == "lost\n"
            storage().unmount()
            world.assert_clean()
            if not dead:
                break
        assert steps > 10

    alone(work)


def test_a_failure_half_way_leaves_nothing(disk):
    class Fails(_command.Runner):
        def __call__(self, argv, **options):
            if argv[0] == "unshare":
                raise _command.CommandFailed("unshare failed.")
            return super().__call__(argv, **options)

    def work():
        world = World(disk)
        with pytest.raises(TargetError, match=r"unshare failed\. What was mounted before it was unmounted again"):
            storage(Fails(60)).mount("/mnt/target", "ro", f"{disk}p2", force=True)
        world.assert_clean()

    alone(work)


# Hostile ------------------------------------------------------------------------------------------------------------

HOSTILE = """LABEL=boot-@ /link ext2 defaults 0 0
LABEL=boot-@ /real/link/etc ext2 defaults 0 0
LABEL=boot-@ /../../../../mnt/outside ext2 defaults 0 0
LABEL=boot-@ /real/../../outside ext2 defaults 0 0
LABEL=boot-@ /dangling ext2 defaults 0 0
LABEL=boot-@ /etc/hostname ext2 defaults 0 0
LABEL=boot-@ /spaced\\040$(touch\\040pwned) ext2 defaults,exec,suid,dev,user,x-mount.mkdir,comment=$(id),loop=/x 0 0
LABEL=boot-@ /-o ext2 defaults 0 0
-bind /x ext4 defaults
--help /y auto defaults
"""
BREAK = r"""
mkdir real 'spaced $(touch pwned)' ./-o
mkdir -p mnt/outside/etc  # inside the target, the links below lead here, and mount(8) would follow them outside
ln -s /mnt/outside link; ln -s /mnt/outside real/link; ln -s /nowhere dangling
rmdir dev proc; ln -s /mnt/outside dev; ln -s ../../../../mnt/outside proc
rm etc/resolv.conf usr/sbin/policy-rc.d etc/ssh/*
ln -s ../../../../mnt/outside/resolv.conf etc/resolv.conf
ln -s /mnt/outside/policy usr/sbin/policy-rc.d
ln -s /mnt/outside/secret etc/ssh/ssh_host_rsa_key.pub
mkfifo etc/ssh/ssh_host_dsa_key.pub
rm etc/os-release usr/lib/os-release; mkfifo usr/lib/os-release; ln -s /mnt/outside/secret etc/os-release
"""


def test_a_hostile_target_reaches_nothing_outside(tmp_path):
    path = build(tmp_path, HOSTILE, BREAK)

    def work():
        with attached(path) as disk:
            sh(r"mkdir -p /mnt/outside/etc; cd /mnt/outside; echo 'ssh-rsa AAAAsecret' > secret; echo x > resolv.conf;"
               r"printf '#!/bin/sh\n' > policy; chmod 0755 policy")
            world = World(disk)
            outside = sh("cd /mnt/outside; find . -printf '%p %m %s %T@ %i\n'; cat resolv.conf secret policy")
            result = storage().mount("/mnt/target", "rw", f"{disk}p2", force=True)
            assert [(each["target"], each["options"]) for each in result["mounts"]] == [
                ("/mnt/target", "rw,noatime,nodev"), ("/mnt/target/boot", "ro,nodev"),
                ("/mnt/target/spaced $(touch pwned)", "rw,nodev"), ("/mnt/target/-o", "rw,nodev")]
            assert result["ssh_host_keys"] == []
            assert result["system"]["os"] == {}
            told = {each["file"]: each["reason"] for each in result["left_out"]}
            for point in ("/link", "/real/link/etc", "/dangling", "/etc/hostname"):
                assert "mount point" in told[point]
            assert "'..'" in told["/../../../../mnt/outside"]
            assert "The target has no directory /dev" in " ".join(result["notes"])
            assert "resolv.conf" in " ".join(result["notes"])
            points = {line.split()[4] for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines()}
            assert not any(point.startswith("/mnt/outside") for point in points)
            inside = subprocess.Popen(["nsenter", "--mount=/run/lifeboat/target.ns", "/bin/sh", "-c", "echo up; cat"],
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            assert inside.stdout.readline() == b"up\n"
            points = {line.split()[4] for line in pathlib.Path(f"/proc/{inside.pid}/mountinfo").read_text().splitlines()}
            assert {"/", "/boot", "/-o"} <= points and not any(point.startswith("/mnt") for point in points)
            inside.communicate()
            storage().unmount()
            assert sh("cd /mnt/outside; find . -printf '%p %m %s %T@ %i\n'; cat resolv.conf secret policy") == outside
            world.assert_clean()

    alone(work)


def test_reading_the_disks_ends_when_a_disk_does_not_answer():
    with pytest.raises(TargetError, match="did not end within"):
        _child.apart(lambda: select.select([], [], [], 60), timeout=0.2)
    with pytest.raises(TargetError, match="was killed"):
        _child.apart(lambda: os._exit(9), timeout=5)
    with pytest.raises(TargetError, match="ValueError"):
        _child.apart(lambda: [].index("x"), timeout=5)
    with pytest.raises(LifeboatError):
        _child.apart(lambda: _command.Runner()(["false"]), timeout=5)
