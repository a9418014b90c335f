# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Serves a program of OpenStack on loopback. Runs with the Python of OpenStack's virtual environment.

    python -m lifeboat_lab.openstack_full.serve nova.wsgi.osapi_compute 8774 --config-file /etc/nova.conf

What follows the port is for the program.
"""

from __future__ import annotations

import importlib
import sys

import waitress


def main() -> None:
    """Serve until a signal ends us."""
    module, port = sys.argv[1:3]
    del sys.argv[1:3]
    program = importlib.import_module(module).application
    # openstacksdk keeps its connections open.
    waitress.serve(program, host="127.0.0.1", port=int(port), threads=8, ident=None, connection_limit=1000,
                   asyncore_use_poll=True)


if __name__ == "__main__":
    main()
