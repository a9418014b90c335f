# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The session's folder, as other programs see it."""

from __future__ import annotations

import os
import subprocess

import pytest

from ansible_collections.lifeboat.rescue.plugins.module_utils._control._session._record import SessionStore
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._ssh._keys import make_key_pair


@pytest.mark.parametrize("server", ["web1", "vs:1001", "100%h", "a b", "a=3Ab", "${HOME}", 300 * "%"])
def test_ssh_takes_its_files_for_what_they_are(tmp_path, server):
    """ssh itself replaces %h and the like in the paths that it is given, and takes no others."""
    folder = SessionStore(str(tmp_path), "softlayer", server)
    os.makedirs(folder.path)
    make_key_pair(folder.key_file, "")
    done = subprocess.run(["ssh", "-G", "-o", f"UserKnownHostsFile={folder.known_hosts}", "-i", folder.key_file, "192.0.2.1"],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {f"userknownhostsfile {folder.known_hosts}", f"identityfile {folder.key_file}"} <= set(done.stdout.splitlines())
