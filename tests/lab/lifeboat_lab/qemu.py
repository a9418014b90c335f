# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which QEMU the lab uses: the one that ./dev unpacked into the cache, where it did that, or else the system's.

QEMU 10 emulates a processor with half the work of QEMU 7.2, so ./dev fetches it where the system's is older.
"""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path

from .recipe import PATH, LabError


def unpacked() -> Path:
    """Return where ./dev unpacks Debian's packages of QEMU; they are whole when the file `complete` is there."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lifeboat.rescue" / "qemu"


@functools.cache
def system() -> tuple[str, ...]:
    """Return the first words of a command line that runs a machine."""
    place = unpacked()
    if not (place / "complete").exists():
        return ("qemu-system-x86_64",)
    return (str(place / "usr/bin/qemu-system-x86_64"), "-L", str(place / "usr/share/seabios"), "-L", str(place / "usr/share/qemu"))


@functools.cache
def image_tool() -> str:
    """Return qemu-img, of the same version as system()."""
    place = unpacked()
    return str(place / "usr/bin/qemu-img") if (place / "complete").exists() else "qemu-img"


@functools.cache
def version() -> str:
    """Return the version of system(), as it prints it. Raises LabError."""
    try:
        done = subprocess.run([system()[0], "--version"], stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, "PATH": PATH})
    except (OSError, subprocess.CalledProcessError) as error:
        raise LabError(f"{system()[0]} does not run: {error}") from None
    return done.stdout.splitlines()[0]
