# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What systemd of the target will start at boot, told from its files. Private to this collection.

systemd.unit(5): a unit is started because a link in a .wants or .requires directory names it. Files in /etc win over
those in /usr/lib; a unit linked to /dev/null is masked; drop-ins add to the unit, and an empty value clears.
"""

from __future__ import annotations

import fnmatch
import os
import re

from ..._errors import TargetError
from .. import _target

_ETC = "etc/systemd/system"
_PLACES = (_ETC, "usr/local/lib/systemd/system", "usr/lib/systemd/system", "lib/systemd/system")


def text(root: str, path: str) -> str:
    """Content of a file of the target as text, or "" where there is none that can be read."""
    try:
        return _target.read(root, path).decode("utf-8", "surrogateescape")
    except TargetError:
        return ""


def check_root(root: str) -> None:
    """Raise TargetError unless there is an installed system at root."""
    if not os.path.isdir(root) or not exists(root, "etc/passwd"):
        raise TargetError(f"There is no installed system at {root}.", "Nothing was changed.",
                          "Mount it there first, by the module storage_mount.")


def exists(root: str, path: str) -> bool:
    """Tell whether a path is there after its links, as the target itself would see it."""
    return _target.status(root, path) is not None


def glob(root: str, pattern: str) -> list[str]:
    """Paths in the target that match pattern, whose last part may hold wildcards."""
    directory, name = os.path.split(pattern)
    return [f"{directory}/{each}" for each in _target.names(root, directory) if fnmatch.fnmatchcase(each, name)]


def enabled(root: str, unit: str) -> bool:
    """Tell whether the target starts unit at boot."""
    if _target.link(root, f"{_ETC}/{unit}") == "/dev/null" or not _file(root, unit):
        return False
    return any(unit in _target.names(root, f"{place}/{directory}") for place in _PLACES
               for directory in _wanting(root, place))


def links(root: str, unit: str) -> list[str]:
    """Paths of the links in /etc that start unit, or that let D-Bus start it by another name."""
    found = []
    for directory in ["", *_wanting(root, _ETC)]:
        place = f"{_ETC}/{directory}".rstrip("/")
        for name in _target.names(root, place):
            points_to = _target.link(root, f"{place}/{name}")
            if points_to and points_to != "/dev/null" and _is_unit(name) and unit in (
                    os.path.basename(points_to), name if directory else ""):
                found.append(f"{place}/{name}")
    return found


def values(root: str, unit: str, key: str) -> list[str]:
    """Values of key in the unit and its drop-ins, in order. An empty value clears those before it."""
    path = _file(root, unit)
    files = [path] if path else []
    dropins = {}
    for place in reversed(_PLACES):
        for name in _target.names(root, f"{place}/{unit}.d"):
            if name.endswith(".conf"):
                dropins[name] = f"{place}/{unit}.d/{name}"
    files += [dropins[name] for name in sorted(dropins)]
    found: list[str] = []
    for file in files:
        content = text(root, file).replace("\\\n", " ")
        for match in re.finditer(rf"^[ \t]*{re.escape(key)}[ \t]*=[ \t]*(.*?)[ \t]*$", content, re.M):
            found = [*found, match.group(1)] if match.group(1) else []
    return found


def _wanting(root: str, place: str) -> list[str]:
    return [name for name in _target.names(root, place) if name.endswith((".wants", ".requires"))]


def _file(root: str, unit: str) -> str | None:
    return next((f"{place}/{unit}" for place in _PLACES if exists(root, f"{place}/{unit}")), None)


def _is_unit(name: str) -> bool:
    return name.endswith((".service", ".socket", ".target"))
