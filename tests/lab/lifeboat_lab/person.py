# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A person who follows the README: with an account and a home folder, and a Python environment that has what the README names alone.

    person = Person(directory, "plain")
    person.run("ansible web1 -i inventory …", {"OVH_ENDPOINT": …})

The account and the home exist for what the person runs, in a mount namespace; the home is a folder of the test. The collection is built
from this tree and installed as a user installs it.
"""

from __future__ import annotations

import os
import pathlib
import pwd
import re
import subprocess
import sys
from importlib import metadata

from lifeboat_lab.recipe import PATH
from lifeboat_lab.trees import namespace_prefix
from lifeboat_lab.venvs import cache, ensure_venv
from lifeboat_lab.world import REPOSITORY

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


def named_requirements() -> str:
    """What the README has one install for OVH, each in the version that the tests have."""
    readme = (REPOSITORY / "README.md").read_text()
    [line] = re.findall(r"^python3 -m pip install ((?!-r).*)$", readme, re.MULTILINE)
    return "".join(f"{name}=={metadata.version(name)}\n" for name in ("ansible-core", *line.split()))


class Person:
    """See the module. account: root, or an ordinary user. directory: the home, as the test sees it; the test fills it, then says own()."""

    def __init__(self, directory: pathlib.Path, account: str):
        self.directory, self.account, self._number = directory, account, ACCOUNTS[account]
        directory.mkdir()
        requirements = directory.with_name("requirements.txt")
        requirements.write_text(named_requirements())
        self.venv = ensure_venv("readme", requirements)
        (directory / "passwd").write_text("".join(f"{name}:x:{number}:{number}::{HOME}:/bin/sh\n" for name, number in ACCOUNTS.items()
                                                  if name in ("root", account)))

    def own(self, number: int | None = None) -> None:
        """Make all of the home the person's. number: another account's, 0 for that of who runs the test, which is to remove it."""
        owner = self._number if number is None else number
        subprocess.run([*namespace_prefix(), "chown", "-R", f"{owner}:{owner}", str(self.directory)], check=True, stdin=subprocess.DEVNULL)

    def run(self, line: str, environment: dict[str, str], timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """Run a line of shell as the person, in the home. There is no variable HOME."""
        hidden = pwd.getpwuid(os.getuid()).pw_dir
        kept = sorted({str(place) for place in (cache(), pathlib.Path(sys.base_prefix)) if place.is_relative_to(hidden)})
        enter = ["unshare", *([] if os.geteuid() == 0 else ["--map-root-user", "--map-auto"]), "--mount", "--", "sh", "-c", ENTER, "sh"]
        return subprocess.run([*enter, str(self.directory), str(self._number), hidden, *kept, "--", "sh", "-c", line],
                              env={"PATH": f"{self.venv}/bin:{PATH}", "LANG": "C.UTF-8", **environment}, timeout=timeout, check=False,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
