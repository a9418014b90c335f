# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the provider tells as a server's address may be none, or the controller's own: that is neither looked at nor rebooted."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest


@pytest.mark.parametrize("word", ["none", "own", "127.0.0.1", "127.8.8.8", "0.0.0.0", "::", "::1", "::ffff:127.0.0.1", "localhost"])
def test_no_call_touches_this_machine(word: str) -> None:
    namespace = ["unshare", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--net", "--"]
    script = pathlib.Path(__file__).with_name("addresses.py")
    done = subprocess.run([*namespace, sys.executable, str(script), word], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=120, check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["connections"], said["writes"]) == (0, 0), said
    for call, result in said["results"].items():
        assert result.get("failed") and result["failure"]["code"] == "bad_input" and not result["changed"], (call, result)
        assert "lifeboat_address" in result["msg"] and "Nothing was changed" in result["msg"], (call, result)
