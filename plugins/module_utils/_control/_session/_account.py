# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All servers of an account at once. Private to this collection."""

from __future__ import annotations

import threading
import typing as t
from concurrent.futures import Future, ThreadPoolExecutor

from ..._errors import LifeboatError
from .._providers._base import BootOption, Provider, Server
from ._evidence import Observation
from ._session import Session

# So many calls to the provider are under way at a time: no provider's limit is known to be near.
MOST_CALLS = 10
# So many servers are looked at by SSH at a time, which is mostly waiting; each takes up to four of the process's open files.
MOST_LOOKS = 64

Result = t.Dict[str, t.Any]
Asked = t.Tuple[Server, "BootOption | None"]


def survey(make_provider: t.Callable[[], Provider], make_session: t.Callable[[Provider, str], Session]) -> list[Result]:
    """What Session.info() tells of each server that the credentials see, by name. Changes nothing.

    A server that cannot be read has `error`, a sentence, instead. The providers' clients are not made for threads, so each
    thread that calls has a provider of its own; and none of these waits for a server, for some answer late or not at all.
    """
    first = make_provider()
    servers = first.read_servers()
    mine = threading.local()

    def session(name: str) -> Session:
        if not hasattr(mine, "provider"):
            mine.provider = make_provider()
        return make_session(mine.provider, name)

    def ask(name: str) -> Asked | LifeboatError:
        try:
            return session(name).read_provider(servers[name])
        except LifeboatError as exc:
            return exc

    def observe(name: str, asking: Future[Asked | LifeboatError]) -> tuple[Server, BootOption | None, Observation] | LifeboatError:
        asked = asking.result()
        if isinstance(asked, LifeboatError):
            return asked
        try:
            return (*asked, make_session(first, name).observe(asked[0]))
        except LifeboatError as exc:
            return exc

    def tell(name: str, looking: Future[tuple[Server, BootOption | None, Observation] | LifeboatError]) -> Result:
        seen = looking.result()
        try:
            if isinstance(seen, LifeboatError):
                raise seen
            return session(name).build_result(*seen)
        except LifeboatError as exc:
            return {"server": name, "provider": first.facts.name, "error": str(exc)}

    if not servers:
        return []
    with ThreadPoolExecutor(min(MOST_CALLS, len(servers))) as calls, ThreadPoolExecutor(min(MOST_LOOKS, len(servers))) as looks:
        # A pool takes its jobs in the order in which they came, so what one of them waits for is under way or done.
        asking = {name: calls.submit(ask, name) for name in servers}
        looking = {name: looks.submit(observe, name, asking[name]) for name in servers}
        return list(calls.map(tell, servers, looking.values()))
