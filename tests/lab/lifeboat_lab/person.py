# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A person who follows the README: with an account and a home folder, and a Python environment that has what the README names alone.

    with Person(world, "plain") as person:  # of a world with inventory="readme"
        person.run(command("At three in the morning", "rescue_mode_info"))

The account and the home exist for what the person runs, in a mount namespace; the home is a folder of the test. The collection is built
from this tree and installed as a user installs it; the inventory, the key and the known host keys are where a user has them, and the
credentials in the environment.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import sys
import textwrap
import typing as t
from importlib import metadata
from pathlib import Path

import pexpect

from .images import LabError
from .recipe import PATH
from .trees import namespace_prefix
from .venvs import cache, ensure_venv
from .world import REPOSITORY, World

HOME = "/mnt"
ACCOUNTS = {"root": 0, "plain": 65533}
# Run with all rights of the namespace: $1 the person's folder, $2 the number of the account, $3 the home of whoever runs the tests, into
# which nobody else may look, then what below that must stay visible, -- and the command.
ENTER = """
set -e
home=$1 number=$2 hidden=$3; shift 3
mount --make-rprivate /
mount --bind "$home" /mnt
mount --bind "$home/passwd" /etc/passwd
kept=0
while [ "$1" != -- ]; do
    kept=$((kept + 1)); mkdir -p "/mnt/.kept$kept"; mount --rbind "$1" "/mnt/.kept$kept"; eval "place$kept=\\$1"; shift
done
shift
if [ $kept != 0 ]; then
    mount -t tmpfs -o mode=755 tmpfs "$hidden"
    while [ $kept != 0 ]; do
        eval "place=\\$place$kept"; mkdir -p "$place"; mount --rbind "/mnt/.kept$kept" "$place"; kept=$((kept - 1))
    done
fi
cd /mnt
if [ "$number" != 0 ]; then exec setpriv --reuid "$number" --regid "$number" --clear-groups --no-new-privs -- "$@"; fi
exec "$@"
"""


def blocks(heading: str, language: str = "console") -> list[str]:
    """The blocks of code in a language that the README prints below a heading, each without its indentation."""
    below = (REPOSITORY / "README.md").read_text().split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return [textwrap.dedent(block) for block in re.findall(rf"^ *```{language}\n(.*?)^ *```$", below, re.DOTALL | re.MULTILINE)]


def commands(heading: str) -> list[str]:
    """The lines of shell that the README prints below a heading; one that goes on in the next line is one."""
    return [line for block in blocks(heading) for line in block.replace("\\\n", " ").splitlines()]


def command(heading: str, *words: str) -> str:
    """The only one of these that has all of the words."""
    [found] = [line for line in commands(heading) if all(word in line for word in words)]
    return found


def named_requirements() -> str:
    """What the README has one install for OVH, each in the version that the tests have."""
    names = command("Installation", "pip install", "ovh").split(" install ", 1)[1].split()
    return "".join(f"{name}=={metadata.version(name)}\n" for name in ("ansible-core", *names))


class Person:
    """See the module. account: one of ACCOUNTS. directory: the home, as the test sees it; what a test puts there, it gives to own()."""

    def __init__(self, world: World, account: str):
        self._world, self._number = world, ACCOUNTS[account]
        self.directory = world.directory / "person"
        self.directory.mkdir()
        (self.directory / "passwd").write_text("".join(f"{name}:x:{number}:{number}::{HOME}:/bin/sh\n" for name, number in ACCOUNTS.items()
                                                       if name in ("root", account)))
        (self.directory / ".ssh").mkdir(mode=0o700)
        (self.directory / ".ssh/config").write_text("User root\n")
        files = {"inventory": world.inventory, ".ssh/known_hosts": world.known_hosts, ".ssh/id_ed25519": world.admin_key}
        for target, source in files.items():
            shutil.copy(source, self.directory / target)

    def __enter__(self) -> t.Self:
        """Install what the README says. Raises LabError."""
        try:
            self._install()
        except BaseException:
            self._give(0)
            raise
        return self

    def _install(self) -> None:
        requirements = self._world.directory / "requirements.txt"
        requirements.write_text(named_requirements())
        self._venv = ensure_venv("readme", requirements)
        subprocess.run(["ansible-galaxy", "collection", "build", str(REPOSITORY), "--output-path",
                        str(self.directory)], env=self._world.ansible_environment(), check=True, stdout=subprocess.DEVNULL)
        [collection] = self.directory.glob("*.tar.gz")
        self.own()
        # Galaxy is not at hand.
        done = self.run(command("Installation", "ansible-galaxy", "install lifeboat").replace("lifeboat.rescue", collection.name))
        if done.returncode:
            raise LabError(f"The collection cannot be installed: {done.stdout}")

    def __exit__(self, *exc_info: object) -> None:
        """Give all of it to whoever runs the test, who is to remove it."""
        self._give(0)

    def own(self) -> None:
        """Make all of the home the person's."""
        self._give(self._number)

    def _give(self, number: int) -> None:
        change = [*namespace_prefix(), "chown", "-R", f"{number}:{number}", str(self.directory)]
        subprocess.run(change, check=True, stdin=subprocess.DEVNULL)

    def session_files(self) -> list[Path]:
        """What sessions keep in the home now, but for their locks."""
        self._give(0)
        left = [path for path in (self.directory / ".ansible/lifeboat").rglob("*") if path.is_file() and not path.name.endswith("lock")]
        self.own()
        return left

    def run(self, line: str, timeout: float = 900) -> subprocess.CompletedProcess[str]:
        """Run a line of shell as the person, in the home, without a terminal."""
        words = self._command(line)
        return subprocess.run(words, env=self._environment(), timeout=timeout, check=False, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def type(self, line: str, answers: dict[str, str], timeout: float = 900) -> subprocess.CompletedProcess[str]:
        """The same at a terminal, where answers are given to these questions, in this order.

        Raises pexpect.ExceptionPexpect where one is not asked.
        """
        program, *words = self._command(line)
        output = ""
        with pexpect.spawn(program, words, env=self._environment(), timeout=timeout, encoding="utf-8") as child:
            for question, answer in answers.items():
                child.expect_exact(question)
                output += child.before
                child.sendline(answer)
            child.expect(pexpect.EOF)
            output += child.before
        return subprocess.CompletedProcess([program, *words], child.exitstatus, output)

    def _command(self, line: str) -> list[str]:
        hidden = pwd.getpwuid(os.getuid()).pw_dir
        kept = sorted({str(place) for place in (cache(), Path(sys.base_prefix)) if place.is_relative_to(hidden)})
        return ["unshare", *([] if os.geteuid() == 0 else ["--map-root-user", "--map-auto"]), "--mount", "--", "sh", "-c", ENTER, "sh",
                str(self.directory), str(self._number), hidden, *kept, "--", "sh", "-c", line]

    def _environment(self) -> dict[str, str]:
        """There is no variable HOME."""
        return {"PATH": f"{self._venv}/bin:{PATH}", "LANG": "C.UTF-8", **self._world.environment()}
