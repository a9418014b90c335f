# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The exceptions of this collection. Private to it.

Code below the modules raises these and never sees AnsibleModule; the edge
(a module's main() or an action plugin's run()) turns them into a failed result.
"""

from __future__ import annotations

import sys


class LifeboatError(Exception):
    """Something failed, told so that a person at 3 a.m. knows where he stands.

    what: what failed, one sentence with a full stop.
    state: what state the server is in now, or None where nothing was changed.
    todo: what to do next, or None.
    details: JSON data for the result (`failure.details`); never a secret.
    """

    code = "error"

    def __init__(self, what, state=None, todo=None, details=None):
        super().__init__(what)
        self.what = what
        self.state = state
        self.todo = todo
        self.details = details or {}

    def __str__(self):
        return " ".join(part for part in (self.what, self.state, self.todo) if part)

    def as_result(self):
        """The keys of a failed result: msg (str) and failure (dict)."""
        return {
            "msg": str(self),
            "failure": {"code": self.code, "message": self.what, "state": self.state, "todo": self.todo,
                        "details": self.details},
        }


class BadInput(LifeboatError):
    """An option, a variable or a credential cannot be right. Nothing was changed."""

    code = "bad_input"


class MissingLibrary(LifeboatError):
    """A Python library is not installed where this runs. Nothing was changed.

    name: as pip knows it. needed_for: as a clause, where that is not the provider or SSH.
    """

    code = "missing_library"

    def __init__(self, name, needed_for=""):
        super().__init__(f"The Python library {name} is not installed for {sys.executable}, which runs this"
                         f"{' (it is needed for ' + needed_for + ')' if needed_for else ''}.",
                         todo=f"Install it there: {sys.executable} -m pip install {name}")


class ProviderError(LifeboatError):
    """The provider's API refused or failed."""

    code = "provider_error"


class NotFound(ProviderError):
    """The provider does not know the thing asked for."""

    code = "not_found"


class NotAllowed(ProviderError):
    """The credentials are not valid, or lack a right."""

    code = "not_allowed"


class Busy(LifeboatError):
    """Somebody else is at work on this server."""

    code = "busy"


class TimedOut(LifeboatError):
    """What was waited for did not come by its deadline."""

    code = "timed_out"


class WrongSystem(LifeboatError):
    """The server booted something else than what it was told to boot."""

    code = "wrong_system"


class LoginRefused(LifeboatError):
    """SSH answers, but lets us not in."""

    code = "login_refused"


class BrokeOff(LifeboatError):
    """A connection ended before what was wanted of it."""

    code = "broke_off"


class TargetError(LifeboatError):
    """The installed system cannot be found, mounted, changed or left."""

    code = "target_error"
