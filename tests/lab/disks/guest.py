# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A root shell in a machine's rescue system, by plain ssh: nothing of the collection has a part in it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from lifeboat_lab.images import LabError
from lifeboat_lab.machine import Machine, Rescue


class CommandError(LabError):
    """A command in the machine failed; the text says which and what it said."""


class Guest:
    """root in a machine, by a key: one of its own, unless one is given. The ssh connection is made once, and shared."""

    def __init__(self, machine: Machine, workdir: Path, key: Path | None = None):
        self.machine = machine
        self._workdir = workdir
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
        deadline = time.monotonic() + timeout
        while (done := self._ssh("true", b"", 60)).returncode == 255:
            if time.monotonic() > deadline or self.machine.errors:
                said = self.machine.boots[-1].console.read_text(errors="replace")[-2000:]
                raise LabError(f"Nobody gets in after {timeout:g} s: {done.stdout!r} {self.machine.errors}\n{said}")
            time.sleep(0.2)

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

    def python(self, program: str, *arguments: str, timeout: float = 120) -> str:
        """Run a Python program that needs only the standard library; return what it printed."""
        words = " ".join("'" + word.replace("'", "'\\''") + "'" for word in arguments)
        return self.run(f"python3 - {words}", stdin=program.encode(), timeout=timeout)

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
        if (self._workdir / "ssh").exists():
            subprocess.run([*self._argv(), "-O", "exit", f"root@{self.machine.address}"], stdin=subprocess.DEVNULL,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
