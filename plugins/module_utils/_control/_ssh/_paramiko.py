# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""paramiko, where it is installed. Private to this collection.

It is imported inside functions, and only when it is used: a controller that never logs in does without.
"""

from __future__ import annotations

import logging
import typing as t

from ..._errors import MissingLibrary

_QUIET = logging.NullHandler()


def load_paramiko() -> t.Any:
    """Import paramiko. Raises MissingLibrary."""
    try:
        import paramiko
    except ImportError as exc:
        raise MissingLibrary("paramiko") from exc
    # Its threads tell of connections that break off, with tracebacks on stderr where nobody has set up logging.
    logging.getLogger("paramiko").addHandler(_QUIET)
    return paramiko
