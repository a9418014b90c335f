# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real things to test against: OpenSSH's sshd on loopback, and the OVH API of the lab with a machine behind it."""

from __future__ import annotations

import contextlib
import functools
import getpass
import os
import pathlib
import random
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "lab"))

# What runs on the controller needs its Python; only the rescue side must make do with an old one.
if sys.version_info < (3, 11):
    collect_ignore_glob = ["plugins/action/*", "plugins/module_utils/_control/_providers/*", "plugins/module_utils/_control/_session/*"]


def pytest_collection_modifyitems(items):
    """Mark what needs Nova: it is started once, for all of them."""
    for item in items:
        world = item.callspec.params.get("world") if hasattr(item, "callspec") else None
        if "nova" in item.fixturenames or world == "openstack":
            item.add_marker("nova")


ME = getpass.getuser()
SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin:/bin")
SERVER = "ns100001.ip-192-0-2.eu"

# Commands of a log-in run in a world of their own: home, kernel and reboots. So no test can reboot this machine.
SHIM = r"""
world=$1
now=$world/now
[ -e "$now" ] || now=/proc/uptime
read -r now rest <"$now" && read -r booted <"$world/booted"
up=$((${now%.*}${now#*.} - ${booted%.*}${booted#*.}))
printf '%d.%02d 0\n' $((up / 100)) $((up % 100)) >"$world/uptime"
exec sh -c "$(printf '%s' "$SSH_ORIGINAL_COMMAND" | sed -e "s#/proc/sys/kernel/random/boot_id#$world/boot_id#g" \
    -e "s#/proc/sys/kernel/hostname#$world/hostname#g" -e "s#/proc/uptime#$world/uptime#g" \
    -e "s#/proc/mounts#$world/mounts#g" -e "s#/run/lifeboat#$world/run#g" \
    -e "s#/proc/\[0-9\]#$world/proc/[0-9]#g" -e "s#/sys/class/block#$world/block#g")"
"""
REBOOT = """#!/bin/sh
echo "$0 $*" >>{world}/reboots
[ {status} = 0 ] && [ -p {world}/../../button ] && echo reboot >{world}/../../button
exit {status}
"""


def key_pair(path):
    """Make an Ed25519 pair, as ssh-keygen does; return the public line."""
    from cryptography.hazmat.primitives import serialization as to
    from cryptography.hazmat.primitives.asymmetric import ed25519

    private = ed25519.Ed25519PrivateKey.generate()
    path.touch(0o600)
    path.write_bytes(private.private_bytes(to.Encoding.PEM, to.PrivateFormat.OpenSSH, to.NoEncryption()))
    public = private.public_key().public_bytes(to.Encoding.OpenSSH, to.PublicFormat.OpenSSH)
    line = f"{public.decode()} {path.name}"
    pathlib.Path(f"{path}.pub").write_text(f"{line}\n")
    return line


def kernel_uptime():
    return float(pathlib.Path("/proc/uptime").read_text().split()[0])


def free_port(address="127.0.0.1"):
    """A port that no outgoing connection gets by chance: one to itself would keep it from the sshd that is to come."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind((address, port))
            return port


class Sshd:
    """A real sshd in a directory of its own, to which this user may log in by the keys in `authorized_keys`.

    What its users see of the kernel are files in `world`: boot_id, booted, hostname, mounts; `run` is /run/lifeboat, `block` is
    /sys/class/block, and of /proc the processes are in `proc`. clockwork: its time, where that is simulated.
    """

    def __init__(self, path, port=None, lines=(), shim=True, clockwork=None):
        self.path = path
        self.port = port or free_port()
        self.world = path / "world"
        self.home = path / "home"
        self.lines = list(lines)
        self.shim = shim
        self.clockwork = clockwork
        self.process = None
        for directory in (path, self.world, self.home, path / "bin"):
            directory.mkdir(exist_ok=True)
        self.reboots_answer(0)
        self.host_key = key_pair(path / "host_key")
        self.authorized_keys = path / "authorized_keys"
        self.authorized_keys.touch()
        self.boot("ext4", "/dev/sda1", "web1")

    def reboots_answer(self, status):
        for name in ("systemctl", "shutdown", "reboot"):
            program = self.path / "bin" / name
            program.write_text(REBOOT.format(world=shlex.quote(str(self.world)), status=status))
            program.chmod(0o755)

    def boot(self, root_fstype, root_source, hostname, more_mounts=""):
        """Set what the kernel says of itself."""
        (self.world / "boot_id").write_text(f"{secrets.token_hex(16)}\n")
        (self.world / "booted").write_text(f"{self.clockwork.now if self.clockwork else kernel_uptime():.2f}\n")
        if self.clockwork:
            self.tell_time(self.clockwork.now)
        (self.world / "hostname").write_text(f"{hostname}\n")
        (self.world / "mounts").write_text(f"{root_source} / {root_fstype} rw 0 0\nproc /proc proc rw 0 0\n{more_mounts}")
        shutil.rmtree(self.world / "run", ignore_errors=True)

    def tell_time(self, now):
        """Set what its users take for the time, in seconds."""
        (self.world / "now.new").write_text(f"{now:.2f} 0\n")
        os.replace(self.world / "now.new", self.world / "now")

    def mount(self, line):
        with open(self.world / "mounts", "a") as stream:
            stream.write(line + "\n")

    @property
    def soft_reboots(self):
        reboots = self.world / "reboots"
        return reboots.read_text().splitlines() if reboots.exists() else []

    def start(self):
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
        force = [f"ForceCommand sh {self.path}/shim {self.world}"] if self.shim else []
        (self.path / "shim").write_text(SHIM)
        (self.path / "sshd_config").write_text("\n".join([
            *self.lines, f"Port {self.port}", "ListenAddress 127.0.0.1", f"HostKey {self.path}/host_key", "PidFile none",
            "UsePAM no", "StrictModes no", "PermitRootLogin yes", "PasswordAuthentication no", "KbdInteractiveAuthentication no",
            f"AuthorizedKeysFile {self.authorized_keys}", "MaxStartups 100", "LogLevel VERBOSE",
            f"SetEnv HOME={self.home} PATH={self.path}/bin:/usr/bin:/bin", *force, ""]))
        log = self.path / "log"
        log.unlink(missing_ok=True)
        self.process = subprocess.Popen([SSHD, "-D", "-f", str(self.path / "sshd_config"), "-E", str(log)],
                                        stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while "Server listening" not in self.log:
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"sshd did not start: {self.log}")
            time.sleep(0.002)
        return self

    @property
    def log(self):
        log = self.path / "log"
        return log.read_text() if log.exists() else ""

    def stop(self):
        """End it with all of its connections, as a power cut does."""
        if self.process is None:
            return
        process, self.process = self.process, None
        family = [process.pid]
        while True:
            # Who is stopped has no more children, but a signal takes its time.
            for pid in family:
                self._signal(pid, signal.SIGSTOP)
            for pid in family:
                deadline = time.monotonic() + 5
                while self._stat(pid)[0] not in "TZX" and time.monotonic() < deadline:
                    time.sleep(0.001)
            found = self._family(process.pid)
            if found == family:
                break
            family = found
        for pid in family:
            self._signal(pid, signal.SIGKILL)
        process.wait(timeout=10)

    @staticmethod
    def _signal(pid, number):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    @staticmethod
    def _stat(pid):
        """State and parent of a process."""
        try:
            with open(f"/proc/{pid}/stat") as stream:
                return stream.read().rpartition(")")[2].split()[:2]
        except OSError:
            return ["X", "0"]

    @staticmethod
    def _family(pid):
        """A process, its children, theirs and so on. Those that serve a connection leave its process group."""
        parents = {}
        for entry in filter(str.isdigit, os.listdir("/proc")):
            parents.setdefault(int(Sshd._stat(entry)[1]), []).append(int(entry))
        family = [pid]
        for parent in family:
            family += sorted(parents.get(parent, []))
        return family


@pytest.fixture
def make_sshd(tmp_path):
    """Start sshds; each is ended after the test."""
    made = []

    def make(name="sshd", **options):
        made.append(Sshd(tmp_path / name, **options))
        return made[-1].start()

    yield make
    for sshd in made:
        sshd.stop()


class Machine:
    """A machine at the lab's OVH API, of two sshds that take turns on one port: the installed system, and the rescue.

    obeys: whether it boots what is armed; otherwise always the installed system. boots: what was armed at each boot.
    boots_in: seconds for which it is down. clockwork: its time, where that is simulated.
    """

    def __init__(self, path, clockwork=None):
        self.path = path
        self.clockwork = clockwork
        self.port = free_port()
        self.user_key = path / "user_key"
        self.user_public = key_pair(self.user_key)
        self.obeys = True
        self.boots_in = 0.0
        self.server = None
        self.resets = 0
        self.boots = []
        self.rescues = 0
        self.broken = None
        self.ended = False
        self._lock = threading.RLock()
        os.mkfifo(path / "button")
        self._button = threading.Thread(target=self._wait_for_button, daemon=True)
        self._button.start()
        self.installed = Sshd(path / "installed", self.port, clockwork=clockwork)
        self.installed.authorized_keys.write_text(self.user_public + "\n")
        self.running = self.installed.start()
        self._last = 0
        if clockwork:
            clockwork.followers.append(self._tell_time)

    def _tell_time(self, now):
        running = self.running
        if running:
            running.tell_time(now)

    @property
    def system(self):
        return "off" if self.running is None else "installed" if self.running is self.installed else "rescue"

    def _wait_for_button(self):
        """A reboot from inside."""
        # Open for writing too, a fifo has no end.
        with open(self.path / "button", "r+b", buffering=0) as button:
            while button.readline() == b"reboot\n":
                try:
                    if self.clockwork:
                        self.clockwork.call_in(0, self.reboot)
                    else:
                        self.reboot()
                except BaseException as exc:
                    self.broken = exc

    def end(self):
        with open(self.path / "button", "r+b", buffering=0) as button:
            button.write(b"end\n")
            self._button.join(timeout=10)
        with self._lock:
            # The API may still have a reset to do, whose sshd nobody would end.
            self.ended = True
            self.off()
        if self.broken:
            raise self.broken

    def reset(self):
        self.resets += 1
        self.reboot()

    def reboot(self):
        with self._lock:
            if self.ended:
                return
            boot = self.server.next_boot()
            self.boots.append(boot.kind)
            self.off()
            self._last += 1
            if self.clockwork and self.boots_in:
                self.clockwork.call_in(self.boots_in, functools.partial(self._come_up, boot, self._last))
            else:
                time.sleep(self.boots_in)
                self._come_up(boot, self._last)

    def _come_up(self, boot, number):
        with self._lock:
            if self.ended or number != self._last:
                # It was reset once more while it booted.
                return
            if boot.kind == "rescue" and self.obeys:
                self.rescues += 1
                self.running = Sshd(self.path / f"rescue{self.rescues}", self.port, clockwork=self.clockwork)
                self.running.boot("overlay", "overlay", "rescue-customer-eu")
                self.running.authorized_keys.write_text(f"{boot.ssh_key or ''}\n")
            elif boot.kind in ("installed", "rescue"):
                self.running = self.installed
                self.installed.boot("ext4", "/dev/sda1", "web1")
            if self.running:
                self.running.start()

    def off(self):
        with self._lock:
            if self.running:
                self.running.stop()
            self.running = None


@pytest.fixture
def server():
    from lifeboat_lab.ovh_api import Server

    return Server(SERVER, ip="127.0.0.1", task_seconds={"init": 0.01, "todo": 0.01, "doing": 0.01})


@pytest.fixture
def clockwork():
    """Real time. A file whose tests are to run in simulated time has a fixture of this name that gives a SimulatedClockwork."""
    return None


@pytest.fixture
def api(server, clockwork):
    from lifeboat_lab.ovh_api import MINIMUM_RULES, OvhApi

    api = OvhApi([server], rules=[*MINIMUM_RULES, ("GET", "/dedicated/server")])
    if clockwork:
        api.clockwork = clockwork
    with api:
        yield api


@pytest.fixture
def machine(server, tmp_path, clockwork):
    path = tmp_path / "machine"
    path.mkdir()
    machine = Machine(path, clockwork)
    machine.server = server
    server.power = machine
    yield machine
    machine.end()
