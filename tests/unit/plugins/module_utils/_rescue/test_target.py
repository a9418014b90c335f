# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files inside a target: hostile links, and files replaced whole."""

from __future__ import annotations

import json
import os
import stat

import pytest

from ansible_collections.lifeboat.rescue.plugins.module_utils._errors import TargetError
from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue import _command, _target


@pytest.fixture
def tree(tmp_path):
    """A target, with a secret just outside of it."""
    root = tmp_path / "tree"
    (root / "etc").mkdir(parents=True)
    (root / "etc/passwd").write_text("inside\n")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("outside\n")
    (tmp_path / "secret").write_text("outside\n")
    return root


def snapshot(top):
    """Everything below top but the tree, to see that nothing outside was touched."""
    found = {}
    for directory, _dirs, files in os.walk(top):
        if os.path.relpath(directory, top).split("/")[0] == "tree":
            continue
        for name in files:
            path = os.path.join(directory, name)
            with open(path, "rb") as file:
                found[path] = (file.read(), os.lstat(path).st_mtime_ns)
    return found


@pytest.mark.parametrize(("link", "points_to", "path"), [
    ("etc/l", "/etc/passwd", "etc/l"),
    ("etc/l", "../../../../../../etc/passwd", "/etc/l"),
    ("l", "/", "l/l/l/etc/passwd"),
    ("l", "..", "l/../l/etc/../etc/passwd"),
    ("etc/l", "passwd", "/etc//./l"),
    ("etc/l", "//etc/./passwd", "../../etc/l"),
])
def test_links_end_where_the_target_itself_would_end(tree, link, points_to, path):
    (tree / link).symlink_to(points_to)
    before = snapshot(tree.parent)
    assert _target.read(str(tree), path) == b"inside\n"
    assert _target.resolve(str(tree), path) == "/etc/passwd"
    _target.replace(str(tree), path, b"new\n", backup=True)
    assert (tree / "etc/passwd").read_text() == "new\n"
    assert os.readlink(tree / link) == points_to
    assert snapshot(tree.parent) == before


@pytest.mark.parametrize("points_to", ["{outside}/secret", "../secret", "/../../secret"])
def test_what_is_outside_is_not_there(tree, points_to):
    (tree / "l").symlink_to(points_to.format(outside=tree.parent))
    for call in (_target.read, lambda *args: _target.replace(*args, b"x")):
        with pytest.raises(_target.NotThere):
            call(str(tree), "l")
    with pytest.raises(TargetError, match="a symbolic link"):
        _target.create(str(tree), "l", b"x")
    assert (tree.parent / "secret").read_text() == "outside\n"


def test_loops_end(tree):
    (tree / "a").symlink_to("b")
    (tree / "b").symlink_to("a")
    with pytest.raises(TargetError, match="40 symbolic links"):
        _target.read(str(tree), "a")
    with pytest.raises(TargetError):
        _target.read(str(tree), "x/" * 3000)


def test_a_directory_turned_into_a_link_is_not_followed(tree, monkeypatch):
    """A process in the target that is quicker than we are: a link, just after we saw a directory."""
    (tree / "etc").rename(tree / "real")
    (tree / "etc").symlink_to(tree.parent / "etc")
    monkeypatch.setattr(_target, "_points_to", lambda directory, name: None)
    with pytest.raises(TargetError):
        _target.read(str(tree), "etc/passwd")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_only_regular_files(tree, make):
    make(tree / "x")
    with pytest.raises(TargetError, match="not a regular file"):
        _target.read(str(tree), "x")
    with pytest.raises(TargetError, match="not a regular file"):
        _target.replace(str(tree), "x", b"")
    with pytest.raises(TargetError, match="not a regular file"):
        _target.create(str(tree), "x", b"")


def test_a_file_too_large(tree):
    with pytest.raises(TargetError, match="more than 3 bytes"):
        _target.read(str(tree), "etc/passwd", limit=3)


def test_names_and_status(tree):
    (tree / "l").symlink_to("etc")
    assert _target.names(str(tree), "l") == ["passwd"]
    assert _target.names(str(tree), "etc/passwd") == _target.names(str(tree), "nope") == []
    assert _target.names(str(tree), "/") == ["etc", "l"]
    assert stat.S_ISDIR(_target.status(str(tree), "l").st_mode)
    assert stat.S_ISLNK(_target.status(str(tree), "l", follow=False).st_mode)
    assert _target.status(str(tree), "nope/nope") is None
    assert _target.link(str(tree), "l") == "etc"
    assert _target.link(str(tree), "etc") is None


def protection(path):
    status = os.stat(path)
    return (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid,
            {name: os.getxattr(path, name) for name in os.listxattr(path)})


def test_two_backups_in_one_second(tree):
    copies = {_target.replace(str(tree), "etc/passwd", b"x") for dummy in range(3)}
    assert len(copies) == 3
    assert all((tree / copy[1:]).exists() for copy in copies)


def test_no_half_written_file(tree, monkeypatch):
    """When the disk is full, or we are killed: the old file, and no litter after the next try."""
    (tree / "etc/.passwd.lifeboat-new").write_text("left by one who was killed")

    def full(fd, data):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(_target, "_fill", full)
        with pytest.raises(TargetError, match="No space left"):
            _target.replace(str(tree), "etc/passwd", b"new\n")
    assert (tree / "etc/passwd").read_text() == "inside\n"
    assert set(os.listdir(tree / "etc")) <= {"passwd", ".passwd.lifeboat-new"}
    _target.replace(str(tree), "etc/passwd", b"new\n", backup=False)
    assert os.listdir(tree / "etc") == ["passwd"]


# Commands inside ----------------------------------------------------------------------------------------------------


class Recorder(_command.Runner):
    def __call__(self, argv, **options):
        self.argv, self.options = argv, options
        return _command.Result(0, "", "")


def test_the_running_system_needs_no_chroot():
    run = Recorder()
    _target.inside(run, "/", ["id", "-u"], stdin="x")
    assert run.argv == ["id", "-u"]
    assert run.options["stdin"] == "x"


def test_a_journal_of_another_root_or_no_namespace(tmp_path):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    assert _target.namespace_of("/mnt/target", str(run_dir)) is None
    (run_dir / "target.ns").touch()
    (run_dir / "journal.json").write_text(json.dumps({"path": "/mnt/target"}))
    assert _target.namespace_of("/mnt/target", str(run_dir)) is None
