# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What storage_mount did, written down before it is done. Private to this collection.

The journal says what may have been done; what was done is seen in the kernel's mount table. So a step that was
announced but not taken, because we were killed between the two, is undone by doing nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import typing as t

from .._errors import TargetError
from . import _target


class Journal:
    """The journal in a directory of the rescue system's memory.

    path: where the target is (to be) mounted. wanted: what was asked for. steps: each {"do": …}, oldest first.
    left: "major:minor" to path of the devices that were unmounted, but not yet seen to be free.
    result: what the module returned when all was mounted, or None while it is not.
    layers: what _layers built, for who comes next.
    """

    def __init__(self, run_dir: str, name: str = _target.JOURNAL):
        self.run_dir = run_dir
        self.file = os.path.join(run_dir, name)
        self.path = ""
        self.wanted: dict[str, t.Any] = {}
        self.steps: list[dict[str, t.Any]] = []
        self.left: dict[str, str] = {}
        self.result: dict[str, t.Any] | None = None
        self.layers: dict[str, t.Any] = {}
        self.exists = False
        self._load()

    def _load(self) -> None:
        try:
            with open(self.file, "rb") as file:
                data = json.load(file)
            self.path, self.wanted = data["path"], data["wanted"]
            self.steps, self.left, self.result = data["steps"], data["left"], data["result"]
            self.layers = data["layers"]
            self.exists = True
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise TargetError(f"The journal {self.file} cannot be read: {exc}.",
                              todo="Unmount by hand what is below the target's path, then remove it.") from exc

    @property
    def mounts(self) -> list[dict[str, t.Any]]:
        """The steps that mount a file system of the target."""
        return [step for step in self.steps if step["do"] == "mount"]

    def begin(self, path: str, wanted: dict[str, t.Any], taken: Journal | None = None) -> None:
        """Start a new one. taken: another journal, whose steps and layers it takes over, and which ends.

        Killed before that has ended, both have the steps, and both are undone: a step that was undone already is not taken any
        more. This one has no layers until then, for they would be gone when the other one is undone first.
        """
        self.path, self.wanted, self.steps, self.left, self.result, self.layers = path, wanted, [], {}, None, {}
        if taken is None:
            self.save()
            return
        layers, self.steps = taken.layers, taken.steps
        self.save()
        taken.end()
        self.layers = layers
        self.save()

    def announce(self, **step: t.Any) -> None:
        """Write down what is going to be done next."""
        self.steps.append(step)
        self.save()

    def save(self) -> None:
        """Write it whole or not at all."""
        temporary = self.file + ".new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w") as file:
            json.dump({"path": self.path, "wanted": self.wanted, "steps": self.steps, "left": self.left,
                       "result": self.result, "layers": self.layers}, file)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, self.file)
        self.exists = True

    def save_if_there_is_room(self) -> None:
        """The same for an undo: what comes next may be what makes room, and each step may be undone again."""
        with contextlib.suppress(OSError):
            self.save()

    def end(self) -> None:
        """Nothing of it is left."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.file)
        self.path, self.wanted, self.steps, self.left, self.result, self.layers = "", {}, [], {}, None, {}
        self.exists = False
