#!/usr/bin/python
# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: reset_root_password
short_description: Let a user of a mounted system log in again
version_added: 0.1.0
author:
  - The lifeboat.rescue contributors (@lifeboat-rescue)
description:
  - Sets, locks or unlocks the password of a user in the installed system that is mounted in the rescue system, and
    puts SSH keys into place.
  - It works on the files of that system, so that a broken system can be repaired. A plain password is hashed by the
    method that the installed system itself uses (C(pam_unix), else C(ENCRYPT_METHOD) of C(/etc/login.defs)).
  - C(/etc/shadow) is changed in that one line only. It keeps its owner, mode, extended attributes and SELinux label,
    and a backup under the same protection is left beside it. It is read again and put back if it does not prove
    right.
  - Warns of what in the installed system would still keep the user out, such as C(PermitRootLogin) of its SSH server.
extends_documentation_fragment:
  - lifeboat.rescue.attributes
attributes:
  diff_mode:
    details:
      - Shows no password and no hash.
  idempotent:
    description: When run twice in a row with the same arguments, the second run changes nothing and says so.
    support: full
    details:
      - A plain password is compared with the hash that is there.
options:
  root:
    description:
      - Where the installed system is mounted.
      - V(/) is the system that runs, which is of use in check mode, to ask whether anything would be changed.
    type: path
    default: /mnt/target
  user:
    description: Name of the user. It must be in C(/etc/passwd) there.
    type: str
    default: root
  password:
    description: The new password in plain text.
    type: str
  password_hash:
    description:
      - The hash of the new password, as in C(/etc/shadow).
      - A kind of hash that the installed system does not know is refused.
    type: str
  locked:
    description:
      - Whether log-in by password is locked. SSH keys are not affected.
      - The default is to unlock it with a new password, and to leave it as it is without one.
      - V(true) goes with neither O(password) nor O(password_hash).
    type: bool
  clear_expiry:
    description:
      - Lift the expiry of the account, and the need to change the password at the next log-in.
      - Left as they are without it, with a warning.
    type: bool
    default: false
  authorized_keys:
    description:
      - Public SSH keys that may log in, as the lines of C(.pub) files, options before them allowed.
      - They go where the SSH server of the installed system reads them, with the owner and modes that it wants.
    type: list
    elements: str
  exclusive:
    description: Remove all other SSH keys of the user. Without O(authorized_keys), all of them.
    type: bool
    default: false
seealso:
  - module: lifeboat.rescue.storage_mount
  - module: lifeboat.rescue.fix_firewall
"""

EXAMPLES = r"""
- name: Set root's password
  lifeboat.rescue.reset_root_password:
    password: "{{ vaulted_root_password }}"

- name: Let admin in by key, whatever else is wrong with the account
  lifeboat.rescue.reset_root_password:
    user: admin
    clear_expiry: true
    authorized_keys:
      - "{{ lookup('ansible.builtin.file', '~/.ssh/id_ed25519.pub') }}"

- name: Lock an account that was broken into, with all its keys
  lifeboat.rescue.reset_root_password:
    user: deploy
    locked: true
    exclusive: true
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
      sample: password.other
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
      sample: password set (yescrypt)
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
from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue._repairs._reset_root_password import Options, ResetRootPassword


def main():
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "default": "/mnt/target"},
            "user": {"type": "str", "default": "root"},
            "password": {"type": "str", "no_log": True},
            "password_hash": {"type": "str", "no_log": True},
            "locked": {"type": "bool"},
            "clear_expiry": {"type": "bool", "default": False},
            "authorized_keys": {"type": "list", "elements": "str", "no_log": False},
            "exclusive": {"type": "bool", "default": False},
        },
        mutually_exclusive=[("password", "password_hash")],
        supports_check_mode=True,
    )
    options = dict(module.params)
    root = options.pop("root")
    _entry.answer(module, lambda: run(ResetRootPassword(Runner(), root, Options(**options)), module.check_mode))


if __name__ == "__main__":
    main()
