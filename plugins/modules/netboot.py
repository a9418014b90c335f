#!/usr/bin/python
# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: netboot
short_description: Set what a server boots next
version_added: 0.1.0
author:
  - The lifeboat.rescue contributors (@lifeboat-rescue)
description:
  - Sets the boot option of a server at its provider. It reboots nothing.
  - To boot the rescue system and log in, use M(lifeboat.rescue.rescue_mode) instead.
  - While a rescue session is open, leaving it restores what was set before that session, whatever is set here in between.
extends_documentation_fragment:
  - lifeboat.rescue.attributes
  - lifeboat.rescue.attributes.action_group
  - lifeboat.rescue.attributes.controller
  - lifeboat.rescue.controller
  - lifeboat.rescue.controller.ovh
  - lifeboat.rescue.controller.openstack
  - lifeboat.rescue.controller.softlayer
attributes:
  idempotent:
    description: When run twice in a row with the same arguments, the second run changes nothing and says so.
    support: full
options:
  boot:
    description:
      - V(harddisk), V(rescue) (the newest one for Linux), V(poweroff), the name of a boot option like V(rescue12-customer), or an id.
      - A boot option that powers the server off is taken only by the word V(poweroff).
    type: str
    required: true
seealso:
  - module: lifeboat.rescue.rescue_mode
  - module: lifeboat.rescue.reboot
"""

EXAMPLES = r"""
- name: Boot from disk from now on
  hosts: web1
  gather_facts: false
  tasks:
    - name: Set the boot option
      lifeboat.rescue.netboot:
        provider: ovh_dedicated
        server: ns100001.ip-192-0-2.eu
        boot: harddisk
"""

RETURN = r"""
provider:
  description: The provider.
  returned: success
  type: str
  sample: ovh_dedicated
server:
  description: The server's name at its provider.
  returned: success
  type: str
boot:
  description: The boot option that is set now, or would be.
  returned: success
  type: dict
  sample: {"id": "1", "kind": "harddisk", "name": "hd", "description": "Boot from hard drive (no netboot)"}
armed:
  description: Whether that is a rescue system.
  returned: success
  type: bool
session:
  description:
    - The rescue session that is open, with its C(id), C(phase), C(folder), C(started_at), and C(requested_at), when the reboot
      that is under way was requested (null where none is). Null where there is none.
  returned: success
  type: dict
failure:
  description: What failed (C(code), C(message)), what state the server is in (C(state)), what to do next (C(todo)), and C(details).
  returned: failure
  type: dict
"""

from ansible_collections.lifeboat.rescue.plugins.module_utils._control._entry import run_module


def main():
    run_module("netboot")


if __name__ == "__main__":
    main()
