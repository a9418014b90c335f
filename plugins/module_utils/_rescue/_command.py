# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one runner of commands in the rescue system. Private to this collection.

Tests replace it by one that plays a script (command, environment, exit code, output).
"""

from __future__ import annotations

import os
import subprocess
import typing as t

from .._errors import LifeboatError

# Programs that close what they were given open, and who keeps it open for them until they have ended.
_CLOSERS = ("lvm",)
_KEEPER = ("/bin/sh", "-c", '"$@"; exit $?', "sh")


class Result(t.NamedTuple):
    """What a command did. rc as from subprocess (negative: killed by that signal); out and err are text."""

    rc: int
    out: str
    err: str


class CommandFailed(LifeboatError):
    """A command of the rescue system failed."""

    code = "command_failed"


class Runner:
    """Runs commands with a clean, C-locale environment, no shell, no standard input but what is given."""

    def __init__(self, timeout: float = 300.0):
        self.timeout = timeout
        # Descriptors that commands have open too: a lock, so that it is held as long as what it protects goes on.
        self.shared: tuple[int, ...] = ()

    def __call__(self, argv: t.Sequence[str], *, stdin: str | None = None, check: bool = True,
                 env: t.Mapping[str, str] | None = None, timeout: float | None = None) -> Result:
        """Run argv. Raise CommandFailed on a non-zero exit (unless check is False), a missing program or a time-out.

        stdin is given to the command and appears in no message; env is added to the environment.
        """
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                       "LC_ALL": "C", "HOME": os.environ.get("HOME", "/root")}
        environment.update(env or {})
        limit = self.timeout if timeout is None else timeout
        command = [*_KEEPER, *argv] if self.shared and argv[0] in _CLOSERS else list(argv)
        try:
            done = subprocess.run(command, input=(stdin or "").encode(), capture_output=True,
                                  env=environment, timeout=limit, check=False, pass_fds=self.shared)
        except FileNotFoundError:
            if check:
                raise CommandFailed(f"The rescue system has no program {argv[0]!r}.") from None
            return Result(127, "", f"{argv[0]}: not found")
        except subprocess.TimeoutExpired:
            raise CommandFailed(f"{argv[0]} did not end within {limit:g} s.",
                                details={"command": list(argv)}) from None
        result = Result(done.returncode, done.stdout.decode("utf-8", "surrogateescape"),
                        done.stderr.decode("utf-8", "surrogateescape"))
        if check and result.rc != 0:
            reason = (result.err.strip() or result.out.strip() or "no output")[-2000:]
            raise CommandFailed(f"{argv[0]} failed with exit code {result.rc}: {reason}",
                                details={"command": list(argv), "rc": result.rc})
        return result
