# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The OVH API for dedicated servers and VPS, on loopback.

It speaks the wire format that the `ovh` client speaks: signed requests, `null` for void, tasks that take time, secrets
and mails. What the real API is known to answer comes from its public schemas and from answers that people recorded; an
answer that nobody recorded says "modelled" in a comment here, and a client must not lean on its text.

    server = Server("ns100001.ip-192-0-2.eu", ip="127.0.0.50", power=machine)
    with OvhApi([server]) as api:
        ovh.client.ENDPOINTS["lab"] = api.url
        client = ovh.Client("lab", **api.credential.client_arguments())

The machine behind a server is an object with `reset()` (see Power). Whenever it boots, for a reset or for a reboot from
inside, it calls `server.next_boot()` once and comes up in what that says.
"""

from __future__ import annotations

from .account import Call, Credential, Mail, MailOptions, NextBoot, Power, Secret
from .api import MINIMUM_RULES, OvhApi
from .dedicated import BOOT_TYPES, SERVER_STATES, TASK_STATUSES, BootEntry, Server, Task, boot_entries
from .faults import Fault, Faults
from .vps import VPS_TASK_STATES, VPS_TASK_TYPES, Vps, VpsPower, VpsTask

__all__ = [
    "BOOT_TYPES", "MINIMUM_RULES", "SERVER_STATES", "TASK_STATUSES", "VPS_TASK_STATES", "VPS_TASK_TYPES", "BootEntry", "Call",
    "Credential", "Fault", "Faults", "Mail", "MailOptions", "NextBoot", "OvhApi", "Power", "Secret", "Server", "Task", "Vps",
    "VpsPower", "VpsTask", "boot_entries",
]
