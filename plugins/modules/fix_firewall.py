#!/usr/bin/python
# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: fix_firewall
short_description: Allow SSH through the firewall of a mounted system
version_added: 0.1.0
author:
  - The lifeboat.rescue contributors (@lifeboat-rescue)
description:
  - Finds out whether a firewall that the installed system starts at boot locks SSH out, and lets SSH in by the
    smallest addition to that firewall's own configuration. All else in it stays as it is.
  - Knows nftables, iptables (C(netfilter-persistent), C(iptables.service), C(ip6tables.service)), ufw and firewalld.
  - It does not guess from rules. The firewall is loaded by its own program into a network namespace that lives for a
    moment, and the kernel is asked whether a stranger from the Internet gets an SSH connection, before and after the
    change. The network of the system that runs is not touched.
  - The ports are those that the SSH server of the installed system listens on, as C(sshd -T) tells.
  - Every file keeps its owner, mode and extended attributes, and a backup is left beside it. If SSH is not let in
    afterwards, or the firewall's own checker finds fault, the files are put back and the module fails.
notes:
  - A rule that lets SSH in only from certain addresses counts as locking it out.
  - Where it lets SSH in only by certain interfaces, the one with the default route of the rescue system counts.
  - Programs and hooks of the installed system are run, as root, inside of it. Do not use this on a system that was
    broken into.
  - Needs a kernel with C(tun) and the kernel parts of the firewall in the rescue system, and C(ip).
extends_documentation_fragment:
  - lifeboat.rescue.attributes
attributes:
  check_mode:
    details:
      - Additions to nftables and iptables are tried out in check mode too, without writing anything.
  idempotent:
    description: When run twice in a row with the same arguments, the second run changes nothing and says so.
    support: full
options:
  root:
    description:
      - Where the installed system is mounted.
      - V(/) is the system that runs, which is of use in check mode, to ask whether anything would be changed.
    type: path
    default: /mnt/target
  mode:
    description:
      - V(allow) lets SSH in, where it is locked out.
      - V(disable) has no firewall start at boot. Links are renamed, not removed, so that renaming them back undoes
        it.
    type: str
    choices: [allow, disable]
    default: allow
seealso:
  - module: lifeboat.rescue.storage_mount
  - module: lifeboat.rescue.reset_root_password
"""

EXAMPLES = r"""
- name: Let SSH in again
  lifeboat.rescue.fix_firewall:

- name: Start no firewall at the next boot
  lifeboat.rescue.fix_firewall:
    mode: disable
"""

RETURN = r"""
needed:
  description: Whether something of what was asked for is not so, before any change. Null where that cannot be told.
  returned: success
  type: bool
findings:
  description: What is wrong, before any change.
  returned: success
  type: list
  elements: dict
  contains:
    code:
      description: What it is; it does not change from version to version.
      type: str
      sample: firewall.blocks_ssh
    severity:
      description: V(no_boot), V(no_login), V(degraded) or V(note).
      type: str
    sentence:
      description: The same for people.
      type: str
    evidence:
      description: What it was told from. Never a secret.
      type: dict
    certain:
      description: V(false) where it only may be so.
      type: bool
    fixable:
      description: Whether this repair, with the options that it was given, fixes it.
      type: bool
changes:
  description: What was done, or would be in check mode, in this order.
  returned: success
  type: list
  elements: dict
  contains:
    what:
      description: It, as a clause.
      type: str
      sample: SSH let in by /etc/nftables.conf
    path:
      description: What was changed, as a path in the installed system.
      type: str
    backup:
      description: The copy of the old content beside it. Null for what is new, and in check mode.
      type: str
proof:
  description: How it is known that it worked. Null where nothing was done.
  returned: success
  type: str
timings:
  description: Seconds that each part took, as C(check), C(plan) and C(apply).
  returned: success
  type: dict
failure:
  description:
    - What failed (C(code), C(message)), what state the server is in (C(state)), what to do next (C(todo)), and
      C(details).
  returned: failure
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue import _entry
from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue._command import Runner
from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue._repairs._base import run
from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue._repairs._fix_firewall import FixFirewall, Options


def main():
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "default": "/mnt/target"},
            "mode": {"type": "str", "choices": ["allow", "disable"], "default": "allow"},
        },
        supports_check_mode=True,
    )
    options = Options(mode=module.params["mode"])
    _entry.answer(module, lambda: run(FixFirewall(Runner(timeout=60), module.params["root"], options), module.check_mode))


if __name__ == "__main__":
    main()
