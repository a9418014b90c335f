# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""known_hosts files that are none."""

from __future__ import annotations

import pytest

from ansible_collections.lifeboat.rescue.plugins.module_utils._control._ssh._host_keys import read_known_hosts


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\x00broken \xe9\n", b"directory"])
def test_known_hosts_that_cannot_be_read_hold_none(tmp_path, content):
    path = tmp_path / "known_hosts"
    if content == b"directory":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    assert read_known_hosts(str(path), "192.0.2.1", 22) == []
