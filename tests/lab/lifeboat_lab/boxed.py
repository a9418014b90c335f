# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The processes that are a box. Private to `box`, which runs this file with nothing but the standard library.

    holder          one for each box: has the disk (a tmpfs in a mount namespace of its own), starts and ends the boots
      boot          one for each boot: the namespaces, the listening socket outside of them, and a relay from it to port 22 inside
        init        process 1 inside: mounts, sshd, and an orderly shutdown when it is asked for one

Each has a single thread and is killed when its parent ends, and process 1 takes everything inside with it: so nothing is left
when whoever started the holder ends, even by SIGKILL. All mounts are in namespaces that end with their last process.

The holder reads orders on its standard input, one JSON object a line:

    {"order": "start", "number": N, "boot": {…, see Boot}}   {"order": "cut", "silent": BOOL}   {"order": "soft_off"}
    {"order": "read", "path": P}

and writes what happens to its standard output: {"event": "ended", "number": N, "how": "cut"|"reboot"|"off"|"failed", "text": …},
{"event": "up", "number": N, "pid": P} when process 1 runs, {"event": "file", "data": BASE64 or null} for "read".
The end of its input ends it and the box.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import fcntl
import json
import os
import platform
import selectors
import signal
import socket
import struct
import sys
import time
import traceback
import uuid
from typing import Any, NamedTuple, NoReturn

# linux/sched.h
NEWTIME, NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWPID, NEWNET = (
    0x80, 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x20000000, 0x40000000)
# linux/mount.h
RDONLY, NOSUID, NODEV, NOEXEC, REMOUNT, BIND, RECURSIVE, PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
DETACH = 2
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
RB_AUTOBOOT, RB_POWER_OFF = 0x01234567, 0x4321FEDC
PR_SET_PDEATHSIG, PR_SET_NAME, PR_CAPBSET_DROP = 1, 15, 24
# linux/capability.h: what root inside must not have of the machine that runs the tests: modules, raw I/O, the clock, devices, the log
DROPPED_CAPABILITIES = (16, 17, 25, 27, 34)

INSIDE, OUTSIDE = "10.0.2.15", "10.0.2.2"  # addresses inside: the box, and where its clients seem to come from; as QEMU has them
REBOOT, OFF = signal.SIGTERM, signal.SIGUSR2  # what process 1 is asked for, as with busybox's init
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SHUTDOWN_SECONDS = 5.0  # what still runs so long after SIGTERM is killed
RESPAWN_SECONDS = 1.0
BLOCK = 65536
SOFT_OFF, CUT, SILENT_CUT = b"s", b"c", b"q"  # from the holder to a boot
MOST_PASSED = 200  # descriptors in one message; Linux takes 253
EXIT_REBOOT, EXIT_OFF, EXIT_CUT = 10, 11, 12
HOW = {EXIT_REBOOT: "reboot", EXIT_OFF: "off", EXIT_CUT: "cut"}

libc = ctypes.CDLL(None, use_errno=True)


class Boot(NamedTuple):
    """One boot.

    kind: rescue or installed. tree: the directory with the system. address, port: where it listens outside.
    files: {path: [content in base64, mode]}, owned by root, put in before it starts. password: a hash for root's, or none.
    root: what /proc/mounts is to say of /, as [source, type]. console: what the system says is appended to this file.
    boot_time: seconds from power-on to the kernel's start, while nobody answers. ssh_delay: seconds before sshd starts.
    """

    kind: str
    tree: str
    address: str
    port: int
    files: dict[str, tuple[str, int]]
    password: str | None
    root: tuple[str, str]
    console: str
    boot_time: float
    ssh_delay: float


# ---------------------------------------------------------------------------------------------------------- system calls


def check(result: int, what: str) -> None:
    """Raise OSError when a call of libc failed."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """As os.unshare() of Python 3.12."""
    check(libc.unshare(flags), "unshare")


def mount(source: str, target: str, fstype: str | None = None, flags: int = 0, options: str | None = None) -> None:
    """Make a mount; RDONLY and its like are the flags."""
    words = [word if word is None else word.encode() for word in (source, target, fstype, options)]
    check(libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3]), f"mount {source} on {target}")


def tmpfs(target: str, mode: str = "0755") -> None:
    """Mount an empty one, on a directory that is made first."""
    os.makedirs(target, exist_ok=True)
    mount("tmpfs", target, "tmpfs", NOSUID | NODEV, f"mode={mode}")


def die_with_parent() -> None:
    """Be killed when the parent ends."""
    check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")


def fork_child(run: Any, *arguments: Any) -> int:
    """Run a function that does not return in a child that is killed when we end; return its pid."""
    ready, go = os.pipe()
    pid = os.fork()
    if pid:
        os.close(ready)
        os.write(go, b"x")
        os.close(go)
        return pid
    status = 1
    try:
        os.close(go)
        die_with_parent()
        if os.read(ready, 1):  # else the parent has ended already
            os.close(ready)
            status = run(*arguments)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


# ----------------------------------------------------------------------------------------------------------------- holder


class Holder:
    """See the module. directory: a private one, where its mounts are made."""

    def __init__(self, directory: str):
        self.disk = f"{directory}/disk"
        self.root = f"{directory}/root"
        self.tree: str | None = None  # of the installed system
        self.boot: tuple[int, int, int, socket.socket] | None = None  # number, pid, pidfd, and what it is controlled by
        self.dead: list[int] = []  # connections to systems that are no more, which say nothing more
        self.selector = selectors.DefaultSelector()
        unshare(NEWNS)
        mount("none", "/", flags=RECURSIVE | PRIVATE)
        tmpfs(self.disk)
        for name in ("upper", "work"):
            os.mkdir(f"{self.disk}/{name}", 0o755)
        os.makedirs(self.root, exist_ok=True)

    def run(self) -> int:
        """Obey until the input ends."""
        self.selector.register(0, selectors.EVENT_READ)
        rest = b""
        while True:
            for key, _events in self.selector.select():
                if key.fd != 0:
                    self._ended()
                    continue
                data = os.read(0, BLOCK)
                if not data:
                    self._cut(False)
                    return 0
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._obey(json.loads(line))

    def _obey(self, order: dict[str, Any]) -> None:
        if order["order"] == "start":
            self._start(order["number"], Boot(**order["boot"]))
        elif order["order"] == "cut":
            self._cut(order["silent"])
        elif order["order"] == "soft_off" and self.boot:
            self.boot[3].send(SOFT_OFF)
        elif order["order"] == "read":
            tell(event="file", data=self._read(order["path"]))

    def _start(self, number: int, boot: Boot) -> None:
        if boot.kind == "installed":
            self.tree = boot.tree
        inner, control = socket.socketpair()
        pid = fork_child(run_boot, self, number, boot, inner, control)
        inner.close()
        pidfd = os.pidfd_open(pid)
        self.selector.register(pidfd, selectors.EVENT_READ)
        self.boot = number, pid, pidfd, control

    def _cut(self, silent: bool) -> None:
        if self.boot:
            with contextlib.suppress(OSError):  # it has just ended by itself
                self.boot[3].send(SILENT_CUT if silent else CUT)
            self._ended()

    def _ended(self) -> None:
        if self.boot is None:
            return
        number, pid, pidfd, control = self.boot
        self.boot = None
        _pid, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self.selector.unregister(pidfd)
        os.close(pidfd)
        control.setblocking(False)
        with control, contextlib.suppress(BlockingIOError):
            while (received := socket.recv_fds(control, 1, MOST_PASSED))[0]:
                self.dead += received[1]
        tell(event="ended", number=number, how=HOW.get(code, "failed"), text=f"exit code {code}")

    def _read(self, path: str) -> str | None:
        for place in (f"{self.disk}/upper", self.tree):
            with contextlib.suppress(OSError), open(f"{place}{path}", "rb") as file:
                return base64.b64encode(file.read()).decode()
            if os.path.lexists(f"{place}{path}"):  # a whiteout: it was removed
                return None
        return None


def tell(**event: Any) -> None:
    """Write one event. Each is shorter than what a pipe takes at once, or nobody else writes then."""
    data = json.dumps(event).encode() + b"\n"
    while data:
        data = data[os.write(1, data):]


# ------------------------------------------------------------------------------------------------------------------- boot


def run_boot(holder: Holder, number: int, boot: Boot, control: socket.socket, theirs: socket.socket) -> int:
    """Be one boot. Return how it ended."""
    theirs.close()
    holder.selector.close()
    listener = socket.socket()  # before the network namespace is left, to which it belongs for ever
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((boot.address, boot.port))
    listener.listen(128)
    relay = Relay(listener)
    relay.selector.register(control, selectors.EVENT_READ, "control")
    starts_at = time.monotonic() + boot.boot_time
    init = pidfd = None
    while True:
        if init is None and time.monotonic() >= starts_at:
            init = start_system(holder, boot, listener, control)
            pidfd = os.pidfd_open(init)
            relay.selector.register(pidfd, selectors.EVENT_READ, "init")
            relay.open()
            tell(event="up", number=number, pid=init)
        for what in relay.serve(None if init else max(0.0, starts_at - time.monotonic())):
            if what == "init":
                assert init is not None
                relay.cut()
                code = os.waitstatus_to_exitcode(os.waitpid(init, 0)[1])
                return {-signal.SIGHUP: EXIT_REBOOT, -signal.SIGINT: EXIT_OFF}.get(code, 1)  # reboot(2) in a PID namespace
            letter = control.recv(1)
            if letter == SOFT_OFF:
                if init:
                    os.kill(init, OFF)
                continue
            # The power is cut. First the connections, so that nothing of what dies is heard.
            if letter == SILENT_CUT:
                relay.pass_on(control)
            else:
                relay.cut()
            if init:
                os.kill(init, signal.SIGKILL)
                os.waitpid(init, 0)
            return EXIT_CUT


def start_system(holder: Holder, boot: Boot, listener: socket.socket, control: socket.socket) -> int:
    """Make the namespaces and start process 1; return its pid."""
    unshare(NEWNS | NEWNET | NEWUTS | NEWIPC | NEWCGROUP)
    network()
    lay_out(holder, boot)
    unshare(NEWTIME)
    boottime = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    monotonic = time.monotonic_ns()
    with open("/proc/self/timens_offsets", "w") as file:
        # it wants the nanoseconds positive, which divmod gives
        file.write("".join("{} {} {}\n".format(clock, *divmod(-now, 10**9))
                           for clock, now in (("monotonic", monotonic), ("boottime", boottime))))
    unshare(NEWPID)
    return fork_child(run_init, holder.root, boot, (listener.fileno(), control.fileno()))


def network() -> None:
    """Bring the loopback interface up, with the two addresses. By ioctl (linux/sockios.h), for the host may have no `ip`."""
    def request(name: str, code: int, data: bytes) -> None:
        fcntl.ioctl(sock, code, struct.pack("16s24s", name.encode(), data))

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request("lo", 0x8914, struct.pack("h", 0x41))  # IFF_UP | IFF_RUNNING
        for number, address in enumerate((INSIDE, OUTSIDE)):
            request(f"lo:{number}", 0x8916, struct.pack("HH4s", socket.AF_INET, 0, socket.inet_aton(address)))
            request(f"lo:{number}", 0x891C, struct.pack("HH4s", socket.AF_INET, 0, b"\xff" * 4))


def lay_out(holder: Holder, boot: Boot) -> None:
    """Mount the root file system of the boot, and put its files into it."""
    layer = holder.disk
    if boot.kind == "rescue":
        layer = f"{holder.disk}/memory"
        tmpfs(layer)
        for name in ("upper", "work"):
            os.mkdir(f"{layer}/{name}", 0o755)
    options = f"lowerdir={boot.tree},upperdir={layer}/upper,workdir={layer}/work"
    source = "rescue" if boot.kind == "rescue" else boot.root[0]
    # An ordinary user's overlay keeps its notes in attributes of their own kind.
    mount(source, holder.root, "overlay", options=options + ("" if has_init_user_namespace() else ",userxattr"))
    if boot.kind == "rescue":  # a system that was installed once has keys of its own
        for name in os.listdir(f"{holder.root}/etc/ssh"):
            if name.startswith("ssh_host_"):
                os.unlink(f"{holder.root}/etc/ssh/{name}")
    for path, (data, mode) in boot.files.items():
        target = f"{holder.root}{path}"
        parent = os.path.dirname(target)
        if not os.path.isdir(parent) and parent.endswith("/.ssh"):
            os.mkdir(parent, 0o700)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(target)
        with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(base64.b64decode(data))
        os.chmod(target, mode)
    if boot.password:
        shadow = f"{holder.root}/etc/shadow"
        with open(shadow) as old:
            lines = [f"root:{boot.password}:{line.split(':', 2)[2]}" if line.startswith("root:") else line for line in old]
        with open(shadow, "w") as new:
            new.writelines(lines)


def has_init_user_namespace() -> bool:
    """Whether all users of the machine are the same here."""
    with open("/proc/self/uid_map") as file:
        return file.read().split() == ["0", "0", "4294967295"]


class Relay:
    """Takes connections outside, and carries them to port 22 inside.

    Until open() they are taken and nothing is said, as by a machine on whose port nobody answers yet. When nobody listens
    inside they are reset. cut() resets all.
    """

    def __init__(self, listener: socket.socket):
        self.selector = selectors.DefaultSelector()
        self.is_open = False
        self.waiting: list[socket.socket] = []
        self.peers: dict[socket.socket, socket.socket] = {}  # each end of a connection to the other
        self.outer: set[socket.socket] = set()
        self.buffers: dict[socket.socket, bytes] = {}  # what is still to be sent to this one
        self.ended: set[socket.socket] = set()  # those that have sent all that they had to
        self.listener = listener
        listener.setblocking(False)
        self.selector.register(listener, selectors.EVENT_READ, "listener")

    def serve(self, seconds: float | None) -> list[str]:
        """Carry what there is, at most so many seconds; return which of the descriptors that others registered are ready."""
        ready = []
        for key, events in self.selector.select(seconds):
            if key.data == "listener":
                with contextlib.suppress(OSError):
                    self._take(self.listener.accept()[0])
            elif isinstance(key.data, str):
                ready.append(key.data)
            elif key.fileobj in self.peers:
                self._carry(key.fileobj, events)
        return ready

    def open(self) -> None:
        """The system's network is up."""
        self.is_open = True
        waiting, self.waiting = self.waiting, []
        for outer in waiting:
            self._connect(outer)

    def cut(self) -> None:
        """End all connections as a machine does that has lost its memory of them."""
        self.selector.unregister(self.listener)
        self.listener.close()
        for outer in [*self.waiting, *self.outer]:
            reset(outer)

    def pass_on(self, control: socket.socket) -> None:
        """Leave all connections open, in the hands of a process that neither reads nor writes them."""
        self.listener.close()
        outer = [sock.fileno() for sock in (*self.waiting, *self.outer)]
        while outer:
            socket.send_fds(control, [b"x"], outer[:MOST_PASSED])
            del outer[:MOST_PASSED]

    def _take(self, outer: socket.socket) -> None:
        outer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.is_open:
            self._connect(outer)
        else:
            self.waiting.append(outer)

    def _connect(self, outer: socket.socket) -> None:
        inner = socket.socket()
        inner.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            inner.bind((OUTSIDE, 0))
            inner.settimeout(0.2)  # on one machine that is done at once, or never
            inner.connect((INSIDE, 22))
        except OSError:
            inner.close()
            reset(outer)
            return
        self.outer.add(outer)
        for one, other in ((outer, inner), (inner, outer)):
            one.setblocking(False)
            self.peers[one] = other
            self.buffers[one] = b""
            self.selector.register(one, selectors.EVENT_READ)

    def _carry(self, one: Any, events: int) -> None:
        other = self.peers[one]
        try:
            if events & selectors.EVENT_WRITE:
                self.buffers[one] = self.buffers[one][one.send(self.buffers[one]):]
                if not self.buffers[one] and other in self.ended:
                    one.shutdown(socket.SHUT_WR)
            if events & selectors.EVENT_READ:
                data = one.recv(BLOCK)
                if data:
                    self.buffers[other] += data
                else:
                    self.ended.add(one)
                    if not self.buffers[other]:
                        other.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            pass
        except OSError:
            self._drop(one, broken=True)
            return
        if {one, other} <= self.ended and not self.buffers[one] and not self.buffers[other]:
            self._drop(one, broken=False)
            return
        for end in (one, other):
            wanted = selectors.EVENT_WRITE if self.buffers[end] else 0
            if end not in self.ended and len(self.buffers[self.peers[end]]) < BLOCK:
                wanted |= selectors.EVENT_READ
            self._want(end, wanted)

    def _want(self, end: socket.socket, events: int) -> None:
        known = end in self.selector.get_map()
        if events and known:
            self.selector.modify(end, events)
        elif events:
            self.selector.register(end, events)
        elif known:
            self.selector.unregister(end)

    def _drop(self, one: socket.socket, broken: bool) -> None:
        for end in (one, self.peers[one]):
            self._want(end, 0)
            del self.peers[end], self.buffers[end]
            self.outer.discard(end)
            self.ended.discard(end)
            if broken:
                reset(end)
            else:
                end.close()


def reset(sock: socket.socket) -> None:
    """Close a connection by a TCP reset."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


# ------------------------------------------------------------------------------------------------------------------- init


def run_init(root: str, boot: Boot, foreign: tuple[int, ...]) -> NoReturn:
    """Be process 1."""
    for number in foreign:
        os.close(number)
    console = os.open(boot.console, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open("/dev/null", os.O_RDONLY)
    for source, number in ((null, 0), (console, 1), (console, 2)):
        os.dup2(source, number)
    os.closerange(3, 1024)
    os.environ.clear()
    os.environ["PATH"] = PATH
    libc.prctl(PR_SET_NAME, b"init", 0, 0, 0)
    for capability in DROPPED_CAPABILITIES:
        check(libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0), "prctl")
    os.umask(0o022)
    mount_inside(root, boot)
    with open("/etc/hostname") as file:
        socket.sethostname(file.read().strip())
    Init(boot).run()


def mount_inside(root: str, boot: Boot) -> None:
    """Make what is below `root` the system's own view, and leave the machine's."""
    mount("proc", f"{root}/proc", "proc", NOSUID | NODEV | NOEXEC)
    mount(f"{root}/proc/sys", f"{root}/proc/sys", flags=BIND)
    mount("none", f"{root}/proc/sys", flags=BIND | REMOUNT | RDONLY | NOSUID | NODEV | NOEXEC)
    mount("sysfs", f"{root}/sys", "sysfs", RDONLY | NOSUID | NODEV | NOEXEC)
    for name in ("block", "class/block", "dev/block"):  # the disks of the machine that runs the tests
        if os.path.isdir(f"{root}/sys/{name}"):
            tmpfs(f"{root}/sys/{name}")
    for name, mode in (("dev", "0755"), ("run", "0755")):
        tmpfs(f"{root}/{name}", mode)
    # What is bound here comes from /run, so that no source of a mount looks like a disk.
    for name in ("null", "zero", "full", "random", "urandom", "tty", "net/tun"):
        if os.path.exists(f"/dev/{name}"):
            os.makedirs(os.path.dirname(f"{root}/dev/{name}"), exist_ok=True)
            os.close(os.open(f"{root}/dev/{name}", os.O_WRONLY | os.O_CREAT, 0o600))
            mount(f"/dev/{name}", f"{root}/dev/{name}", flags=BIND)
    for name, target in (("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"),
                         ("stderr", "/proc/self/fd/2"), ("ptmx", "pts/ptmx")):
        os.symlink(target, f"{root}/dev/{name}")
    os.mkdir(f"{root}/dev/pts")
    mount("devpts", f"{root}/dev/pts", "devpts", NOSUID | NOEXEC, "newinstance,gid=5,mode=0620,ptmxmode=0666")
    tmpfs(f"{root}/dev/shm", "1777")
    os.mkdir(f"{root}/run/sshd")
    os.mkdir(f"{root}/run/lock")
    os.chmod(f"{root}/run/lock", 0o1777)
    if os.path.exists(f"{root}/proc/sysrq-trigger"):
        mount("/dev/null", f"{root}/proc/sysrq-trigger", flags=BIND)
    overlay_proc(root, "sys/kernel/random/boot_id", f"{uuid.uuid4()}\n")
    os.chdir(root)
    check(libc.syscall(PIVOT_ROOT[platform.machine()], b".", b"."), "pivot_root")
    check(libc.umount2(b".", DETACH), "umount2")
    os.chdir("/")
    if boot.kind == "installed":
        # An overlay is what rescue systems have for /. The link itself is covered, for what it leads to is each process's own.
        with open("/proc/mounts") as file:
            lines = [f"{boot.root[0]} / {boot.root[1]} rw,relatime,errors=remount-ro 0 0\n" if line.split()[1] == "/" else line
                     for line in file]
        overlay_proc("", "mounts", "".join(lines))


def overlay_proc(root: str, name: str, text: str) -> None:
    """Have a file of /proc say something else, in this mount namespace."""
    source = f"{root}/run/.{os.path.basename(name)}"
    with open(source, "w") as file:
        file.write(text)
    os.chmod(source, 0o444)
    target = os.open(f"{root}/proc/{name}", os.O_PATH | os.O_NOFOLLOW)
    mount(source, f"/proc/self/fd/{target}", flags=BIND)
    os.close(target)
    os.unlink(source)


class Init:
    """Process 1: keeps sshd running, buries the dead, and shuts down when asked to."""

    signals = (REBOOT, OFF, signal.SIGCHLD)

    def __init__(self, boot: Boot):
        self.ssh_at = time.monotonic() + boot.ssh_delay  # when sshd is to be started
        self.sshd: int | None = None

    def run(self) -> NoReturn:
        """Be it. Ends by a reboot(2), which tells the parent how."""
        signal.pthread_sigmask(signal.SIG_BLOCK, self.signals)  # process 1 gets only what it waits for
        while True:
            if self.sshd is None and time.monotonic() >= self.ssh_at:
                self.sshd = os.posix_spawn("/usr/sbin/sshd", ["/usr/sbin/sshd", "-D", "-e"], {"PATH": PATH, "LANG": "C.UTF-8"},
                                           setsid=True, setsigmask=(), setsigdef=(signal.SIGPIPE, signal.SIGXFSZ))
            wait = 3600.0 if self.sshd else max(0.0, self.ssh_at - time.monotonic())
            got = signal.sigtimedwait(self.signals, wait)
            self._bury()
            if got is not None and got.si_signo in (REBOOT, OFF):
                self._shut_down(RB_AUTOBOOT if got.si_signo == REBOOT else RB_POWER_OFF)

    def _bury(self) -> bool:
        """Take the status of those that have ended. Return whether any other process is left."""
        while True:
            try:
                pid, _status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.sshd:
                self.sshd = None
                self.ssh_at = time.monotonic() + RESPAWN_SECONDS

    def _shut_down(self, how: int) -> NoReturn:
        for kill, seconds in ((signal.SIGTERM, SHUTDOWN_SECONDS), (signal.SIGKILL, 1.0)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, kill)
            until = time.monotonic() + seconds
            while self._bury() and (left := until - time.monotonic()) > 0:
                signal.sigtimedwait((signal.SIGCHLD,), left)
        libc.reboot(ctypes.c_int(how if how < 2**31 else how - 2**32))
        raise OSError(ctypes.get_errno(), "reboot")


if __name__ == "__main__":
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(Holder(sys.argv[1]).run())
