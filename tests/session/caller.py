# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Controllers without Ansible around them: many calls of modules at a time, each in a process of its own.

    python caller.py

Takes jobs as lines of JSON: {"module": name, "params": its options, "check_mode": bool, "fault": None or see lifeboat_lab.failing,
"answer": path}. Each is done at once, in a fork in which all libraries are imported already, so that it costs a tenth of a start of
Ansible. Its answer is a file of JSON that appears when it is complete: {"result": what the module returns, "lines": [[seconds since its
start, progress], …], "seconds": it took, "sites": the calls that it made}.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
import traceback

from ansible_collections.lifeboat.rescue.plugins.module_utils._control import _entry
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._ssh._paramiko import load_paramiko
from lifeboat_lab.failing import Calls

PR_SET_PDEATHSIG = 1


def do(job):
    """Do one job."""
    began, lines = time.monotonic(), []
    spec = _entry.SPECS[job["module"]]
    params = {name: option.get("default") for name, option in spec.items()} | job["params"]
    calls = Calls(job.get("fault"))
    result = _entry.run(job["module"], params, job.get("check_mode", False),
                        lambda line: lines.append([round(time.monotonic() - began, 1), line]))
    answer = {"result": result, "lines": lines, "seconds": round(time.monotonic() - began, 1),
              "sites": calls.sites}
    with open(job["answer"] + ".new", "w") as stream:
        json.dump(answer, stream, default=str)
    os.rename(job["answer"] + ".new", job["answer"])


def main():
    """Take jobs until the input ends; those under way end with us."""
    for provider in ("openstack", "ovh_dedicated", "softlayer"):
        # Their libraries are imported once. They will say that nothing is given.
        _entry.run("rescue_mode_info", {"provider": provider, "server": "none", "session_dir": os.devnull}, True, str)
    load_paramiko()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    for line in sys.stdin:
        if os.fork():
            continue
        try:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            do(json.loads(line))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)


if __name__ == "__main__":
    main()
