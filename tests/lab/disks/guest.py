# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A root shell in a machine's rescue system, by plain ssh: nothing of the collection has a part in it."""

from __future__ import annotations

import json
import shlex
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

from lifeboat_lab.images import LabError
from lifeboat_lab.machine import Machine
from lifeboat_lab.server import Rescue
from lifeboat_lab.waiting import until


class CommandError(LabError):
    """A command in the machine failed; the text says which and what it said."""


# Runs in the machine: a Python that is there already, since its start and its imports take most of the time of a short
# program. Each program runs in a process of its own, with what was imported here, and compiled, by then. It ends without
# taking down what it shares with this one: that would be most of its time, under emulation.
INTERPRETER = r"""
import atexit, gc, hashlib, json, os, re, signal, stat, subprocess, sys, traceback

def run(code, arguments):
    sys.argv = ["-", *arguments]
    status = 0
    try:
        exec(code, {"__name__": "__main__"})
    except SystemExit as exc:
        status = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
        if exc.code is not status and exc.code is not None:
            print(exc.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)

programs = {}
for line in sys.stdin.buffer:
    asked = json.loads(line)
    sys.path[:0] = [path for path in asked["path"] if path not in sys.path]
    for name in asked["imports"]:
        __import__(name)
    if asked["program"] not in programs:
        programs[asked["program"]] = compile(asked["program"], "program", "exec")
        gc.collect()
        gc.freeze()
    output = os.memfd_create("output")
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        run(programs[asked["program"]], asked["arguments"])
    status = os.waitpid(pid, 0)[1]
    said = os.pread(output, os.fstat(output).st_size, 0).decode(errors="surrogateescape")
    os.close(output)
    print(json.dumps([os.waitstatus_to_exitcode(status), said]), flush=True)
"""


class Guest:
    """root in a machine, by a key: one of its own, unless one is given. The ssh connection is made once, and shared."""

    def __init__(self, machine: Machine, workdir: Path, key: Path | None = None):
        self.machine = machine
        self._workdir = workdir
        self._interpreter: subprocess.Popen[bytes] | None = None
        self.product_since = 0  # the number of the boot since which the collection is in the machine's memory
        self.key = key or workdir / "key"
        if not key:
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "zoo", "-f", str(self.key)], check=True)

    @property
    def public_key(self) -> str:
        """The line for authorized_keys."""
        return self.key.with_suffix(".pub").read_text()

    def boot(self, timeout: float = 240) -> None:
        """Boot it (again) into rescue, and return when it lets us in."""
        self._disconnect()
        number = len(self.machine.boots) + 1
        self.machine.reset(Rescue(authorized_keys=[self.public_key]))
        self.log_in(self.machine.wait_for_boot(number, timeout).host_keys, timeout)

    def log_in(self, host_keys: Sequence[str], timeout: float = 240) -> None:
        """Return when the machine that is booting lets us in."""
        (self._workdir / "known_hosts").write_text("".join(f"* {key}\n" for key in host_keys))

        def console() -> str:
            return self.machine.boots[-1].console.read_text(errors="replace")[-2000:]

        def let_in() -> bool:
            if self.machine.errors:
                raise LabError(f"The machine has failed: {self.machine.errors}\n{console()}")
            return self._ssh("true", b"", 60).returncode != 255

        until(let_in, timeout, lambda: f"Nobody gets in after {timeout:g} s.\n{console()}", every=0.2)

    def run(self, command: str, *, stdin: bytes = b"", timeout: float = 120, check: bool = True) -> str:
        """Run a shell command; return what it printed. Raises CommandError when it fails, unless check is off."""
        return self.run_binary(command, stdin=stdin, timeout=timeout, check=check).decode(errors="surrogateescape")

    def run_binary(self, command: str, *, stdin: bytes = b"", timeout: float = 120, check: bool = True) -> bytes:
        """Do what run does with bytes."""
        done = self._ssh(command, stdin, timeout)
        if done.returncode == 255 or (check and done.returncode):
            raise CommandError(f"{command[:500]!r} ended with {done.returncode}:\n"
                               f"{(done.stdout + done.stderr).decode(errors='replace')[-4000:]}")
        return done.stdout

    def python(self, program: str, *arguments: str, path: Sequence[str] = (), imports: Sequence[str] = (), timeout: float = 120,
               check: bool = True) -> str:
        """Run a Python program in a process of its own; return what it printed. Raises CommandError as run does.

        path, imports: where to find modules, and modules that this program and all later ones find imported.
        """
        asked = {"program": program, "arguments": arguments, "path": path, "imports": imports}
        code, said = self._ask(json.dumps(asked).encode() + b"\n", timeout)
        if check and code:
            raise CommandError(f"A program ended with {code}:\n{said[-4000:]}")
        return said

    def _ask(self, line: bytes, timeout: float) -> tuple[int, str]:
        if self._interpreter is None:
            command = f"exec python3 -c {shlex.quote(INTERPRETER)}"
            self._interpreter = subprocess.Popen([*self._argv(), f"root@{self.machine.address}", command], bufsize=0,
                                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        process = self._interpreter
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        late = threading.Timer(timeout, process.kill)
        late.start()
        answer: list[bytes] = []
        try:
            process.stdin.write(line)
            while not answer or not answer[-1].endswith(b"\n"):
                answer.append(process.stdout.read(1 << 20))
                if not answer[-1]:
                    raise CommandError(f"A program has not ended in {timeout:g} s, or the machine has: {process.stderr.read()!r}")
        except (CommandError, OSError) as exc:
            self._end_interpreter()
            raise CommandError(f"Python in the machine: {exc}") from None
        finally:
            late.cancel()
        code, said = json.loads(b"".join(answer))
        return code, said

    def _end_interpreter(self) -> None:
        if self._interpreter is not None:
            self._interpreter.kill()
            self._interpreter.communicate()
            self._interpreter = None

    def close(self) -> None:
        """End the connection; the machine stays."""
        self._disconnect()

    def _ssh(self, command: str, stdin: bytes, timeout: float) -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run([*self._argv(), f"root@{self.machine.address}", command], input=stdin,
                                  capture_output=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired:
            raise CommandError(f"{command[:500]!r} has not ended in {timeout:g} s.") from None

    def _argv(self) -> list[str]:
        return ["ssh", "-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes",
                "-o", f"UserKnownHostsFile={self._workdir}/known_hosts", "-o", "ConnectTimeout=30",
                "-o", "LogLevel=ERROR", "-o", "ControlMaster=auto", "-o", f"ControlPath={self._workdir}/ssh",
                "-o", "ControlPersist=600", "-i", str(self.key), "-p", str(self.machine.port)]

    def _disconnect(self) -> None:
        self._end_interpreter()
        if (self._workdir / "ssh").exists():
            subprocess.run([*self._argv(), "-O", "exit", f"root@{self.machine.address}"], stdin=subprocess.DEVNULL,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
