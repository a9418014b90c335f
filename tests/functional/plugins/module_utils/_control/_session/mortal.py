# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Controllers that die by SIGKILL at one of their calls to a provider's API, just before it leaves, or just after its answer came; or
of whose calls one fails.

    python mortal.py

Takes jobs as lines of JSON, one controller process for each, and answers each with a line: {"died": whether it was killed,
"result": the module's result or null, "calls": what it asked the API for, "sites": those at which one can fail, "lines": its progress}.
A job has `params`, those of rescue_mode, and `now`, the time. It may have `kill`: {"when": "after", "number": n} for the n-th call
that is a new one or follows another one than before (so that polling is one), {"when": "before", "number": n} for the n-th call that
is to change something. Or `fault`, see lifeboat_lab.failing. Nothing of a controller is cleaned up when it dies, and its locks go with it.

Its time is simulated: {"wait": seconds, "asked": how many calls were made by then} is a line of a controller that waits, and the
answer is a line with the time then.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import re
import signal

from ansible_collections.lifeboat.rescue.plugins.module_utils._control import _entry
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._session import _evidence
from lifeboat_lab.failing import Calls
from lifeboat_lab.simulated import SimulatedClock

WRITES = re.compile(r"PUT |POST \S*/reboot$|POST \S*/(action|metadata)\b|DELETE |.*SoftLayer_.* (?!get)\w+$")


# Of each library, where nobody answers.
NOBODY = {
    "openstack": {"openstack_auth": {"auth_url": "http://127.0.0.1:1/v3", "username": "nobody", "password": "none", "project_name": "none",
                                     "user_domain_id": "default", "project_domain_id": "default"}},
    "ovh_dedicated": {f"ovh_{name}": "http://127.0.0.1:1" if name == "endpoint" else "none"
                      for name in ("endpoint", "application_key", "application_secret", "consumer_key")},
    "softlayer": {"softlayer_endpoint_url": "http://127.0.0.1:1/xmlrpc", "softlayer_username": "nobody", "softlayer_api_key": "none"},
}


def read_line():
    """A line of standard input, and nothing of the next one, which may be for another process."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            break
        line += byte
    return line


def say(words):
    os.write(1, json.dumps(words).encode() + b"\n")


class Nothing:
    """A world in which nothing happens."""

    now = 0.0

    def advance(self, seconds):
        self.now += seconds


class Elsewhere:
    """The world's time, which is kept by who gives the jobs. calls: set by who makes them."""

    calls: Calls

    def __init__(self, now):
        self.now = now

    def advance(self, seconds):
        say({"wait": seconds, "asked": len(self.calls.made)})
        self.now = json.loads(read_line())


def live(job, report):
    """Do the job, in a process of its own; die where it says so. report: file descriptor for its last words."""
    kill, lines = job.get("kill"), []
    counts = {"before": 0, "after": 0}
    world = Elsewhere(job["now"])
    clock = SimulatedClock(world)

    def last_words(result=None):
        os.write(report, json.dumps({"calls": calls.made, "sites": calls.sites, "lines": lines, "result": result}).encode())

    def die_at(when):
        counts[when] += 1
        if kill and (kill["when"], kill["number"]) == (when, counts[when]):
            last_words()
            os.kill(os.getpid(), signal.SIGKILL)

    calls = world.calls = Calls(job.get("fault"), clock.pause, before=lambda call: WRITES.match(call) and die_at("before"),
                                after=lambda call: die_at("after"))
    last_words(_entry.run("rescue_mode", job["params"], False, lines.append, clock))


def main():
    """One controller after the other."""
    # Its thread that looks ahead is in real time; this only makes who waits for it wait less.
    _evidence.BackgroundObservation.slice = 0.02
    logging.disable()  # the libraries', of failures that are meant
    for provider, options in NOBODY.items():
        # Their libraries import much at the first call. They do so here, once, and not in each process.
        told = _entry.run("rescue_mode_info", {"provider": provider, "server": "none", "address": "127.0.0.1", "rescue_port": 1,
                                               "session_dir": "/nonexistent", **options}, True, str, SimulatedClock(Nothing()))
        assert "failed for 60 s" in told["msg"], told
    gc.freeze()
    while line := read_line():
        reader, report = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(reader)
            try:
                live(json.loads(line), report)
            finally:
                os._exit(0)
        os.close(report)
        with open(reader, "rb") as stream:
            said = stream.read()
        status = os.waitpid(pid, 0)[1]
        died = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        say({"died": died, **(json.loads(said) if said else {"result": None, "calls": [], "sites": [], "lines": ["no word"]})})


if __name__ == "__main__":
    main()
