# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of the ssh connection plugin, as the installed ansible-core has them."""

from __future__ import annotations

import re

from ansible.plugins.connection import ssh

# The key "options" and all lines indented more than it.
OPTIONS = re.compile(r"^( *)options:\n(?:\1 .*\n|\s*\n)+", re.MULTILINE)

# They would read as versions of this collection.
VERSION = re.compile(r"^ *version_added:.*\n", re.MULTILINE)


class ModuleDocFragment:
    """Read at load time, so that no copy of another project's options grows stale here.

    Cut out as text, because each forked worker comes through here: to parse it and write it again costs 7 ms a task.
    """

    def __init__(self) -> None:
        # Not a class attribute: ansible-test reads those without running the code, and dies of a call in one.
        found = OPTIONS.search(ssh.DOCUMENTATION)
        if not found:
            raise ValueError("The ssh connection plugin of this ansible-core has no options where they were.")
        self.DOCUMENTATION = VERSION.sub("", found[0])
