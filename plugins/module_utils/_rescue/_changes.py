# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a repair does to a target, one thing each, and how it is taken back. Private to this collection."""

from __future__ import annotations

import abc
import os
import stat
import time
import typing as t

from .._errors import Busy, TargetError
from . import _target

Diff = t.Dict[str, str]


class Change(abc.ABC):
    """One thing.

    what: a clause for people ("password set (yescrypt)"). path: of what is changed, in the target, with a leading slash. backup: the
    path of the copy of its old content, once there is one.
    """

    def __init__(self, root: str, path: str, what: str):
        self.root = root
        self.path = "/" + path.lstrip("/")
        self.what = what
        self.backup: str | None = None

    def diff(self) -> Diff | None:
        """Before and after, as Ansible shows it; None where there is nothing to be shown."""
        return None

    @abc.abstractmethod
    def apply(self) -> None:
        """Do it, all of it or nothing. Raises LifeboatError."""

    @abc.abstractmethod
    def undo(self) -> None:
        """Take it back, byte for byte; nothing where it was not done. Raises LifeboatError."""

    def as_result(self) -> dict[str, t.Any]:
        """For the module's result."""
        return {"what": self.what, "path": self.path, "backup": self.backup}


class File(Change):
    """A regular file with other content."""

    def __init__(self, root: str, path: str, what: str, before: bytes | None, after: bytes, *, mode: int = 0o600,
                 owner: tuple[int, int] = (0, 0), selinux_type: str | None = None, shown: tuple[str, str] | None = None):
        """before: what it holds now, None for a file that is not there; such a one gets this mode, owner (uid, gid) and SELinux type.

        shown: what a diff shows as before and after, where the content holds secrets.
        """
        super().__init__(root, path, what)
        self.before, self.after, self.mode, self.owner, self.selinux_type = before, after, mode, owner, selinux_type
        self._shown = shown
        self._done = False

    def diff(self) -> Diff:
        before, after = self._shown or tuple((data or b"").decode("utf-8", "replace") for data in (self.before, self.after))
        return {"before_header": self.path, "after_header": self.path, "before": before, "after": after}

    def _read(self) -> bytes | None:
        try:
            return _target.read(self.root, self.path)
        except _target.NotThere:
            return None

    def apply(self) -> None:
        if self._read() != self.before:
            raise Busy(f"Somebody has just changed {self.path} in the target.", todo="Run this again.")
        if self.before is None:
            _target.create(self.root, self.path, self.after, mode=self.mode, owner=self.owner)
            self._done = True
            if self.selinux_type:
                _target.set_selinux_type(self.root, self.path, self.selinux_type)
        else:
            self.backup = _target.replace(self.root, self.path, self.after)
        self._done = True
        if self._read() != self.after:
            raise TargetError(f"{self.path} in the target does not hold what was written.")

    def undo(self) -> None:
        if not self._done:
            return
        if self.before is None:
            _target.remove(self.root, self.path)
        else:
            _target.replace(self.root, self.path, self.before, backup=False)
        if self.backup:
            _target.remove(self.root, self.backup)
            self.backup = None
        self._done = False


class LinkSetAside(Change):
    """A link under another name beside it, which systemd takes for no unit; renaming it back undoes it."""

    def diff(self) -> Diff:
        points_to = _target.link(self.root, self.backup or self.path)
        return {"before_header": self.path, "after_header": self.path, "before": f"-> {points_to}\n", "after": ""}

    def apply(self) -> None:
        aside = f"{self.path}.lifeboat-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
        _target.make_link(self.root, aside, _target.link(self.root, self.path) or "")
        self.backup = aside
        _target.remove(self.root, self.path)

    def undo(self) -> None:
        if self.backup:
            _target.make_link(self.root, self.path, _target.link(self.root, self.backup) or "")
            _target.remove(self.root, self.backup)
            self.backup = None


class Directory(Change):
    """A directory that is not there yet. selinux_type: by default its parent's; nothing where there is no SELinux."""

    def __init__(self, root: str, path: str, what: str, *, mode: int, owner: tuple[int, int], selinux_type: str | None = None):
        super().__init__(root, path, what)
        self.mode, self.owner, self.selinux_type = mode, owner, selinux_type
        self._done = False

    def apply(self) -> None:
        self._done = _target.make_directory(self.root, self.path, mode=self.mode, owner=self.owner)
        if self._done and self.selinux_type:
            _target.set_selinux_type(self.root, self.path, self.selinux_type)

    def undo(self) -> None:
        if self._done:
            _target.remove_directory(self.root, self.path)
            self._done = False


class Label(Change):
    """Another SELinux type."""

    def __init__(self, root: str, path: str, what: str, *, selinux_type: str):
        super().__init__(root, path, what)
        self.selinux_type = selinux_type
        self._was: str | None = None

    def apply(self) -> None:
        was = _target.selinux_type(self.root, self.path)
        _target.set_selinux_type(self.root, self.path, self.selinux_type)
        self._was = was

    def undo(self) -> None:
        if self._was is not None:
            _target.set_selinux_type(self.root, self.path, self._was)
            self._was = None


class Mode(Change):
    """Another owner (uid, gid) or mode of a file or directory."""

    def __init__(self, root: str, path: str, what: str, *, mode: int, owner: tuple[int, int] | None = None):
        super().__init__(root, path, what)
        self.mode, self.owner = mode, owner
        self._was: tuple[int, int, int] | None = None

    def apply(self) -> None:
        with _target.opened(self.root, self.path) as descriptor:
            now = os.fstat(descriptor)
            self._was = (now.st_uid, now.st_gid, stat.S_IMODE(now.st_mode))
            self._set(descriptor, self.owner, self.mode)

    def undo(self) -> None:
        if self._was is not None:
            uid, gid, mode = self._was
            with _target.opened(self.root, self.path) as descriptor:
                self._set(descriptor, (uid, gid), mode)
            self._was = None

    @staticmethod
    def _set(descriptor: int, owner: tuple[int, int] | None, mode: int) -> None:
        # Owner first: a change of owner clears set-user-ID bits.
        if owner is not None:
            os.fchown(descriptor, *owner)
        os.fchmod(descriptor, mode)
