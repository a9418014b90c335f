# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What `./dev lab` starts, it ends."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest


def _processes(of: str) -> set[bytes]:
    """The arguments of the processes that name a directory."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.add(path.read_bytes())
        except OSError:
            continue
    return {arguments for arguments in found if of.encode() in arguments}


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_the_lab_prints_an_inventory_and_leaves_nothing(how: signal.Signals) -> None:
    process = subprocess.Popen([sys.executable, "-m", "lifeboat_lab", "lab", "--hosts", "2"], stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    try:
        said = ""
        for line in process.stdout:
            said += line
            if "Ctrl-C ends all of it" in line:
                break
        assert "Ctrl-C ends all of it" in said, said
        directory = re.findall(r"^  ansible -i (\S+)/inventory\.ini web1 ", said, re.MULTILINE)[0]
        inventory = Path(directory, "inventory.ini")
        assert inventory.read_text() in said
        listed = subprocess.run(["ansible-inventory", "-i", str(inventory), "--graph"], capture_output=True, text=True,
                                check=True, timeout=60).stdout
        assert "web1" in listed and "web2" in listed
        programs = [arguments.partition(b"\0")[0].rpartition(b"/")[2] for arguments in _processes(directory)]
        machines = [program for program in programs if program.startswith(b"qemu-system")]
        assert len(machines) == 2
        process.send_signal(how)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()
    assert _processes(directory) == set()
    assert not Path(directory).exists() and directory not in Path("/proc/mounts").read_text()
