# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Virtual environments for what the lab runs beside itself, each in the cache and with all of its requirements pinned."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from .recipe import LabError


def cache() -> Path:
    """The directory for what is made once and kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lifeboat.rescue"


def ensure_venv(name: str, requirements: Path, say: Callable[[str], None] = print,
                finish: Callable[[Path], None] = lambda venv: None) -> Path:
    """The virtual environment with these requirements, made first where the cache has none. say is told so, in one line.

    finish: what is left to do to a new one.
    """
    place = cache() / "venv"
    place.mkdir(parents=True, exist_ok=True)
    wanted = hashlib.sha256(f"{sys.executable} {sys.version}\n{requirements.read_text(encoding='utf-8')}".encode())
    venv = place / f"{name}-{wanted.hexdigest()[:12]}"
    if (venv / "complete").exists():
        return venv
    with open(place / f"{name}-lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # somebody else may be at it
        if not (venv / "complete").exists():
            say(f"Setting up Python packages in {venv}")
            _make_venv(venv, requirements)
            finish(venv)
            (venv / "complete").touch()
    return venv


def _make_venv(venv: Path, requirements: Path) -> None:
    python = venv / "bin/python"
    uv = shutil.which("uv")
    if uv:
        commands = [[uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(venv)],
                    [uv, "pip", "install", "--quiet", "--python", str(python), "--requirement", str(requirements)]]
    else:
        commands = [[sys.executable, "-m", "venv", "--clear", str(venv)],
                    [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--requirement", str(requirements)]]
    for command in commands:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=900, check=False)
        if done.returncode:
            raise LabError(f"{' '.join(command)} failed:\n{done.stdout[-4000:]}")
