# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each change is done and taken back in a tree whose files are root's, which only root can make."""

from __future__ import annotations

import os
import stat

import pytest

from ansible_collections.lifeboat.rescue.plugins.module_utils._errors import Busy, TargetError
from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue import _changes

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def root(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/old").write_bytes(b"before")
    os.chown(tmp_path / "etc/old", 7, 8)
    (tmp_path / "etc/old").chmod(0o4750)
    os.setxattr(tmp_path / "etc/old", "user.lifeboat", b"kept")
    (tmp_path / "etc/link").symlink_to("/usr/lib/thing")
    return tmp_path


def seen(root):
    """All that there is: what kind, whose, its mode, its content."""
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(root))] = (stat.S_IFMT(status.st_mode), status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode),
                                              content)
    return found


def changes(root):
    root = str(root)
    return {
        "file": _changes.File(root, "etc/old", "changed", b"before", b"after"),
        "new file": _changes.File(root, "etc/new", "made", None, b"after", mode=0o640, owner=(3, 4)),
        "directory": _changes.Directory(root, "etc/more", "made", mode=0o700, owner=(3, 4), selinux_type="ssh_home_t"),
        "mode": _changes.Mode(root, "etc/old", "made safe", mode=0o600, owner=(0, 0)),
        "link": _changes.LinkSetAside(root, "etc/link", "set aside"),
    }


@pytest.mark.parametrize("kind", ["file", "new file", "directory", "mode", "link"])
def test_done_and_taken_back(root, kind):
    before, change = seen(root), changes(root)[kind]
    change.undo()
    assert seen(root) == before, "what was not done is not taken back"
    diff = change.diff()
    change.apply()
    after = seen(root)
    assert after != before and change.diff() == diff
    assert change.as_result()["path"].startswith("/etc/") and (change.backup is None or change.backup.lstrip("/") in after)
    change.undo()
    assert seen(root) == before and os.getxattr(root / "etc/old", "user.lifeboat") == b"kept"


def test_what_a_file_keeps_and_what_a_new_one_gets(root):
    for name in ("file", "new file", "directory"):
        changes(root)[name].apply()
    after = seen(root)
    assert after["etc/old"][1:] == (7, 8, 0o4750, b"after") and after["etc/new"][1:] == (3, 4, 0o640, b"after")
    assert after["etc/more"][1:4] == (3, 4, 0o700)
    assert [content for name, (*_status, content) in after.items() if ".lifeboat-" in name] == [b"before"]


def test_what_somebody_else_has_changed_is_left_alone(root):
    change = changes(root)["file"]
    (root / "etc/old").write_bytes(b"somebody else's")
    with pytest.raises(Busy):
        change.apply()
    change.undo()
    assert (root / "etc/old").read_bytes() == b"somebody else's"


def test_nothing_is_done_through_a_link_out_of_the_tree(root, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (root / "etc/out").symlink_to(outside)
    for change in (_changes.File(str(root), "etc/out/new", "made", None, b"x"),
                   _changes.Directory(str(root), "etc/out/new", "made", mode=0o700, owner=(0, 0))):
        with pytest.raises(TargetError):
            change.apply()
    assert list(outside.iterdir()) == []
