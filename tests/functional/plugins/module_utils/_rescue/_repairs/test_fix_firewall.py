# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A new file in the target is root's, which only root can make it."""

from __future__ import annotations

import os

import pytest

from ansible_collections.lifeboat.rescue.plugins.module_utils._errors import TargetError
from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue._repairs import _fix_firewall

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


class Scripted(_fix_firewall._Firewall):
    name = "scripted"


def nonsense():
    raise TargetError("nonsense")


def test_files_are_put_back_when_the_proof_fails(tmp_path):
    (tmp_path / "old").write_bytes(b"before")
    changes = [_fix_firewall.Change("old", b"before", b"after"), _fix_firewall.Change("new", None, b"after")]
    with pytest.raises(TargetError, match=r"nonsense.*put back"):
        _fix_firewall._write_proved(Scripted(None, str(tmp_path)), changes, nonsense)
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("old", b"before")]
