# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab's machines, images and inspection, on machines that boot."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lifeboat_lab.images import File, Images, LabError, ensure, prepare
from lifeboat_lab.inspect import diff_manifests, inspect_disk
from lifeboat_lab.machine import Machine, Running, make_host_keys, overlay, written
from lifeboat_lab.server import Faults, Installed, Rescue
from lifeboat_lab.waiting import until

PATIENCE = 240  # seconds for what takes 5 to 30 on a machine with nothing else to do
PASSWORD = "pass word, with $igns"


class Key:
    """A pair of SSH keys."""

    def __init__(self, directory: Path):
        self.path = directory / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(self.path)], check=True)
        self.public = self.path.with_suffix(".pub").read_text()
        self.files = {"/root/.ssh/authorized_keys": File(self.public.encode())}


@pytest.fixture(scope="module")
def images() -> Images:
    return ensure(print)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Key:
    return Key(tmp_path_factory.mktemp("key"))


@pytest.fixture(scope="module", params=["boots", "resumes"])
def shared(request: pytest.FixtureRequest, images: Images, key: Key, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A GPT server whose installed system lets the key in; its rescue system boots, or is resumed."""
    directory = tmp_path_factory.mktemp("gpt")
    disk = prepare(images.disk("gpt"), directory / "gpt.img", key.files)
    with Machine("gpt", [disk], directory / "machine", rescue_first=True, images=images,
                 resumes=request.param == "resumes") as machine:
        yield machine


@pytest.fixture
def rescued(shared: Machine, key: Key) -> Machine:
    """The GPT server, in rescue, without faults; it is booted only where the test before left something else."""
    shared.faults = Faults()
    shared.next_boot = lambda: Rescue(authorized_keys=[key.public])
    if not shared.running or shared.boots[-1].kind != "rescue":
        shared.reset()
        shared.wait_for_boot(len(shared.boots) + 1, PATIENCE)
    log_in(shared, key)
    return shared


def ssh(machine: Machine, *options: str, command: str,
        env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    # A button that was just pressed may not have booted it yet.
    boot = machine.wait_for_boot(max(1, len(machine.boots)), PATIENCE)
    known = boot.console.with_name("known_hosts")
    known.write_text("".join(f"* {line}\n" for line in boot.host_keys or ensure().host_keys))
    return subprocess.run(
        ["ssh", "-F", "none", "-o", "StrictHostKeyChecking=yes", "-o", f"UserKnownHostsFile={known}",
         "-o", "ConnectTimeout=15", "-o", "LogLevel=ERROR", *options, "-p", str(machine.port),
         f"root@{machine.address}", command],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120,
        env={**os.environ, **(env or {})}, check=False)


def log_in(machine: Machine, key: Key, command: str = "true") -> str:
    """Return what command prints, as soon as the machine lets us in."""
    deadline = time.monotonic() + PATIENCE
    while True:
        done = ssh(machine, "-o", "BatchMode=yes", "-i", str(key.path), command=command)
        if done.returncode != 255:
            assert done.returncode == 0, done.stdout
            return done.stdout.strip()
        assert time.monotonic() < deadline, (done.stdout, machine.errors, machine.boots[-1].console.read_text()[-2000:])
        time.sleep(0.2)


def test_rescue_is_what_was_asked_for(images: Images, key: Key, tmp_path: Path) -> None:
    host_keys = make_host_keys()
    boot = Rescue(authorized_keys=[key.public], password=PASSWORD, host_keys=host_keys)
    with Machine("mbr", [images.disk("mbr")], tmp_path / "machine", bus="virtio-scsi", images=images) as machine:
        machine.power_on(boot)
        assert log_in(machine, key, "cat /proc/1/comm /etc/hostname /root/.bashrc") == "init\nrescue-customer-eu"

        # the server's own disk is whole, and the rescue system's is seen to be in use
        found = log_in(machine, key, "lsblk --noheadings --list --output FSTYPE,MOUNTPOINT")
        assert sorted(line.split() for line in found.split("\n") if line.strip()) == [
            ["erofs", "/run/live/rootfs"], ["ext4"], ["ext4"], ["swap"]]
        root = "/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_target0-part5"
        log_in(machine, key, f"mount {root} /mnt && test -f /mnt/etc/fstab && umount /mnt")

        # the kernel's modules are there
        log_in(machine, key, "modprobe -a raid1 dm_crypt xfs vfat btrfs && echo add table t | nft -c -f -")

        # the host keys are those that were given
        private = tmp_path / "host_key"
        private.touch(0o600)
        private.write_text(host_keys["ed25519"])
        public = subprocess.run(["ssh-keygen", "-y", "-f", str(private)], check=True, capture_output=True, text=True).stdout
        assert " ".join(public.split()[:2]) in machine.boots[0].host_keys

        # by password, too
        ask = tmp_path / "ask"
        ask.write_text(f"#!/bin/sh\necho '{PASSWORD}'\n")
        ask.chmod(0o700)
        by_password = ssh(machine, "-o", "PubkeyAuthentication=no", command="echo in",
                          env={"SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force"})
        assert by_password.stdout == "in\n"

        # and nothing of it where others could see it
        assert PASSWORD.encode() not in Path(f"/proc/{machine.pid}/cmdline").read_bytes()
        assert (tmp_path / "machine/initrd").stat().st_mode & 0o077 == 0
        assert (tmp_path / "machine").stat().st_mode & 0o077 == 0

        machine.soft_off()
        machine.wait_for_off(PATIENCE)
    assert machine.errors == []


def test_an_mbr_server_boots_by_itself(images: Images, key: Key, tmp_path: Path) -> None:
    disk = prepare(images.disk("mbr"), tmp_path / "mbr.img", key.files)
    with Machine("mbr", [disk], tmp_path / "machine", bus="nvme", images=images) as machine:
        machine.power_on()
        found = log_in(machine, key, "findmnt -n -o SOURCE /; findmnt -n -o SOURCE /boot; "
                                     "swapon --show=NAME --noheadings")
        assert found.split() == ["/dev/nvme0n1p5", "/dev/nvme0n1p1", "/dev/nvme0n1p2"]

        machine.next_boot = lambda: Rescue(authorized_keys=[key.public])
        log_in(machine, key, "systemctl reboot")
        machine.wait_for_boot(2, PATIENCE)
        log_in(machine, key, "findmnt /run/live/rootfs && test -b /dev/disk/by-id/nvme-QEMU_NVMe_Ctrl_target0-part5")
        machine.soft_off()
        machine.wait_for_off(PATIENCE)
    assert machine.errors == []


def test_an_installed_system_boots_without_its_boot_loader(images: Images, key: Key, tmp_path: Path) -> None:
    disk = prepare(images.disk("mbr"), tmp_path / "mbr.img", key.files)
    with Machine("direct", [disk], tmp_path / "machine", images=images) as machine:
        machine.direct = "mbr"
        machine.power_on()
        found = log_in(machine, key, "findmnt -n -o SOURCE /; findmnt -n -o OPTIONS /; findmnt -n -o SOURCE /boot; cat /proc/cmdline; "
                                     "systemctl is-system-running --wait")
        root, options, boot, words, state = found.split("\n")
        assert (root, boot, state) == ("/dev/vda5", "/dev/vda1", "running") and options.startswith("rw,")
        # as GRUB would have it, but for who handed it over
        said = log_in(machine, key, "grep -o 'root=UUID.*' /boot/grub/grub.cfg")
        assert words == said and "BOOT_IMAGE" not in words
    assert machine.errors == []


def test_a_guests_reboot_boots_what_is_armed_unless_it_is_the_wrong_one(rescued: Machine, key: Key) -> None:
    number = len(rescued.boots)
    rescued.faults.wrong_boot = 1
    log_in(rescued, key, "reboot")
    assert rescued.wait_for_boot(number + 1, PATIENCE).kind == "installed"
    assert log_in(rescued, key, "cat /etc/hostname; findmnt -n -o SOURCE /; findmnt -n -o FSTYPE /srv") == (
        "installed\n/dev/vda3\nxfs")
    assert "tcp dport { 22, 80, 443 } accept" in log_in(rescued, key, "nft list ruleset")

    log_in(rescued, key, "systemctl reboot")
    boot = rescued.wait_for_boot(number + 2, PATIENCE)
    assert boot.kind == "rescue"
    assert log_in(rescued, key, "cat /etc/hostname; findmnt -n -o SOURCE /run/live/rootfs") == (
        "rescue-customer-eu\n/dev/vda")  # the first of two disks, as asked for
    assert boot.host_keys != rescued.boots[number - 1].host_keys
    assert rescued.errors == []


def test_resets_can_be_ignored_or_come_late(rescued: Machine, key: Key) -> None:
    boot_id = "cat /proc/sys/kernel/random/boot_id"
    number, old = len(rescued.boots), log_in(rescued, key, boot_id)
    rescued.faults.ignore_resets = 1
    rescued.reset()
    assert log_in(rescued, key, boot_id) == old

    rescued.faults.linger = 8
    asked = time.time()
    rescued.reset()
    assert log_in(rescued, key, boot_id) == old or len(rescued.boots) > number
    assert rescued.wait_for_boot(number + 1, PATIENCE).started_at >= asked + 8
    assert log_in(rescued, key, boot_id) != old
    assert len(rescued.boots) == number + 1
    assert rescued.errors == []


def test_sshd_can_come_late(rescued: Machine, key: Key) -> None:
    number = len(rescued.boots)
    rescued.faults.ssh_delay = 10
    rescued.reset()
    rescued.wait_for_boot(number + 1, PATIENCE)
    system_up, sshd_up = log_in(rescued, key, "stat --format=%Y /run/sshd /run/sshd.pid").split()
    assert int(sshd_up) - int(system_up) >= 10


def test_each_boot_keeps_the_disk_as_it_was(rescued: Machine, key: Key) -> None:
    number = len(rescued.boots)
    log_in(rescued, key, "mount /dev/vdb3 /mnt && echo kept > /mnt/srv-note && umount /mnt")
    rescued.power_off()
    rescued.wait_for_off(PATIENCE)
    assert rescued.pid is None
    rescued.power_on()
    boot = rescued.wait_for_boot(number + 1, PATIENCE)
    assert log_in(rescued, key, "mount -o ro /dev/vdb3 /mnt && cat /mnt/srv-note && umount /mnt") == "kept"
    before = rescued.boots[number - 1].disks[0]
    assert before.read_bytes() != boot.disks[0].read_bytes()


# What a resumed machine might have of its template, or of another copy: a word a line.
WHO = """
cat /proc/sys/kernel/random/boot_id
cut -d' ' -f1 /proc/uptime
date +%s.%N
awk '$1 == "btime" { print $2 }' /proc/stat
od -An -N16 -tx1 /dev/urandom | tr -d ' '
ps -o etimes= -p $$
"""


def who(machine: Machine, key: Key) -> tuple[str, str]:
    """Check that clock and uptime are those of a machine that was reset when this one was; return boot id and random bytes."""
    log_in(machine, key)
    before = time.time()
    boot_id, uptime, now, btime, noise, age = log_in(machine, key, WHO).split()
    after = time.time()
    reset = machine.boots[-1].started_at
    assert before - 0.5 <= float(now) <= after + 0.5
    assert before - reset - 0.5 <= float(uptime) <= after - reset + 0.1
    assert abs(float(btime) - reset) <= 1.5
    assert int(age) <= 120
    return boot_id, noise


def test_resumed_rescue_systems_are_servers_of_their_own(images: Images, key: Key, tmp_path: Path) -> None:
    small = tmp_path / "small.img"
    with small.open("wb") as file:
        file.truncate(300 << 20)
        file.seek(100 << 20)
        file.write(b"this is the small disk\n")
    with Machine("large", [images.disk("mbr")], tmp_path / "large", images=images, resumes=True) as large, \
            Machine("small", [small], tmp_path / "little", images=images, resumes=True) as little:
        for machine in (large, little):
            machine.next_boot = lambda: Rescue(authorized_keys=[key.public], password=PASSWORD)
            machine.power_on()
        seen = [who(machine, key) for machine in (large, little)]
        little.reset()
        little.wait_for_boot(2, PATIENCE)
        seen.append(who(little, key))
        assert [boot.resumed for boot in large.boots + little.boots] == [large.can_resume] * 3
        for each in zip(*seen, strict=True):  # boot ids, random bytes
            assert len(set(each)) == 3
        assert len({machine.boots[number].host_keys for machine, number in ((large, 0), (little, 0), (little, 1))}) == 3

        # the disks are those that were given: names, sizes, partitions, content
        about = "lsblk --bytes --noheadings --list --output NAME,SIZE,SERIAL,FSTYPE,MOUNTPOINT | tr -s ' '"
        rescue = f"vdb {images.rescue.stat().st_size} rescue erofs /run/live/rootfs"
        assert [line.strip() for line in log_in(large, key, about).splitlines()] == [
            f"vda {images.disk('mbr').stat().st_size} target0", f"vda1 {256 << 20} ext4", f"vda2 {128 << 20} swap", "vda3 1024",
            f"vda5 {2048 << 20} ext4", rescue]
        assert [line.strip() for line in log_in(little, key, about).splitlines()] == [f"vda {300 << 20} target0", rescue]
        log_in(large, key, "mount /dev/disk/by-id/virtio-target0-part5 /mnt && test -f /mnt/etc/fstab && umount /mnt")
        assert log_in(little, key, "dd if=/dev/vda bs=1M skip=100 count=1 status=none | head -c 22") == "this is the small disk"

        # nothing of the template is left, and nobody sees the password
        same = "cat /etc/inittab /usr/local/sbin/lab-boot /etc/hostname | sha256sum; ls -a / /root /root/.ssh /run /etc/ssh; " \
               "ip -4 -o address; findmnt --noheadings --raw --output TARGET,SOURCE,FSTYPE; " \
               "nft list ruleset; lsmod | sort | cut -d' ' -f1; losetup; ps --ppid 2 -N -o comm="
        with Machine("booted", [small], tmp_path / "booted", images=images) as booted:
            booted.power_on(Rescue(authorized_keys=[key.public], password=PASSWORD))
            assert set(log_in(booted, key, same).splitlines()) ^ set(log_in(little, key, same).splitlines()) == set()
        for machine in (large, little):
            assert PASSWORD.encode() not in Path(f"/proc/{machine.pid}/cmdline").read_bytes()
        ask = tmp_path / "ask"
        ask.write_text(f"#!/bin/sh\necho '{PASSWORD}'\n")
        ask.chmod(0o700)
        by_password = ssh(little, "-o", "PubkeyAuthentication=no", command="echo in",
                          env={"SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force"})
        assert by_password.stdout == "in\n"

        log_in(little, key, "printf x | dd of=/dev/vda bs=1 seek=$((200 << 20)) conv=fsync,notrunc status=none")
        for machine in (large, little):
            machine.soft_off()
            machine.wait_for_off(PATIENCE)
        assert [start for start, _length in written(little.disks[0])] == [200 << 20]
        assert large.errors == little.errors == []


def test_an_installed_system_that_runs_already(images: Images, key: Key, tmp_path: Path) -> None:
    files = {**key.files, "/root/note": File(b"odd \xff bytes\n", 0o640)}
    machines = []
    with contextlib.ExitStack() as stack:
        for name in ("one", "two"):
            disk = prepare(images.disk("gpt"), tmp_path / f"{name}.img", files)
            machines.append(stack.enter_context(Machine(name, [disk], tmp_path / name, images=images)))
            machines[-1].power_on(Running("gpt", files))
        seen = []
        for machine in machines:
            log_in(machine, key)
            before = time.time()
            boot_id, now, noise = log_in(machine, key, "cat /proc/sys/kernel/random/boot_id; date +%s.%N; "
                                                       "od -An -N16 -tx1 /dev/urandom | tr -d ' '").split()
            assert before - 0.5 <= float(now) <= time.time() + 0.5
            seen.append((boot_id, noise))
            assert log_in(machine, key, "stat -c %a:%U /root/.ssh/authorized_keys /root/note; head -c 6 /root/note | od -An -tx1") == (
                "644:root\n640:root\n 6f 64 64 20 ff 20")
            assert (machine.boots[0].kind, machine.boots[0].resumed) == ("installed", machine.can_resume)
        for each in zip(*seen, strict=True):
            assert len(set(each)) == 2
        one, two = machines
        same = "cat /etc/hostname /etc/fstab; findmnt -n -o SOURCE,FSTYPE / /srv; nft list ruleset; systemctl is-system-running; " \
               "systemctl list-units --no-legend --plain --type=service --state=running | cut -d' ' -f1 | grep -v ^session; ls -a /root"
        running = log_in(one, key, same)
        # what was written is there after a reset, which boots, and the system is the same as the one that was resumed
        log_in(one, key, "echo kept > /root/kept && sync")
        one.reset()
        assert not one.wait_for_boot(2, PATIENCE).resumed
        assert log_in(one, key, "cat /root/kept; rm /root/kept; head -c 3 /root/note") == "kept\nodd"
        log_in(one, key, "systemctl is-system-running --wait")
        assert log_in(one, key, same) == running
        with pytest.raises(LabError, match="cannot be said to run already"):
            one.reset(Running("gpt", files))
            one.wait_for_boot(3, PATIENCE)
        two.soft_off()
        two.wait_for_off(PATIENCE)
        assert two.errors == []


def test_what_cannot_be_resumed_boots(images: Images, key: Key, tmp_path: Path) -> None:
    with Machine("nvme", [images.disk("mbr")], tmp_path / "nvme", bus="nvme", images=images, resumes=True) as machine:
        machine.power_on(Rescue(authorized_keys=[key.public]))
        assert not machine.wait_for_boot(1, PATIENCE).resumed
        assert log_in(machine, key, "lsblk --nodeps --noheadings --output NAME,SERIAL | tr -s ' ' | sort") == \
            "nvme0n1 target0\nnvme1n1 rescue"


def test_the_inspection_finds_what_differs_and_nothing_else(images: Images, tmp_path: Path) -> None:
    plain = images.disk("gpt")
    changed = prepare(plain, tmp_path / "gpt.img", {
        "/etc/motd": File(b"changed\n"), "/etc/hostname": File(b"installed\n", 0o600),
        "/root/.ssh/authorized_keys": File(b"key\n", 0o600)})
    offset = 66 * 1024 * 1024
    subprocess.run(["debugfs", "-w", "-R", "ea_set /etc/hosts user.lab here", f"{changed}?offset={offset}"], check=True,
                   env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, stderr=subprocess.DEVNULL)
    before = inspect_disk(plain, tmp_path, images, timeout=PATIENCE)
    after = inspect_disk(changed, tmp_path, images, timeout=PATIENCE)

    difference = diff_manifests(before, after)
    assert set(difference) == {"/etc/motd", "/etc/hostname", "/etc/hosts", "/root/.ssh/authorized_keys"}
    old, new = difference["/etc/hostname"]
    assert old and new and old == new._replace(mode=0o644)
    old, new = difference["/etc/hosts"]
    assert old and new and new == old._replace(xattrs={"user.lab": "here"})
    assert after["/root/.ssh"][:4] == ("dir", 0o700, 0, 0)
    assert after["/root/.ssh/authorized_keys"][:5] == ("file", 0o600, 0, 0, 4)
    # the other file systems stand where fstab has them
    assert after["/boot/efi/README.TXT"].kind == after["/srv/index.txt"].kind == "file"
    assert after["/bin"][0] == "link" and after["/bin"].digest == "usr/bin"


def test_disks_come_and_go_while_it_runs(images: Images, key: Key, tmp_path: Path) -> None:
    with (tmp_path / "blank.img").open("wb") as blank:
        blank.truncate(64 << 20)
    with Machine("plug", [], tmp_path / "machine", images=images, hotplug=True) as machine:
        machine.power_on(Rescue(authorized_keys=[key.public]))
        empty = log_in(machine, key, "lsblk --nodeps --noheadings --output NAME")
        for bus, device, write in (("virtio-scsi", "sda", False), ("virtio-blk", "vdb", True), ("nvme", "nvme0n1", True)):
            layer = overlay(Path(blank.name), tmp_path / f"{bus}.qcow2")
            machine.plug(bus, layer, bus=bus, serial="mine", bad_sectors=[2048, 4096])
            seen = f"for try in $(seq 100); do [ -b /dev/{device} ] && break; sleep 0.1; done; udevadm settle; "
            assert log_in(machine, key, f"{seen} lsblk --nodeps --noheadings --output SERIAL /dev/{device}") == "mine"
            read = f"dd if=/dev/{device} of=/dev/null bs=4096 iflag=direct count=1"
            assert "error" not in log_in(machine, key, f"{read} skip=255 2>&1")
            for bad in (256, 512):
                assert "error reading" in log_in(machine, key, f"{read} skip={bad} 2>&1 || true")
            if write:
                log_in(machine, key, f"printf x | dd of=/dev/{device} bs=1 seek=$((32 << 20)) conv=fsync,notrunc")
            machine.unplug(bus)
            assert [start for start, _length in written(layer)] == ([32 << 20] if write else [])
            until(lambda: log_in(machine, key, "lsblk --nodeps --noheadings --output NAME") == empty)
        with pytest.raises(LabError, match="No such file"):
            machine.plug("none", tmp_path / "none.img")
        machine.power_off()
        machine.wait_for_off(PATIENCE)
        with pytest.raises(LabError, match="off"):
            machine.plug("late", tmp_path / "blank.img")
    assert machine.errors == []


def test_prepare_says_when_it_cannot(images: Images, tmp_path: Path) -> None:
    with pytest.raises(LabError, match="/no/such/directory/file"):
        prepare(images.disk("gpt"), tmp_path / "gpt.img", {"/no/such/directory/file": File(b"x")})


def test_a_machine_leaves_nothing(images: Images, tmp_path: Path) -> None:
    machine = Machine("one", [images.disk("gpt")], tmp_path / "one", images=images)
    other = Machine("two", [images.disk("gpt")], tmp_path / "two", images=images)
    assert (machine.address, machine.port) != (other.address, other.port)
    machine.power_on()
    machine.wait_for_boot(1, 60)
    pid = machine.pid
    assert pid
    machine.close()
    machine.close()
    assert not Path(f"/proc/{pid}").exists()
    other.close()
    with (Machine("again", [images.disk("gpt")], tmp_path / "again", images=images, address=machine.address,
                  port=machine.port),
          pytest.raises(LabError, match="No free address")):
        Machine("late", [images.disk("gpt")], tmp_path / "late", images=images, address=machine.address,
                port=machine.port)


def test_a_qemu_that_fails_is_told(images: Images, tmp_path: Path) -> None:
    with Machine("odd", [images.disk("gpt")], tmp_path / "odd", memory=-1, images=images) as machine:
        machine.power_on(Installed())
        with pytest.raises(LabError, match="ended by itself"):
            machine.wait_for_boot(2, 60)


@pytest.mark.parametrize(("how", "resumes"), [(signal.SIGINT, False), (signal.SIGTERM, False), (signal.SIGKILL, False),
                                              (signal.SIGTERM, True), (signal.SIGKILL, True)])
def test_nothing_outlives_the_process(images: Images, tmp_path: Path, how: signal.Signals, resumes: bool) -> None:
    script = f"""
import signal
from pathlib import Path
from lifeboat_lab.images import Images
from lifeboat_lab.machine import Machine
from lifeboat_lab.server import Rescue

signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may have it ignored
images = Images(Path({str(images.directory)!r}))
machine = Machine("m", [images.disk("gpt")], Path({str(tmp_path)!r}) / "m", images=images, resumes={resumes})
machine.power_on(Rescue() if {resumes} else None)
machine.wait_for_boot(1, 60)
print(machine.pid, flush=True)
signal.pause()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          text=True) as child:
        try:
            assert child.stdout
            pid = int(child.stdout.readline())
            until(lambda: "qemu" in os.readlink(f"/proc/{pid}/exe"))
            child.send_signal(how)
            child.wait(timeout=60)
            until(lambda: not Path(f"/proc/{pid}").exists())
        finally:
            child.kill()
