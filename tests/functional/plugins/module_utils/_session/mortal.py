# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Controllers that die by SIGKILL at one of their calls to a provider's API: just before it leaves, or just after its answer came.

    python mortal.py

Takes jobs as lines of JSON, one controller process for each, and answers each with a line: {"died": whether it was killed,
"result": the module's result or null, "calls": what it asked the API for, "lines": its progress}. A job has `params`, those of
rescue_mode, and may have `kill`: {"when": "after", "number": n} for the n-th call that is a new one or follows another one than
before (so that polling is one), {"when": "before", "number": n} for the n-th call that is to change something. Nothing of a
controller is cleaned up when it dies, and its locks go with it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from urllib.parse import unquote

import requests

from ansible_collections.lifeboat.rescue.plugins.module_utils import _controller, _ssh
from ansible_collections.lifeboat.rescue.plugins.module_utils._providers import _openstack, _ovh, _ovh_vps, _softlayer
from ansible_collections.lifeboat.rescue.plugins.module_utils._session import _common, _reboot
from ansible_collections.lifeboat.rescue.plugins.module_utils._wait import Backoff

WRITES = re.compile(r"PUT |POST \S*/reboot$|POST \S*/(action|metadata)\b|DELETE |.*SoftLayer_.* (?!get)\w+$")


def hurry():
    """Wait in hundredths of what a controller waits by itself. The order of all it does stays."""
    _ssh.FIRST_SECONDS = 0.05
    _common.EXPECTED_SECONDS = 2.0
    _softlayer.SoftLayerProvider.transaction_shows = 0.3
    _softlayer.REBOOT_SHOWS = 1.0
    for module in (_openstack, _ovh, _ovh_vps, _reboot, _softlayer):
        module.Backoff = lambda first, longest, factor=2.0: Backoff(0.02, 0.1)


def label(request):
    """What a request asks for."""
    body = request.body.decode() if isinstance(request.body, bytes) else request.body or ""
    path = re.sub(r"[0-9a-f-]{32,36}|(?<=/)\d+", "ID", request.path_url.partition("?")[0])
    words = [request.method, path]
    method = re.search(r"<methodName>(\w+)<", body)
    mask = re.search(r"mask\[id,(\w+)", unquote(body + request.path_url))
    if mask:
        words[1] += f" {mask[1]}"
    if method:
        words.append(method[1])
    elif "/rest/v3" in path:
        words.append(path.rpartition("/")[2].removesuffix(".json"))
    elif path.endswith("/action"):
        words[1] += f" {next(iter(json.loads(body)))}"
    return " ".join(words)


def live(job):
    """Do the job, in a process of its own; die where it says so."""
    kill, calls, seen = job.get("kill"), [], set()
    counts = {"before": 0, "after": 0}
    send = requests.Session.send

    def die_at(when):
        counts[when] += 1
        if kill and (kill["when"], kill["number"]) == (when, counts[when]):
            os.write(1, json.dumps({"calls": calls, "lines": lines, "result": None}).encode())
            os.kill(os.getpid(), signal.SIGKILL)

    def mortal_send(session, request, **more):
        call = label(request)
        step = (calls[-1] if calls else None, call)
        calls.append(call)
        if WRITES.match(call):
            die_at("before")
        response = send(session, request, **more)
        if step not in seen:
            seen.add(step)
            die_at("after")
        return response

    requests.Session.send = mortal_send
    lines = []
    result = _controller.run("rescue_mode", job["params"], False, lines.append)
    os.write(1, json.dumps({"calls": calls, "lines": lines, "result": result}).encode())


def main():
    """One controller after the other."""
    hurry()
    for provider in ("openstack", "ovh_dedicated", "softlayer"):
        # Their libraries are imported once, before anybody dies. They will say that nothing is given.
        _controller.run("rescue_mode_info", {"provider": provider, "server": "none", "session_dir": os.devnull}, True, str)
    for line in sys.stdin:
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(reader)
            os.dup2(writer, 1)
            os.close(writer)
            try:
                live(json.loads(line))
            finally:
                os._exit(0)
        os.close(writer)
        with open(reader, "rb") as stream:
            said = stream.read()
        status = os.waitpid(pid, 0)[1]
        died = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        print(json.dumps({"died": died, **(json.loads(said) if said else {"result": None, "calls": [], "lines": ["no word"]})}),
              flush=True)


if __name__ == "__main__":
    main()
