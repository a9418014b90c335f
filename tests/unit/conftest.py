# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""For functions, parsers, tables and simulated clocks. What needs something real is in tests/functional."""

from __future__ import annotations

import sys

# What runs on the controller needs its Python; only the rescue side must make do with an old one.
if sys.version_info < (3, 11):
    collect_ignore_glob = ["dev/*", "plugins/action/*", "plugins/module_utils/_control/_session/*"]
