# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the modules have in common that look at the server's disks."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  luks:
    description:
      - Keys for encrypted containers (LUKS). Each is tried on the containers that it is for.
      - A container that no key opens stays locked, and is reported as locked.
    type: list
    elements: dict
    default: []
    suboptions:
      device:
        description: The container that the key is for, by its UUID or its path. Without it the key is tried on all.
        type: str
      passphrase:
        description: The passphrase. It is handed over by standard input, and appears in no result.
        type: str
      key_file:
        description: A file in the rescue system that holds the key.
        type: path
      clevis:
        description: Whether C(clevis) is to find the key, where the rescue system has it.
        type: bool
        default: false
"""
