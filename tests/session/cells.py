# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Servers as boxes at unkind APIs, each there and back, many at a time, and what must be true of each whatever an API does."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import pathlib
import socket
import struct
import subprocess
import sys
import threading
import time
import types
import typing as t

from lifeboat_lab.accounts import accounts
from lifeboat_lab.box import Box, Systems
from lifeboat_lab.images import File
from lifeboat_lab.ovh_api import OvhApi
from lifeboat_lab.server import Installed, Rescue
from lifeboat_lab.softlayer_api import SoftLayerApi
from lifeboat_lab.unkind import DIRECTIONS, Mixture, Unkind
from lifeboat_lab.waiting import until

# As a person has set them who has no ten minutes, and still long enough for a busy machine to boot a box in them.
LIMITS = {"connect_timeout": 3.0, "soft_timeout": 15.0, "boot_timeout": 45.0, "wait_timeout": 120.0}
# The last of them is that of the wait for the server. What an API is waited for before that comes on top.
API_SECONDS = 30.0
BOOT_SECONDS = 2.0
BANNER_SECONDS = 4.0
# After a call has ended, what it asked for and did not wait for would come within this.
SETTLE_SECONDS = 3.0
AT_A_TIME = 32
OPENSTACK_AT_A_TIME = 8  # a project there has ten servers at most


class SlowBanner:
    """In front of a server's port 22: it takes connections at once, and lets the other side speak only so many seconds later."""

    def __init__(self, server, seconds):
        self.server, self.seconds = server, seconds
        self.listener = socket.socket()
        self.listener.bind((server.address, 0))
        self.listener.listen(64)
        self.address, self.port = self.listener.getsockname()
        threading.Thread(target=self._take, daemon=True).start()

    def close(self):
        # Closing alone does not wake who waits in accept().
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _take(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._carry, args=(self.listener.accept()[0],), daemon=True).start()

    def _carry(self, outer):
        try:
            inner = socket.create_connection((self.server.address, self.server.port), 5)
        except OSError:
            outer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            outer.close()
            return
        inner.settimeout(None)
        back = threading.Thread(target=self._copy, args=(outer, inner, 0.0), daemon=True)
        back.start()
        self._copy(inner, outer, self.seconds)
        back.join()
        for end in (inner, outer):
            end.close()

    @staticmethod
    def _copy(one, other, delay):
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                time.sleep(delay)
                delay = 0.0
                other.sendall(data)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def key_pair(path, kind="ed25519"):
    """Make a pair by ssh-keygen; return the public line."""
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", path.name, "-f", str(path)], check=True, stdin=subprocess.DEVNULL)
    return pathlib.Path(f"{path}.pub").read_text().strip()


class Controllers:
    """What makes calls of modules; see caller.py. Nothing of the person's own settings reaches it."""

    def __init__(self, directory):
        self.directory = directory
        directory.mkdir()
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("OS_", "OVH_", "SL_", "PYTHON", "SSH_"))}
        self.process = subprocess.Popen(
            [sys.executable, str(pathlib.Path(__file__).with_name("caller.py"))], stdin=subprocess.PIPE, text=True,
            env={**clean, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(directory)})
        self._lock = threading.Lock()
        self._count = 0

    def call(self, module, params, limit, fault=None):
        """Make a call, wait for its end, return its answer. fault: see lifeboat_lab.failing."""
        with self._lock:
            self._count += 1
            answer = self.directory / f"{self._count}.json"
            self.process.stdin.write(json.dumps({"module": module, "params": params, "fault": fault, "answer": str(answer)}) + "\n")
            self.process.stdin.flush()
        until(answer.exists, limit, f"{module} did not end within {limit:g} s", every=0.1)
        return json.loads(answer.read_text())

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=60)


@dataclasses.dataclass(frozen=True)
class Case:
    """One test. prepare: called with the cell before it begins. limits, boot_seconds: other ones than usual.

    fault: what went wrong there once, if anything did.
    """

    mixture: Mixture
    fault: str = ""
    limits: t.Mapping[str, float] = dataclasses.field(default_factory=dict)
    boot_seconds: float = BOOT_SECONDS
    prepare: t.Callable[[t.Any], None] = lambda cell: None

    @property
    def name(self):
        return f"{self.fault.partition(':')[0]}-{self.mixture.name}" if self.fault else self.mixture.name


class Cell:
    """One server with its mixture, and all that happened there. limits: other ones than LIMITS."""

    def __init__(self, mixture, bench, number, limits=None, boot_seconds=BOOT_SECONDS):
        self.mixture, self.bench = mixture, bench
        self.limits = {**LIMITS, **(limits or {})}
        self.account = bench.account(mixture.provider)
        self.directory = bench.directory / f"cell{number}"
        self.directory.mkdir()
        self.began = time.monotonic()
        self.story = []
        self.stack = contextlib.ExitStack()
        self.sessions = self.directory / "sessions"
        self.user_key = self.directory / "user_key"
        public = key_pair(self.user_key)
        files = {"/root/.ssh/authorized_keys": File(f"{public}\n".encode(), 0o600)}
        self.host_keys = []  # of the rescue systems that are still to boot, where it is not to have new ones of the usual kinds
        systems = Systems("trixie", "trixie") if mixture.server == "penalties" else Systems()
        if mixture.server in ("rsa", "ecdsa"):
            kind = mixture.server
            (private, line), *others = bench.host_keys(kind)
            self.host_keys = [{kind: other} for other, _public in others]
            files[f"/etc/ssh/lab_{kind}"] = File(private.encode(), 0o600)
            files["/etc/ssh/sshd_config.d/lab_keys.conf"] = File(f"HostKey /etc/ssh/lab_{kind}\n".encode())
        self.box = self.stack.enter_context(Box(f"cell{number}", self.directory / "box", next_boot=self.next_boot, files=files,
                                                systems=systems, images=None))
        self.box.faults.boot_time = boot_seconds
        installed_keys = [line] if self.host_keys else self.box.host_keys
        # What the API and the controller see of the server.
        self.machine = self.box
        if mixture.server == "slow-banner":
            front = SlowBanner(self.box, BANNER_SECONDS)
            self.stack.callback(front.close)
            self.machine = types.SimpleNamespace(address=front.address, port=front.port, reset=self.box.reset,
                                                 power_on=self.box.power_on, power_off=self.box.power_off)
        self.known_hosts = self.directory / "known_hosts"
        place = f"[{self.machine.address}]:{self.machine.port}" if self.machine.port != 22 else self.machine.address
        self.known_hosts.write_text("".join(f"{place} {line}\n" for line in installed_keys))
        self.server = self.account.add(number, f"cell{number}", self.machine)
        if mixture.provider == "ovh_dedicated":
            self.server.rescueMail, self.server.rescueSshKey = "someone@example.org", "ssh-ed25519 AAAA mine"
        self.before = self.settings()
        self.box.power_on(Installed())
        until(lambda: self.box.pid, 30)

    def next_boot(self):
        """What the API has the box boot."""
        boot = self.server.next_boot()
        self.tell(f"boots {boot.kind}")
        if boot.kind != "rescue":
            return Installed()
        key = getattr(boot, "ssh_key", None)
        return Rescue(authorized_keys=(key,) if key else (), password=boot.password,
                      host_keys=self.host_keys.pop() if self.host_keys else None)

    def close(self):
        self.stack.close()
        if self.mixture.provider == "openstack":
            self.account.servers.pop(self.server.id)
            self.account.nova.delete_server(self.server.id)

    # -- what happened

    def tell(self, text):
        self.story.append(f"{time.monotonic() - self.began:6.1f} {text}")

    def told(self):
        """All that happened, for whoever has to understand it."""
        return "\n".join([self.mixture.name, *self.story])

    def demand(self, true, sentence):
        assert true, f"{sentence}\n{self.told()}"

    # -- the stand-ins' own state

    def be(self, unkind):
        """From now on, the API treats the server so."""
        if self.mixture.provider == "openstack":
            self.account.nova.be_unkind(self.server.id, unkind)
        else:
            self.server.unkind = unkind

    @property
    def calm(self):
        """As kind as it ever becomes: what is refused once is refused again."""
        return Unkind(no_null=self.mixture.unkind.no_null)

    def settings(self):
        """What the provider has set for the server, by its own state, and not by what its API says of it."""
        if self.mixture.provider == "openstack":
            shown = self.account.nova.show(self.server.id)
            return {"status": shown["status"], "metadata": shown["metadata"]}
        if self.mixture.provider == "ovh_vps":
            return {"netbootMode": self.server.netbootMode}
        if self.mixture.provider == "ovh_dedicated":
            found = {name: getattr(self.server, name) or None for name in (
                "bootId", "rescueSshKey", "rescueMail", "monitoring", "noIntervention")}
            # What was never set is its disk.
            return {**found, "bootId": found["bootId"] or next(boot.bootId for boot in self.server.boots if boot.bootType == "harddisk")}
        return {}

    def open_jobs(self):
        """Whether the provider is still to do something."""
        if self.mixture.provider == "openstack":
            return self.account.nova.show(self.server.id)["OS-EXT-STS:task_state"] is not None
        if self.mixture.provider in ("softlayer", "softlayer_hardware"):
            return self.server.active is not None
        return any(job.history[-1:] and job.history[-1][0] not in ("done", "ovhError", "error", "cancelled")
                   for job in self.server.tasks.values())

    def settle(self):
        """Let what was asked for, and is not done yet, be done."""
        until(lambda: not self.open_jobs(), 60, f"the provider is at work for ever\n{self.told()}", every=0.2)
        unkind = self.mixture.unkind
        waits = unkind.queue_seconds if self.mixture.provider.startswith("softlayer") else 0.0  # reboots there are no jobs
        time.sleep(SETTLE_SECONDS + unkind.early_seconds + waits)

    def kinds(self):
        return [boot.kind for boot in self.box.boots]

    # -- the controller

    def params(self, **more):
        mine = {"server": self.account.server_name(self.server), "rescue_port": self.machine.port, "session_dir": str(self.sessions),
                "installed_host": self.machine.address, "installed_port": self.machine.port,
                "installed_known_hosts_file": str(self.known_hosts), "reboot_method": "hard" if self.mixture.way == "hard" else "auto",
                **self.limits, **self.bench.credentials(self.mixture.provider)}
        if self.mixture.way != "locked-out":
            mine.update(installed_user="root", installed_private_key_file=str(self.user_key))
        return {**mine, **more}

    def call(self, module="rescue_mode", **more):
        boots = len(self.box.boots)
        self.tell(f"calls {module} {more}")
        answer = self.bench.controllers.call(module, self.params(**more), self.limits["wait_timeout"] + 120)
        result = answer["result"]
        for seconds, line in answer["lines"]:
            self.tell(f"  after {seconds} s: {line}")
        said = result["msg"] if result.get("failed") else f"running {result.get('running')}, fresh {result.get('fresh')}"
        self.tell(f"  after {answer['seconds']} s: {said}")
        self.demand(answer["seconds"] <= self.limits["wait_timeout"] + API_SECONDS, "It took longer than its time-outs")
        if result.get("failed"):
            restored = "restored" not in result["msg"] or self.settings() == self.before
            self.demand(restored, "It says that the settings are restored, which they are not")
            self.demand("Internal error" not in result["msg"], "It reports an internal error")
            self.demand(result["failure"].get("state"), "It does not say what state the server is in")
        return result, len(self.box.boots) - boots

    @property
    def records(self):
        return list(self.sessions.rglob("session.json"))

    def go(self, state, kind):
        """One way, with the repetitions that it takes. kind: of the boot that it must end in."""
        boots = len(self.box.boots)
        result, _more = self.call(state=state)
        if result.get("failed"):
            if len(self.box.boots) > boots or self.settings() != self.before:
                self.demand(self.records, "A call that failed has forgotten the server")
            self.be(self.calm)
            for _again in range(2):
                self.settle()
                result, _more = self.call(state=state)
                if not result.get("failed"):
                    break
        self.demand(not result.get("failed"), "The same call again does not get there, though the API is kind by now")
        runs = "rescue" if kind == "rescue" else "installed"
        self.demand(self.kinds()[boots:][-1:] == [kind] and self.box.running, f"It says {runs}, and no new boot of it runs")
        self.demand((result["running"], result["fresh"]) == (runs, True), "It does not say what runs")
        self.settle()
        # A reboot that comes up in the wrong system, because it was set too short a while ago, is not enough.
        wrong = {"rescue": "installed", "installed": "rescue"}[kind]
        enough = [[kind], [wrong, kind]] if self.mixture.unkind.boot_lag else [[kind]]
        self.demand(self.kinds()[boots:] in enough, "More was rebooted than once, or it came after the end")
        return result

    def run(self):
        """What the mixture's direction is about."""
        if self.mixture.direction in DIRECTIONS:
            self.there_and_back()
        else:
            self.be(self.mixture.unkind)
            {"reboot": self.reboot, "netboot": self.netboot, "info": self.info, "resume": self.resume,
             "relapse": self.relapse}[self.mixture.direction]()

    def reboot(self):
        """The module reboot, once."""
        result, reboots = self.call("reboot")
        self.demand(result.get("failed") or (reboots == 1 and result["fresh"]), f"It says that it rebooted; {reboots} reboots were seen")

    def netboot(self):
        """The module netboot, into rescue and back."""
        for boot, kind in (("rescue", "rescue"), ("harddisk", "harddisk")):
            result, _reboots = self.call("netboot", boot=boot)
            if not result.get("failed"):
                self.demand(self.server.armed().bootType == kind, f"It says that it set {boot}, which is not set")
        self.demand(self.settings() == self.before, "Not restored")

    def info(self):
        """The module rescue_mode_info, of a server that the user gave no address of."""
        result, _reboots = self.call("rescue_mode_info", installed_host=None)
        self.demand(result.get("failed") or result["address"] == self.machine.address, f"It looked at {result.get('address')!r}")

    def resume(self):
        """A controller has died before it heard that its request to reboot was taken. The next one comes when all is long over."""
        self.go("present", "rescue")
        [path] = self.records
        kept = []

        def remember():
            # The answers are slow, so that it is there for a while.
            with contextlib.suppress(FileNotFoundError, ValueError):
                record = json.loads(path.read_text())
                reboot = record["reboot"] or {}
                if record["phase"] == "leaving" and reboot.get("method") == "hard" and not reboot["task"]:
                    kept.append(record)
            return kept

        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            remembered = pool.submit(until, remember, 120, "There was no such moment.", 0.05)
            self.go("absent", "installed")
            record = remembered.result()[0]
        record["reboot"]["asked_at"] -= 300
        record["reboot"]["baseline"]["at"] -= 300
        path.parent.mkdir(mode=0o700)
        path.write_text(json.dumps(record))
        result, _reboots = self.call(state="absent")
        self.settle()
        self.demand(not result.get("failed") and result["running"] == "installed" and not self.records, "It does not end")
        self.demand(self.kinds()[-2:] == ["rescue", "installed"], "The installed system, which was back, was rebooted once more")

    def relapse(self):
        """On the way out the rescue system boots once more, with new host keys and without our key. Nobody can tell which one it is."""
        self.go("present", "rescue")
        for reboots, kinds in ((1, ["rescue"]), (0, [])):
            boots = len(self.box.boots)
            result, more = self.call(state="absent")
            self.demand(result.get("failed"), "It says installed, and the rescue system runs")
            self.demand((more, self.kinds()[boots:]) == (reboots, kinds), "Rebooted once more without the user's word")
            self.demand(self.records, "The session is forgotten")
            said = f"{result['msg']} {result['failure']}"
            self.demand("refused root by key" in said and "force=true" in said, "It does not say why, or not what to do")
            self.settle()
        result, reboots = self.call(state="absent", force=True)
        self.demand(not result.get("failed") and result["running"] == "installed", "With the user's word it does not end")
        self.demand((reboots, self.kinds()[-1]) == (1, "installed"), "More was rebooted than once")
        self.demand(not self.records and self.settings() == self.before, "Something is left")

    def there_and_back(self):
        """Enter and leave."""
        self.be(self.mixture.unkind if self.mixture.direction == "enter" else self.calm)
        result = self.go("present", "rescue")
        self.demand(self.ssh(result).returncode == 0, "The log-in that it tells does not let in")
        self.be(self.mixture.unkind if self.mixture.direction == "leave" else self.calm)
        result = self.go("absent", "installed")
        self.be(Unkind())
        # What cannot be restored is named.
        named = " ".join(result.get("warnings", ()))
        left = {name: value for name, value in self.settings().items() if value != self.before[name] and name not in named}
        self.demand(not left, f"Neither restored nor named: {left}, and not {self.before}")
        left = [path for path in self.sessions.rglob("*") if path.is_file() and not path.name.endswith("lock")]
        self.demand(not left, f"Left on the controller: {left}")
        keys = self.box.read("/root/.ssh/authorized_keys").decode().splitlines()
        self.demand(keys == [pathlib.Path(f"{self.user_key}.pub").read_text().strip()], "A key is left in the installed system")
        self.demand(not self.box.errors, f"The box: {self.box.errors}")

    def ssh(self, result):
        command = [*result["login"]["command"].split(), "-F", "none", "-o", "BatchMode=yes", "cat /run/lifeboat/session.json"]
        return subprocess.run(command, capture_output=True, timeout=60, check=False)


class Bench:
    """Where cells run: APIs, controllers, a directory."""

    def __init__(self, directory):
        self.directory = directory
        self.stack = contextlib.ExitStack()
        self.ovh = OvhApi(log_file=directory / "ovh.log")
        self.ovh.credential.rules += [("GET", "/dedicated/server"), ("GET", "/vps"), ("POST", "/vps/*/getConsoleUrl")]
        self.softlayer = SoftLayerApi(log_file=directory / "softlayer.log")
        for served in (self.ovh, self.softlayer):
            self.stack.enter_context(served)
        self.controllers = Controllers(directory / "controllers")
        self.stack.callback(self.controllers.close)
        self._accounts = {}
        self._host_keys = {}
        self._lock = threading.Lock()
        self._room = threading.Semaphore(OPENSTACK_AT_A_TIME)

    def account(self, provider):
        with self._lock:
            if provider not in self._accounts:
                account = accounts([provider], self.ovh, self.softlayer, self.directory)[provider]
                self._accounts[provider] = self.stack.enter_context(account)
            return self._accounts[provider]

    def host_keys(self, kind):
        """Four host keys of one kind, for all servers: making one takes seconds on a busy machine. (private, public line)."""
        with self._lock:
            if kind not in self._host_keys:
                paths = [self.directory / f"{kind}{number}" for number in range(4)]
                self._host_keys[kind] = [(path.read_text(), line) for path in paths if (line := key_pair(path, kind))]
            return self._host_keys[kind]

    def credentials(self, provider):
        if provider == "openstack":
            cloud = self._accounts[provider].nova.cloud("member")
            return {"provider": provider, "openstack_auth": cloud["auth"], "openstack_region_name": cloud["region_name"]}
        if provider.startswith("ovh"):
            return {"provider": provider, "ovh_endpoint": self.ovh.url,
                    **{f"ovh_{name}": value for name, value in self.ovh.credential.client_arguments().items()}}
        url = self.softlayer.rest_url if provider.endswith("hardware") else self.softlayer.url
        return {"provider": "softlayer", "softlayer_endpoint_url": url,
                **{f"softlayer_{name}": value for name, value in self.softlayer.credential.client_arguments().items()}}

    def room(self, provider):
        """What is held while a cell of this provider is there."""
        return self._room if provider == "openstack" else contextlib.nullcontext()

    def run(self, case, number):
        """Run one cell; return its story."""
        with self.room(case.mixture.provider):
            cell = Cell(case.mixture, self, number, case.limits, case.boot_seconds)
            try:
                case.prepare(cell)
                cell.run()
                return cell.told()
            finally:
                cell.close()
