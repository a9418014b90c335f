# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every provider by name. Private to this collection.

AnsiballZ ships only what is imported statically, so each provider file is imported here by name; it imports its SDK
only when it is made.
"""

from __future__ import annotations

import typing as t

from ..._errors import BadInput
from ..._wait import CLOCK, Clock
from ._base import Provider
from ._openstack._provider import OpenStack
from ._ovh._dedicated import OvhDedicated
from ._ovh._vps import OvhVps
from ._softlayer._provider import SoftLayerProvider

PROVIDERS: dict[str, t.Callable[[t.Mapping[str, t.Any]], Provider]] = {
    "openstack": OpenStack,
    "ovh_dedicated": OvhDedicated,
    "ovh_vps": OvhVps,
    "softlayer": SoftLayerProvider,
}


def provider_name(params: t.Mapping[str, t.Any]) -> str:
    """The name of the provider that the options of a module name, without making it."""
    name = params.get("provider")
    if not name:
        raise BadInput("No provider is given.",
                       todo="Set the host's variable lifeboat_provider, or the option provider, "
                            f"to one of: {', '.join(sorted(PROVIDERS))}.")
    return str(name)


def make_provider(params: t.Mapping[str, t.Any], clock: Clock = CLOCK) -> Provider:
    """The provider that the options of a module name, with the credentials among them."""
    provider = PROVIDERS[provider_name(params)](params)
    provider.clock = clock
    return provider
