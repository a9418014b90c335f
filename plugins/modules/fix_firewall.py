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
ports:
  description: The ports that the SSH server of the installed system listens on.
  returned: success
  type: list
  elements: int
  sample: [22]
ports_source:
  description: Where the port numbers come from. One of C(sshd -T), C(ssh.socket), C(sshd_config), C(default).
  returned: success
  type: str
firewalls:
  description: The firewalls that are started at boot. Empty where there is none.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: One of V(nftables), V(iptables), V(ufw), V(firewalld).
      type: str
    units:
      description: The units that start it.
      type: list
      elements: str
    before:
      description: What it was found to do.
      type: str
      sample: "locks SSH out: dropped over IPv4 at port 22"
    after:
      description: What it does now, or would do in check mode.
      type: str
      sample: lets SSH in now
    verdicts:
      description: What the kernel did with a connection, before any change, for each family and port.
      type: dict
      sample: {"ipv4/22": "dropped", "ipv6/22": "accepted"}
    files:
      description: The files that were written, or would be, as C(path) and C(backup) in the installed system.
      type: list
      elements: dict
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
from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue._repairs import _fix_firewall


def main():
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "default": "/mnt/target"},
            "mode": {"type": "str", "choices": ["allow", "disable"], "default": "allow"},
        },
        supports_check_mode=True,
    )
    act = _fix_firewall.let_ssh_in if module.params["mode"] == "allow" else _fix_firewall.disable
    _entry.answer(module, lambda: act(Runner(timeout=60), module.params["root"], check_mode=module.check_mode))


if __name__ == "__main__":
    main()
