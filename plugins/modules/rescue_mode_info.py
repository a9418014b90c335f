#!/usr/bin/python
# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rescue_mode_info
short_description: Tell whether a server runs its rescue system
version_added: 0.1.0
author:
  - The lifeboat.rescue contributors (@lifeboat-rescue)
description:
  - Tells what a server is set to boot next, which system answers now and by what evidence, and whether a session is open.
extends_documentation_fragment:
  - lifeboat.rescue.attributes.action_group
  - lifeboat.rescue.attributes.controller
  - lifeboat.rescue.controller
  - lifeboat.rescue.controller.installed
  - lifeboat.rescue.controller.key
  - lifeboat.rescue.controller.ovh
  - lifeboat.rescue.controller.openstack
  - lifeboat.rescue.controller.softlayer
options:
  scope:
    description:
      - V(server) looks at the server at hand.
      - V(account) looks at every server that the credentials see at this provider, several at a time, and returns RV(servers).
    type: str
    choices: [server, account]
    default: server
attributes:
  check_mode:
    description: Can run in C(check_mode).
    support: full
    details:
      - It changes nothing, so it does the same.
  diff_mode:
    description: Returns what was changed in C(diff_mode).
    support: N/A
    details:
      - It changes nothing.
  idempotent:
    description: When run twice in a row, the second run changes nothing.
    support: full
    details:
      - It changes nothing.
seealso:
  - module: lifeboat.rescue.rescue_mode
"""

EXAMPLES = r"""
# On the command line:  ansible web1 -m lifeboat.rescue.rescue_mode_info

- name: Look after a server
  hosts: web1
  gather_facts: false
  tasks:
    - name: See what runs
      lifeboat.rescue.rescue_mode_info:
        provider: ovh_dedicated
        server: ns100001.ip-192-0-2.eu
      register: seen

    - name: Fail when it is in rescue
      ansible.builtin.assert:
        that: seen.running != "rescue"

- name: Look at a whole account
  hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - name: See what runs
      lifeboat.rescue.rescue_mode_info:
        scope: account
        provider: ovh_dedicated
      register: account

    - name: Name those that boot a rescue system
      ansible.builtin.debug:
        msg: "{{ account.servers | selectattr('armed', 'true') | map(attribute='server') }}"
"""

RETURN = r"""
servers:
  description:
    - With O(scope=account), one entry for each server, with the values below as keys. One that cannot be read has C(error) instead.
  returned: success, with O(scope=account)
  type: list
  elements: dict
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
reached_at:
  description:
    - The name or address at which Ansible's own connection reaches the installed system, that of the inventory. RV(address) where that is
      a name alone that leads nowhere.
  returned: success, with O(scope=server) and without C(async)
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
  description: Whether what answers booted after the session's request. Null where there is none.
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
  description: Ids of the provider's tasks that the open session began.
  returned: success
  type: list
  elements: str
timings:
  description: Seconds that it took, as C(total).
  returned: success
  type: dict
session:
  description:
    - The session that is open, with its C(id), C(phase), C(folder), C(started_at), and C(requested_at), when the reboot
      that is under way was requested (null where none is). Null where there is none.
  returned: success
  type: dict
ready:
  description:
    - Whether all is there that M(lifeboat.rescue.rescue_mode) with O(lifeboat.rescue.rescue_mode#module:state=present) needs, as far as
      that can be told beforehand (keys, addresses, rights, libraries, the folder of sessions).
  returned: success, with O(scope=server)
  type: bool
not_ready:
  description: What is missing for that, a sentence each.
  returned: success, with O(scope=server)
  type: list
  elements: str
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
    run_module("rescue_mode_info")


if __name__ == "__main__":
    main()
