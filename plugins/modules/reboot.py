#!/usr/bin/python
# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: reboot
short_description: Reboot a server and verify that it booted
version_added: 0.1.0
author:
  - The lifeboat.rescue contributors (@lifeboat-rescue)
description:
  - Reboots a server into whatever is set to boot next, and waits until that is proved to have booted. By a new boot id or the uptime
    where we can log in, else by another host key than before when the provider's task has ended. What is not proved ends in a time-out.
extends_documentation_fragment:
  - lifeboat.rescue.attributes.action_group
  - lifeboat.rescue.attributes.controller
  - lifeboat.rescue.controller
  - lifeboat.rescue.controller.installed
  - lifeboat.rescue.controller.key
  - lifeboat.rescue.controller.reboot
  - lifeboat.rescue.controller.ovh
  - lifeboat.rescue.controller.openstack
  - lifeboat.rescue.controller.softlayer
attributes:
  check_mode:
    description: Can run in C(check_mode) and tell what would be changed, without changing anything.
    support: full
  diff_mode:
    description: Returns what was changed, or would be, in C(diff_mode).
    support: none
    details:
      - A reboot leaves no setting changed.
  idempotent:
    description: When run twice in a row with the same arguments, the second run changes nothing and says so.
    support: none
    details:
      - Each run reboots.
options:
  method:
    description:
      - V(soft) asks the running system by SSH, V(hard) the provider, V(auto) tries the first and falls back to the second.
      - Default is the host's variable C(lifeboat_reboot_method).
    type: str
    choices: [auto, soft, hard]
    default: auto
  force:
    description:
      - Reboot a rescue system although something of the installed system is mounted there. What is not written is lost.
    type: bool
    default: false
seealso:
  - module: lifeboat.rescue.rescue_mode
  - module: lifeboat.rescue.netboot
"""

EXAMPLES = r"""
# On the command line:  ansible web1 -m lifeboat.rescue.reboot -a method=hard

- name: Reboot a server that hangs
  hosts: web1
  gather_facts: false
  tasks:
    - name: Reboot
      lifeboat.rescue.reboot:
        provider: ovh_dedicated
        server: ns100001.ip-192-0-2.eu
        method: hard
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
address:
  description: Where it answers.
  returned: success
  type: str
armed:
  description: Whether the provider boots the rescue system next. Null where it does not tell.
  returned: success
  type: bool
running:
  description: Which system answers now, V(rescue), V(installed) or V(unknown), told from evidence.
  returned: success
  type: str
fresh:
  description: Whether what answers booted after our request. Null where it does not say.
  returned: success
  type: bool
evidence:
  description: What was seen and heard, as with M(lifeboat.rescue.rescue_mode).
  returned: success
  type: dict
boot:
  description: The boot option that is set. Null where the provider does not tell.
  returned: success
  type: dict
login:
  description: How to log in to the rescue system, as with M(lifeboat.rescue.rescue_mode).
  returned: success
  type: dict
tasks:
  description: Ids of the provider's tasks.
  returned: success
  type: list
  elements: str
timings:
  description: Seconds since the start after which each step was reached.
  returned: success
  type: dict
session:
  description: The rescue session that is open, if any.
  returned: success
  type: dict
found:
  description:
    - Where the server was put in rescue by somebody else, since when (C(since), UTC) and by whom (C(by)), each as far as it can be told.
      Null where it was not.
  returned: success
  type: dict
console_url:
  description: Always null here. Asking for it would be a write at some providers.
  returned: success
  type: str
failure:
  description: What failed (C(code), C(message)), what state the server is in (C(state)), what to do next (C(todo)), and C(details).
  returned: failure
  type: dict
"""

from ansible_collections.lifeboat.rescue.plugins.module_utils._control._entry import run_module


def main():
    run_module("reboot")


if __name__ == "__main__":
    main()
