# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""storage_mount is killed at each step of its journal, on the zoo's arrays, volumes and containers; the next call ends clean."""

from __future__ import annotations

import json

import pytest

from disks import Zoo
from disks.module import call, keys, run

pytest_plugins = "disks.fixtures"

# Runs in the machine: mounts or unmounts, and dies by SIGKILL right after the journal was written for the n-th time.
DIE = """
import json, os, signal, sys
from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue import _journal
from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue._storage import _layers, _mounting
state, mode, number, keys = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
Journal, count = _journal.Journal, [0]
def then_die(method):
    def wrapped(self):
        method(self)
        count[0] += 1
        if count[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)
    return wrapped
Journal.save, Journal.end = then_die(Journal.save), then_die(Journal.end)
storage = _mounting.Storage(keys=[_layers.Key(key["device"], key.get("passphrase"), key.get("key_file")) for key in keys])
if state == "mounted":
    storage.mount("/mnt/target", mode)
else:
    storage.unmount()
print(count[0])
"""


@pytest.mark.parametrize(("name", "mode"), [("raid1-090", "rw"), ("luks-on-lv", "ro")])
@pytest.mark.parametrize("state", ["mounted", "unmounted"])
def test_killed_at_each_step(zoo: Zoo, name: str, mode: str, state: str) -> None:
    """Whatever was announced or done by then, the next call ends clean."""
    with zoo.plugged(name) as there:
        guest, luks = there.guest, keys(there)
        number, survived = 0, ""
        while not survived:
            number += 1
            if state == "unmounted":
                done = call(guest, "storage_mount", mode=mode, luks=luks)
                assert done.get("changed"), done
            survived = run(guest, DIE, state, mode, str(number), json.dumps(luks)).strip()
            if number % 5 == 0:
                # Or somebody goes on with what was begun.
                again = call(guest, "storage_mount", mode=mode, luks=luks)
                assert not again.get("failed"), (number, again)
            left = call(guest, "storage_mount", state="unmounted")
            assert left.get("clean"), (number, left)
            assert there.left() == [], number
            assert number < 100
        assert survived == str(number - 1) and number > 5
    if mode == "ro":
        assert there.written() == {}
