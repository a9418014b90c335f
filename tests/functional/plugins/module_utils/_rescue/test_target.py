# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files and commands inside a target: what only root can do, and this kernel."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess

import pytest

from ansible_collections.lifeboat.rescue.plugins.module_utils._errors import TargetError
from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue import _command, _target

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


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


def protection(path):
    status = os.stat(path)
    return (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid,
            {name: os.getxattr(path, name) for name in os.listxattr(path)})


def test_owner_mode_and_attributes_survive(tree):
    path = tree / "etc/shadow"
    path.write_text("old\n")
    os.chown(path, 12, 34)
    path.chmod(0o640)
    os.setxattr(path, "security.selinux", b"system_u:object_r:shadow_t:s0\0")
    os.setxattr(path, "trusted.lifeboat", b"\xff\0")
    subprocess.run(["setfacl", "-m", "u:77:r", path], check=True)
    before, modified = protection(path), os.stat(path).st_mtime_ns
    assert set(before[3]) == {"security.selinux", "trusted.lifeboat", "system.posix_acl_access"}

    copy = _target.replace(str(tree), "etc/shadow", b"new\n")

    assert path.read_text() == "new\n"
    assert protection(path) == before
    kept = tree / copy[1:]
    assert kept.parent == path.parent
    assert kept.name.startswith("shadow.lifeboat-20")
    assert kept.read_text() == "old\n"
    assert protection(kept) == before
    assert os.stat(kept).st_mtime_ns == modified
    assert sorted(os.listdir(path.parent)) == ["passwd", "shadow", kept.name]


def test_new_files_directories_and_links(tree):
    os.setxattr(tree / "etc", "security.selinux", b"system_u:object_r:etc_t:s0\0")
    assert _target.make_directory(str(tree), "etc/ssh", 0o700, (5, 6)) is True
    assert _target.make_directory(str(tree), "etc/ssh", 0o755, (0, 0)) is False
    _target.create(str(tree), "etc/ssh/keys", b"k\n", 0o604, (5, 6))
    label = {"security.selinux": b"system_u:object_r:etc_t:s0\0"}
    assert protection(tree / "etc/ssh") == (0o700, 5, 6, label)
    assert protection(tree / "etc/ssh/keys") == (0o604, 5, 6, label)
    _target.make_link(str(tree), "etc/l", "/dev/null")
    _target.make_link(str(tree), "etc/l", "/dev/zero")
    assert os.readlink(tree / "etc/l") == "/dev/zero"
    with pytest.raises(TargetError, match="not a symbolic link"):
        _target.make_link(str(tree), "etc/passwd", "/dev/zero")
    assert _target.remove(str(tree), "etc/l") is True
    assert _target.remove(str(tree), "etc/l") is False
    assert sorted(os.listdir(tree / "etc")) == ["passwd", "ssh"]


def test_immutable_files_are_told(tree):
    done = subprocess.run(["chattr", "+i", tree / "etc/passwd"], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("this file system has no immutable files")
    try:
        with pytest.raises(TargetError, match="lsattr"):
            _target.replace(str(tree), "etc/passwd", b"x")
        assert os.listdir(tree / "etc") == ["passwd"]
    finally:
        subprocess.run(["chattr", "-i", tree / "etc/passwd"], check=True)


@pytest.fixture
def living_tree(tree):
    """A tree in which commands run: this system's sh and cat, with their libraries."""
    for name in ("bin", "dev", "proc", "run"):
        (tree / name).mkdir()
    for name in ("sh", "cat"):
        program = shutil.which(name)
        shutil.copy(program, tree / "bin" / name)
        for library in re.findall(r"(/\S+) \(0x", subprocess.run(["ldd", program], capture_output=True, text=True,
                                                                 check=True).stdout):
            (tree / library[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, tree / library[1:])
    return tree


def test_a_command_runs_inside_and_leaves_no_mount(living_tree):
    tree = living_tree
    outside = tree.parent / "sysfs"
    outside.mkdir()
    (tree / "sys").symlink_to(outside)  # mount(8) would follow it
    run = _command.Runner(timeout=20)
    with open("/proc/self/mountinfo") as file:
        before = file.read()
    done = _target.inside(run, str(tree), ["sh", "-c", "cat; cat /etc/passwd; test -c /dev/null && cat /proc/mounts"],
                          stdin="given\n")
    assert done.out.startswith("given\ninside\n")
    assert str(outside) not in done.out
    assert _target.inside(run, str(tree), ["nosuch"], check=False).rc == 127
    with open("/proc/self/mountinfo") as file:
        assert file.read() == before
