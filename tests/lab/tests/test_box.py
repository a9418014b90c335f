# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Boxes: what a system inside sees, what a client outside sees, and that nothing of them is left."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import paramiko
import pytest

from lifeboat_lab.box import Box, Systems
from lifeboat_lab.images import File, LabError, ensure
from lifeboat_lab.server import Installed, Rescue
from lifeboat_lab.waiting import until

PATIENCE = 60.0  # seconds for what takes a fraction of one
PASSWORD = "pass word, with $igns"


class Key:
    """A pair of SSH keys."""

    def __init__(self, directory: Path):
        self.path = directory / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(self.path)], check=True)
        self.public = self.path.with_suffix(".pub").read_text()
        self.files = {"/root/.ssh/authorized_keys": File(self.public.encode(), 0o600)}


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Key:
    return Key(tmp_path_factory.mktemp("key"))


@pytest.fixture
def box(key: Key, tmp_path: Path) -> Iterator[Box]:
    """One that is off; both of its systems let the key in."""
    with Box("box", tmp_path / "box", files=key.files) as made:
        yield made
        assert made.errors == []


def known_hosts(box: Box, directory: Path) -> Path:
    """A file with the host keys of the system that was booted last."""
    path = directory / f"known_hosts-{box.port}-{box.address}"
    keys = (box.boots[-1].host_keys if box.boots else ()) or box.host_keys
    path.write_text("".join(f"[{box.address}]:{box.port} {host_key}\n{box.address} {host_key}\n" for host_key in keys))
    return path


def ssh(box: Box, key: Key, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as root."""
    argv = ["ssh", "-F", "none", "-p", str(box.port), "-i", str(key.path), "-o", "BatchMode=yes", "-o", "LogLevel=ERROR",
            "-o", f"UserKnownHostsFile={known_hosts(box, key.path.parent)}", "-o", "StrictHostKeyChecking=yes",
            f"root@{box.address}", command]
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False)


def run(box: Box, key: Key, command: str) -> str:
    """Run a command as root as soon as that is possible; return what it printed."""
    until(lambda: ssh(box, key, "true").returncode == 0, PATIENCE, f"{box.name} lets nobody in.", every=0.05)
    return ssh(box, key, command).stdout.strip()


def rescue(key: Key) -> Rescue:
    return Rescue(authorized_keys=(key.public,))


def fingerprint(box: Box) -> set[str]:
    """The host keys that it shows (lines "type key")."""
    def scan() -> set[str]:
        done = subprocess.run(["ssh-keyscan", "-p", str(box.port), "-t", "ed25519,ecdsa", box.address], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True, check=False)
        return {" ".join(line.split()[1:3]) for line in done.stdout.splitlines()}

    # It asks for one key after the other, and sshd may not have listened yet for the first one.
    until(scan, PATIENCE)
    return scan()


# Leaves a process that says so when it is asked to end.
WITNESS = ("setsid sh -c \"trap 'echo bye; exit' TERM HUP; touch /run/ready; while :; do sleep 0.05; done\" "
           ">/root/heard 2>/dev/null </dev/null & until [ -e /run/ready ]; do sleep 0.05; done")
EVIDENCE = ("cat /proc/sys/kernel/random/boot_id; hostname; cut -d ' ' -f 1 /proc/uptime; awk '/btime/ {print $2}' /proc/stat; "
            "awk '$2 == \"/\" {print $1, $3}' /proc/mounts; readlink /proc/self/ns/pid")


def test_each_boot_is_one_of_its_own(box: Box, key: Key) -> None:
    """Boot id, name, uptime, root file system and processes: none is the host's, nor the boot's before."""
    boot_ids = {Path("/proc/sys/kernel/random/boot_id").read_text().strip()}
    for number, (boot, kind, hostname, root) in enumerate((
            (Installed(), "installed", "installed", "/dev/vda3 ext4"), (rescue(key), "rescue", "rescue-customer-eu", "rescue overlay"),
            (Installed(), "installed", "installed", "/dev/vda3 ext4")), start=1):
        asked = time.time()
        box.reset(boot)
        begun = box.wait_for_boot(number, PATIENCE)
        boot_id, name, uptime, btime, mount, pid = run(box, key, EVIDENCE).splitlines()
        assert (begun.number, begun.kind, begun.disks) == (number, kind, ())
        assert (name, mount) == (hostname, root)
        assert 0 <= float(uptime) <= time.time() - asked + 1, "it counts from the reset"
        assert asked - 2 <= int(btime) <= time.time() + 1
        assert boot_id not in boot_ids and pid != os.readlink("/proc/self/ns/pid")
        boot_ids.add(boot_id)
        listed = run(box, key, "ps -e -o pid=,comm=; ls -d /sys/class/block/* /dev/sd* /dev/vd* 2>/dev/null")
        assert listed.split()[:2] == ["1", "init"] and "/" not in listed, "and the disks of the host are not to be seen"


def test_what_the_installed_system_writes_is_kept_and_nothing_else(box: Box, key: Key) -> None:
    box.power_on()
    run(box, key, "echo one > /etc/note; rm /etc/motd; mkdir /srv/new; echo two > /srv/new/note")
    box.reset(rescue(key))
    box.wait_for_boot(2, PATIENCE)
    assert run(box, key, "cat /etc/note /srv/new/note 2>/dev/null; echo lost > /etc/note; cat /etc/note") == "lost"
    box.reset(rescue(key))
    box.wait_for_boot(3, PATIENCE)
    assert run(box, key, "ls /etc/note 2>/dev/null") == ""
    box.power_off()
    box.wait_for_off(PATIENCE)
    assert (box.read("/etc/note"), box.read("/etc/motd"), box.read("/etc/hostname")) == (b"one\n", None, b"installed\n")
    box.power_on(Installed())
    assert run(box, key, "cat /etc/note /srv/new/note; ls /etc/motd 2>/dev/null") == "one\ntwo"


@pytest.mark.parametrize(("kind", "command"), [
    ("installed", "systemctl reboot"), ("installed", "shutdown -r now"), ("installed", "reboot"), ("rescue", "shutdown -r now"),
    ("rescue", "reboot -f"), ("installed", "sudo -u admin sudo -n systemctl reboot")])
def test_the_guests_own_reboot_boots_what_is_armed(box: Box, key: Key, kind: str, command: str) -> None:
    """In order: what runs hears of it."""
    boots = {"installed": Installed(), "rescue": rescue(key)}
    other = "rescue" if kind == "installed" else "installed"
    box.next_boot = lambda: boots[other]
    box.power_on(boots[kind])
    run(box, key, f"{WITNESS}; {command}")
    assert box.wait_for_boot(2, PATIENCE).kind == other
    if other == "rescue":
        box.reset(Installed())
        box.wait_for_boot(3, PATIENCE)
        assert run(box, key, "cat /root/heard") == "bye"


@pytest.mark.parametrize("command", ["poweroff", "shutdown -h now", "systemctl poweroff", None])
def test_it_can_be_switched_off(box: Box, key: Key, command: str | None) -> None:
    box.power_on()
    run(box, key, "true")
    if command:
        run(box, key, command)
    else:
        box.soft_off()
    box.wait_for_off(PATIENCE)
    assert (box.running, box.pid, len(box.boots)) == (False, None, 1)


def test_a_shutdown_is_not_for_everybody(box: Box, key: Key) -> None:
    box.power_on()
    assert run(box, key, "su nobody -s /bin/sh -c 'reboot || echo no'") == "no"
    assert len(box.boots) == 1


def test_a_reset_is_as_abrupt_as_a_power_cut(box: Box, key: Key) -> None:
    """No process hears of it, and no client is told goodbye."""
    box.power_on()
    run(box, key, WITNESS)
    with paramiko.SSHClient() as client, socket.create_connection((box.address, box.port), PATIENCE) as other:
        client.load_host_keys(str(known_hosts(box, key.path.parent)))
        client.connect(box.address, box.port, "root", key_filename=str(key.path), timeout=PATIENCE)
        _stdin, stdout, _stderr = client.exec_command("sleep 600")
        assert other.recv(4) == b"SSH-"
        pid = box.pid
        box.reset(Installed())
        box.wait_for_boot(2, PATIENCE)
        assert not Path(f"/proc/{pid}").exists()
        with pytest.raises(ConnectionResetError):
            while other.recv(1000):
                pass
        assert stdout.channel.recv_exit_status() == -1, "the command's end was not told"
    assert run(box, key, "cat /root/heard") == ""


def test_a_power_cut_can_be_silent(box: Box, key: Key) -> None:
    """As that of a real server: who is connected hears nothing, for ever; who comes anew is answered by the new system."""
    box.faults.silent = True
    box.power_on()
    run(box, key, "true")
    with socket.create_connection((box.address, box.port), PATIENCE) as client:
        assert client.recv(100).startswith(b"SSH-")
        box.reset(Installed())
        box.wait_for_boot(2, PATIENCE)
        run(box, key, "true")
        client.settimeout(1)
        with pytest.raises(TimeoutError):
            client.recv(100)
        client.sendall(b"SSH-2.0-client\r\n")
        with pytest.raises(TimeoutError):
            client.recv(100)


def first_words(box: Box, seconds: float) -> str:
    """What a client sees: the banner, or how it ended."""
    try:
        with socket.create_connection((box.address, box.port), seconds) as client:
            client.settimeout(seconds)
            return client.recv(4).decode() or "closed"
    except TimeoutError:
        return "silent"
    except ConnectionRefusedError:
        return "refused"
    except ConnectionResetError:
        return "reset"


def test_its_port_tells_how_far_it_has_come(box: Box, key: Key) -> None:
    """Off: refused. Before the kernel: taken, and silent. Before sshd: reset. And who waited is answered in the end."""
    assert first_words(box, 5) == "refused"
    box.faults.boot_time, box.faults.ssh_delay = 6, 3
    asked = time.monotonic()
    box.power_on(rescue(key))
    box.wait_for_boot(1, PATIENCE)
    until(lambda: first_words(box, 0.3) == "silent", PATIENCE)
    until(lambda: first_words(box, 5) == "reset", PATIENCE)
    assert time.monotonic() - asked >= 6
    until(lambda: first_words(box, 5) == "SSH-", PATIENCE)
    assert time.monotonic() - asked >= 9
    assert 3 <= float(run(box, key, "cut -d ' ' -f 1 /proc/uptime")) <= time.monotonic() - asked - 6 + 0.5
    box.faults.ssh_delay = 0
    box.reset(Installed())
    box.wait_for_boot(2, PATIENCE)
    until(lambda: first_words(box, 0.3) == "silent", PATIENCE)
    with socket.create_connection((box.address, box.port), PATIENCE) as patient:
        patient.settimeout(PATIENCE)
        # It was taken before anything could answer. What then listens may not have been sshd yet.
        with contextlib.suppress(ConnectionResetError):
            assert patient.recv(4) == b"SSH-"
    box.power_off()
    box.wait_for_off(PATIENCE)
    assert first_words(box, 5) == "refused"


def test_resets_can_be_ignored_or_come_late_or_boot_the_wrong_system(box: Box, key: Key) -> None:
    boot_id = "cat /proc/sys/kernel/random/boot_id"
    box.power_on()
    old = run(box, key, boot_id)
    box.next_boot = lambda: rescue(key)
    box.faults.ignore_resets = 1
    box.reset()
    assert run(box, key, boot_id) == old and len(box.boots) == 1

    box.faults.linger = 2
    asked = time.time()
    box.reset()
    assert run(box, key, boot_id) == old or time.time() > asked + 2
    box.faults.wrong_boot = 1
    boot = box.wait_for_boot(2, PATIENCE)
    assert boot.started_at >= asked + 2 and boot.kind == "installed"
    box.faults.linger = 0
    box.reset()
    assert box.wait_for_boot(3, PATIENCE).kind == "rescue"


def test_the_rescue_system_has_new_host_keys_and_a_password(box: Box, key: Key) -> None:
    box.power_on(Rescue(password=PASSWORD))
    first = box.wait_for_boot(1, PATIENCE)
    assert fingerprint(box) == set(first.host_keys) and len(first.host_keys) == 2
    with paramiko.SSHClient() as client:
        client.load_host_keys(str(known_hosts(box, key.path.parent)))
        client.connect(box.address, box.port, "root", PASSWORD, timeout=PATIENCE, look_for_keys=False, allow_agent=False)
        assert client.exec_command("id -un")[1].read() == b"root\n"
    box.reset(Rescue())
    second = box.wait_for_boot(2, PATIENCE)
    assert fingerprint(box) == set(second.host_keys) and not set(first.host_keys) & set(second.host_keys)
    box.reset(Installed())
    box.wait_for_boot(3, PATIENCE)
    assert fingerprint(box) < {" ".join(line.split()[:2]) for line in box.host_keys}


def test_what_a_system_may_do_to_the_host(box: Box, key: Key) -> None:
    """Its packet filter and its name are its own. It sets neither the clock nor a setting of the kernel."""
    box.power_on()
    name = socket.gethostname()
    done = run(box, key, "nft add table inet mine && nft list tables; hostname other; date -s 2001-01-01 2>&1; "
                         "echo 1 2>&1 > /proc/sys/kernel/panic; mknod /tmp/disk b 7 0 2>&1")
    assert done.splitlines()[0] == "table inet mine"
    assert "cannot set date" in done and "Read-only file system" in done and "mknod: /tmp/disk: Operation not permitted" in done
    assert socket.gethostname() == name and time.time() > 1.7e9
    box.reset(Installed())
    box.wait_for_boot(2, PATIENCE)
    assert run(box, key, "nft list tables; hostname") == "installed", "and all of that ended with the boot"


@pytest.mark.parametrize("kind", ["installed", "rescue"])
def test_debian_13_punishes_who_fails_to_log_in(key: Key, tmp_path: Path, kind: str) -> None:
    with Box("box", tmp_path / "box", files=key.files, systems=Systems(**{kind: "trixie"})) as box:
        box.power_on(Installed() if kind == "installed" else rescue(key))
        version, penalties = run(box, key, "ssh -V 2>&1; sshd -T | grep -i ^persourcepenalties").splitlines()
        assert version.startswith("OpenSSH_10.") and "authfail:5" in penalties
        assert fingerprint(box) <= set(box.boots[0].host_keys) | {" ".join(line.split()[:2]) for line in box.host_keys}

        def refused() -> bool:
            subprocess.run(["ssh", "-F", "none", "-p", str(box.port), "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o",
                            f"UserKnownHostsFile={known_hosts(box, tmp_path)}", "-o", "IdentitiesOnly=yes",
                            f"stranger@{box.address}", "true"],
                           stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False)
            return first_words(box, 5) != "SSH-"

        until(refused, PATIENCE, every=0.05)
    assert "penalty" in box.boots[0].console.read_text()


def test_a_place_that_is_taken(box: Box, tmp_path: Path) -> None:
    with pytest.raises(LabError, match="No free address"):
        Box("late", tmp_path / "late", address=box.address, port=box.port)
    with Box("other", tmp_path / "other") as other:
        assert (other.address, other.port) != (box.address, box.port)


def test_what_ends_by_itself_is_told(tmp_path: Path, key: Key) -> None:
    with Box("box", tmp_path / "box", files={"/no/such/directory/file": File(b"x")}) as box:
        box.power_on()
        with pytest.raises(LabError, match="ended by itself"):
            box.wait_for_boot(2, PATIENCE)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_each_of_its_processes_takes_the_others_along(tmp_path: Path, key: Key, which: int) -> None:
    """The holder, the boot, process 1: whichever is killed. It is told, as a machine would tell that QEMU has ended."""
    with Box("box", tmp_path / "box", files=key.files) as box:
        box.power_on()
        run(box, key, "true")
        assert box.pid
        pids = [_parent(_parent(box.pid)), _parent(box.pid), box.pid]
        os.kill(pids[which], signal.SIGKILL)
        with pytest.raises(LabError, match="ended by itself"):
            box.wait_for_boot(2, PATIENCE)
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids[1:]), PATIENCE)
        assert first_words(box, 5) == "refused"


SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from lifeboat_lab.box import Box, Systems
from lifeboat_lab.images import Images
from lifeboat_lab.server import Rescue

signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may have it ignored
images, workdir = Images(Path(sys.argv[1])), Path(sys.argv[2])
box = Box("b", workdir / "b", images=images, systems=Systems(installed="rescue"))
box.power_on(Rescue(password="x"))
while box.pid is None:
    assert not box.errors, box.errors
    time.sleep(0.01)
print(box.pid, box.address, box.port, flush=True)
print(*(os.readlink(f"/proc/{box.pid}/ns/{name}") for name in ("pid", "net", "mnt", "uts", "ipc")), flush=True)
signal.pause()
"""


@contextlib.contextmanager
def child(argv: list[str], **environment: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}) as process:
        try:
            yield process
        finally:
            process.kill()


def assert_nothing_is_left(process: subprocess.Popen[str], how: signal.Signals, workdir: Path) -> None:
    """Kill who has the box, and look for its processes, namespaces, mounts and files."""
    assert process.stdout
    pid, address, port = process.stdout.readline().split()
    namespaces = set(process.stdout.readline().split())
    until(lambda: _first_words(address, int(port)) == "SSH-", PATIENCE)
    loops = sorted(path.name for path in Path("/sys/block").glob("loop*/loop"))
    listeners = _listeners(address, int(port))
    assert _users(namespaces) and _named(workdir) and listeners
    # The child itself may be behind setpriv and the like, none of which forks.
    process.send_signal(how)
    process.wait(timeout=PATIENCE)
    until(lambda: not Path(f"/proc/{pid}").exists() and not _users(namespaces) and not _named(workdir), PATIENCE)
    assert not listeners & _listeners(address, int(port)), "what listens there by now is somebody else's"
    assert str(workdir) not in Path("/proc/self/mountinfo").read_text()
    assert sorted(path.name for path in Path("/sys/block").glob("loop*/loop")) == loops
    found = {str(path.relative_to(workdir)) for path in workdir.rglob("*")}
    assert found == {"b", "b/box.log", "b/console-1.log", "b/mounts", "b/mounts/disk", "b/mounts/root"} & found | {"b"}
    shutil.rmtree(workdir / "b")


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def _first_words(address: str, port: int) -> str:
    try:
        with socket.create_connection((address, port), 5) as client:
            return client.recv(4).decode()
    except ConnectionRefusedError:
        return "refused"
    except OSError as error:
        return str(error)


def _listeners(address: str, port: int) -> set[str]:
    """The sockets (inodes) that listen there."""
    place = f"{int.from_bytes(socket.inet_aton(address), sys.byteorder):08X}:{port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {row[9] for row in rows if row[1] == place and row[3] == "0A"}


def _users(namespaces: set[str]) -> list[str]:
    """The processes that are in one of these."""
    found = []
    for path in Path("/proc").glob("[0-9]*/ns/*"):
        with contextlib.suppress(OSError):
            if os.readlink(path) in namespaces:
                found.append(str(path))
    return found


def _named(workdir: Path) -> list[str]:
    """The processes whose arguments name this directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if os.fsencode(workdir) in path.read_bytes():
                found.append(str(path))
    return found


class User(NamedTuple):
    """Who runs a box: where the images are for them, where they may write, and how a program is started as them."""

    images: Path
    workdir: Path
    prefix: list[str]
    environment: dict[str, str]


@contextlib.contextmanager
def ordinary_user() -> Iterator[User]:
    """One who is made for this test, in a mount namespace where the lists of users are others; for root."""
    uid = 61234
    images = ensure()
    home = Path(f"/var/tmp/lifeboat-test-{os.getpid()}")
    try:
        workdir, cache = home / "work", home / "cache/lifeboat.rescue/images"
        place = cache / images.directory.name
        for path in (workdir, place, home / "etc", home / "lab"):
            path.mkdir(parents=True)
        shutil.copytree(Path(__file__).parents[1] / "lifeboat_lab", home / "lab/lifeboat_lab")
        for name, line in (("passwd", f"somebody:x:{uid}:{uid}::{home}:/bin/sh"), ("group", f"somebody:x:{uid}:"),
                           ("subuid", "somebody:700000:65536"), ("subgid", "somebody:700000:65536")):
            old = Path("/etc", name)
            (home / "etc" / name).write_text((old.read_text() if old.exists() else "") + line + "\n")
        for path in (home, *home.rglob("*")):
            os.chown(path, uid, uid)
        enter = (f"set -e; mount -t overlay -o lowerdir={home}/etc:/etc etc /etc; "
                 f"mount --bind {shlex.quote(str(images.directory))} {place}; "
                 f'exec setpriv --reuid {uid} --regid {uid} --clear-groups -- "$@"')
        # The Python of the tests may be in a home that is closed to others.
        python = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
        yield User(place, workdir, ["unshare", "--mount", "--", "sh", "-c", enter, "sh", python],
                   {"HOME": str(home), "PYTHONPATH": str(home / "lab"), "XDG_CACHE_HOME": str(home / "cache")})
    finally:
        subprocess.run(["rm", "-rf", "--one-file-system", str(home)], check=True)


# An ordinary user who runs these tests is one already.
KILLS = [(how, False) for how in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)] + ([] if os.geteuid() else [(signal.SIGKILL, True)])


@pytest.mark.parametrize(("how", "ordinary"), KILLS)
def test_nothing_outlives_the_process(tmp_path: Path, how: signal.Signals, ordinary: bool) -> None:
    with contextlib.ExitStack() as stack:
        user = User(ensure().directory, tmp_path, [sys.executable], {})
        if ordinary:
            user = stack.enter_context(ordinary_user())
        process = stack.enter_context(child([*user.prefix, "-c", SCRIPT, str(user.images), str(user.workdir)], **user.environment))
        assert_nothing_is_left(process, how, user.workdir)


def test_a_box_that_cannot_be_is_told_and_closed(tmp_path: Path, key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where an ordinary user has no sub-ids."""
    monkeypatch.setattr("lifeboat_lab.box.namespace_prefix", lambda: ["false"])
    with Box("box", tmp_path / "box", files=key.files) as box:
        box.power_on()
        with pytest.raises(LabError, match="ended by itself"):
            box.wait_for_boot(2, PATIENCE)
        until(lambda: not box.running, PATIENCE)
