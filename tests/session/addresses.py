# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A controller whose provider tells it addresses that are its own. Run in a network namespace of its own, where the API is not local.

    unshare --net -- python addresses.py WORD

WORD: as `addresses()` has it. Prints a line of JSON: {"results": what each call returned, by its words, "connections": how many this
machine's port 22 took, "writes": how many calls were made to the API that are to change something}.
"""

from __future__ import annotations

import json
import socket
import sys
import tempfile
import threading

from ansible_collections.lifeboat.rescue.plugins.module_utils._control import _entry
from lifeboat_lab import boxed
from lifeboat_lab.ovh_api import OvhApi, Server

NAME = "ns100001.ip-192-0-2.eu"
CALLS = [("rescue_mode_info", {}), ("rescue_mode", {"state": "present"}), ("rescue_mode", {"state": "absent"}), ("reboot", {})]


def listen(connections):
    """Take connections at port 22 of every address of this machine, and count them."""
    listener = socket.create_server(("::", 22), family=socket.AF_INET6, dualstack_ipv6=True)

    def take():
        while True:
            connections.append(listener.accept())

    threading.Thread(target=take, daemon=True).start()


def main(word):
    """Make the calls."""
    boxed.network()
    connections = []
    listen(connections)
    told = {"none": None, "own": boxed.INSIDE}.get(word, word)
    api = OvhApi([Server(NAME, ip=told, serverId=1)], address=boxed.INSIDE)
    api.credential.rules += [("GET", "/dedicated/server")]
    common = {"provider": "ovh_dedicated", "server": NAME, "ovh_endpoint": api.url, "connect_timeout": 1.0, "wait_timeout": 5.0,
              "boot_timeout": 2.0, "soft_timeout": 2.0, "installed_user": "root",
              **{f"ovh_{name}": value for name, value in api.credential.client_arguments().items()}}
    results = {}
    with api, tempfile.TemporaryDirectory() as sessions:
        for module, more in CALLS:
            defaults = {name: option.get("default") for name, option in _entry.SPECS[module].items()}
            params = {**defaults, **common, "session_dir": sessions, **more}
            results[" ".join([module, *more.values()])] = _entry.run(module, params, False, str)
        print(json.dumps({"results": results, "connections": len(connections), "writes": len(api.writes())}))


if __name__ == "__main__":
    main(sys.argv[1])
