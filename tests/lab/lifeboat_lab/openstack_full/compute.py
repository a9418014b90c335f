# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""nova-compute with the lab's hypervisor. Runs with the Python of OpenStack's virtual environment.

    python -m lifeboat_lab.openstack_full.compute POWER_URL --config-file /etc/nova-compute.conf

POWER_URL: who is told what the machines have to do; see lifeboat_lab.nova. `-`: nobody.
"""

from __future__ import annotations

import sys

# ruff: noqa: E402
# Before all else of Nova: it refuses to run with threads once something has imported eventlet.
from nova import monkey_patch  # isort: skip

monkey_patch.patch(backend="threading")

from nova.cmd import compute
from nova.virt import fake

from ..nova.driver import Driver, Lab


def main() -> None:
    """Run until a signal ends us."""
    url = sys.argv.pop(1)
    Lab.power_url = None if url == "-" else url
    # Nova looks for drivers in nova.virt only.
    fake.LabDriver = Driver
    compute.main()


if __name__ == "__main__":
    main()
