# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All servers of an account at once. Private to this collection."""

from __future__ import annotations

import threading
import typing as t
from concurrent.futures import ThreadPoolExecutor

from .._errors import LifeboatError
from .._providers._base import Provider
from ._session import Session

# So many servers are read and looked at at a time: no provider's limit is known to be near.
MOST_AT_ONCE = 8


def survey(make_provider: t.Callable[[], Provider], make_session: t.Callable[[Provider, str], Session]) -> list[dict[str, t.Any]]:
    """What Session.info() tells of each server that the credentials see, by name. Changes nothing.

    A server that cannot be read has `error`, a sentence, instead. The providers' clients are not made for threads, so each
    thread has a provider of its own.
    """
    first = make_provider()
    names = first.list_servers()
    mine = threading.local()

    def look(name: str) -> dict[str, t.Any]:
        if not hasattr(mine, "provider"):
            mine.provider = make_provider()
        try:
            return make_session(mine.provider, name).info()
        except LifeboatError as exc:
            return {"server": name, "provider": first.facts.name, "error": str(exc)}

    with ThreadPoolExecutor(min(MOST_AT_ONCE, max(1, len(names)))) as pool:
        return list(pool.map(look, names))
