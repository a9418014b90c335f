# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keeps in memory what Python has compiled of modules in zip files, as Ansible sends them; lab_code.pth has it imported.

Under emulation, to compile takes half of a module's time, and Python keeps the compiled code of directories alone.
"""

from __future__ import annotations

import _imp
import marshal
import os
import types
import zipimport

KEPT = "/run/lab-code"
KEY = 0x6C6162

_names = vars(zipimport)
_compile_source = _names["_compile_source"]


def _kept_or_compiled(pathname: str, source: bytes) -> types.CodeType:
    inside = pathname.rpartition(".zip")[2].replace("/", "-")
    name = f"{KEPT}/{_imp.source_hash(KEY, source).hex()}-{len(source)}{inside}"
    try:
        with open(name, "rb") as file:
            kept: types.CodeType = marshal.load(file)
            return kept
    except (OSError, EOFError, ValueError, TypeError):  # not there, or not yet whole
        pass
    code: types.CodeType = _compile_source(pathname, source)
    try:
        os.makedirs(KEPT, exist_ok=True)
        with open(f"{name}.{os.getpid()}", "wb") as new:
            marshal.dump(code, new)
        os.rename(new.name, name)
    except OSError:  # no room
        pass
    return code


_names["_compile_source"] = _kept_or_compiled
