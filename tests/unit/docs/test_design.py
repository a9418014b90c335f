# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The page of the design names what there is."""

from __future__ import annotations

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[3]


def test_each_row_of_the_table_of_evidence_names_its_tests():
    below = (ROOT / "docs/design.md").read_text().split("| fact | proved by |", 1)[1].split("\n\n", 1)[0]
    rows = below.splitlines()[2:]
    there = {name for path in ROOT.glob("tests/**/test_*.py") for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)}
    cells = set(re.findall(r'"(S\d+): ', (ROOT / "tests/session/test_unkind.py").read_text()))
    assert len(rows) > 5
    for row in rows:
        *_others, named = row.strip("| ").split(" | ")
        words = named.replace("`", "").split(", ")
        assert words and all(word in there | cells for word in words), row
