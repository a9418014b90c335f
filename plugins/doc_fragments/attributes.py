# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """Attributes that the modules share. Whoever differs says so in its own documentation."""

    DOCUMENTATION = r"""
attributes:
  check_mode:
    description: Can run in C(check_mode) and tell what would be changed, without changing anything.
    support: full
  diff_mode:
    description: Returns what was changed, or would be, in C(diff_mode).
    support: full
"""

    ACTION_GROUP = r"""
attributes:
  action_group:
    description: Use C(group/lifeboat.rescue.rescue) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - lifeboat.rescue.rescue
"""

    CONTROLLER = r"""
attributes:
  async:
    description: Supports being used with the C(async) keyword.
    support: partial
    details:
      - Only with C(delegate_to=localhost), and without progress.
  delegation:
    description: Can be used with C(delegate_to).
    support: full
"""
