# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An account at each provider: its API on loopback, its servers with a machine behind each, and how a user comes to it."""

from __future__ import annotations

import abc
import dataclasses
import typing as t
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from .box import Box
from .machine import Machine
from .nova import Nova
from .nova.cloud import Cloud, Event
from .ovh_api import OvhApi, Server, Vps
from .softlayer_api import POWER_METHODS, RESCUE_METHODS, SoftLayerApi
from .softlayer_api import Server as SoftLayerServer

# What stands in for a server itself.
StandIn: t.TypeAlias = Machine | Box


class NextBoot(t.Protocol):
    """What an API has a machine boot; see the one of each API."""

    @property
    def kind(self) -> str:
        """`installed`, `rescue`, or something that answers nobody."""

    @property
    def password(self) -> str | None:
        """Root's, in the rescue system."""


class Booting(t.Protocol):
    """A server of any provider, as its machine sees it."""

    def next_boot(self) -> NextBoot:
        """To be called once for each boot."""


class Account(abc.ABC):
    """See the module. Enter it to have it served."""

    provider: t.ClassVar[str]
    # Whether the rescue system's disk comes before the server's own, as some providers have it.
    rescue_first: t.ClassVar[bool] = False

    @abc.abstractmethod
    def add(self, number: int, name: str, machine: StandIn) -> t.Any:
        """A server (see Booting), the number-th, with this machine behind it. name: that of the host in the inventory."""

    @abc.abstractmethod
    def server_name(self, server: t.Any) -> str:
        """What the host's variable `lifeboat_server` is."""

    @abc.abstractmethod
    def environment(self) -> dict[str, str]:
        """The credentials, as the provider's own tools take them from the environment."""

    def variables(self) -> dict[str, str]:
        """What besides the host's variables must say."""
        return {}

    @abc.abstractmethod
    def writes(self) -> t.Sequence[t.Any]:
        """The calls that were meant to change something."""

    @abc.abstractmethod
    def sensitive(self) -> set[str]:
        """Every secret that there is or was."""

    def __enter__(self) -> t.Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:  # noqa: B027
        """End it. Default: there is nothing to end."""


class Ovh(Account):
    """An account at OVH. One API serves all of its products."""

    def __init__(self, api: OvhApi):
        """api: served by somebody else."""
        self.api = api

    def server_name(self, server: t.Any) -> str:
        return str(server.name)

    def environment(self) -> dict[str, str]:
        return {"OVH_ENDPOINT": self.api.url,
                **{f"OVH_{name.upper()}": value for name, value in self.api.credential.client_arguments().items()}}

    def writes(self) -> t.Sequence[t.Any]:
        return self.api.writes()

    def sensitive(self) -> set[str]:
        return self.api.sensitive()


class OvhDedicated(Ovh):
    """Dedicated servers."""

    provider = "ovh_dedicated"

    def add(self, number: int, name: str, machine: StandIn) -> Server:
        return self.api.add(Server(f"ns10000{number}.ip-192-0-2.eu", ip=machine.address, serverId=100000 + number, power=machine))


class OvhVps(Ovh):
    """VPS."""

    provider = "ovh_vps"
    rescue_first = True

    def add(self, number: int, name: str, machine: StandIn) -> Vps:
        return self.api.add(Vps(f"vps-0000000{number}.vps.ovh.net", ip=machine.address, power=machine))


class SoftLayer(Account):
    """Virtual guests at IBM SoftLayer."""

    provider = "softlayer"
    kind = "vs"

    def __init__(self, api: SoftLayerApi):
        """api: served by somebody else."""
        self.api = api

    def add(self, number: int, name: str, machine: StandIn) -> SoftLayerServer:
        return self.api.add(SoftLayerServer(1000 + number, self.kind, name, primaryIpAddress=machine.address, power=machine))

    def server_name(self, server: t.Any) -> str:
        return str(server.fqdn)

    def environment(self) -> dict[str, str]:
        return {"SL_USERNAME": self.api.credential.username, "SL_API_KEY": self.api.credential.api_key}

    def variables(self) -> dict[str, str]:
        # The SDK has no environment variable for it.
        return {"lifeboat_softlayer_endpoint_url": self.api.url}

    def writes(self) -> t.Sequence[t.Any]:
        return [call for call in self.api.log if call.method in (*RESCUE_METHODS.values(), *POWER_METHODS)]

    def sensitive(self) -> set[str]:
        return self.api.sensitive()


class SoftLayerHardware(SoftLayer):
    """Bare metal at IBM SoftLayer."""

    kind = "hw"


@dataclass
class NovaServer:
    """A server of the lab's Nova. boots: what its machine boots: `rescue` with a password of root, else None and the disk."""

    id: str
    name: str
    machine: StandIn
    password: str | None = field(default=None, repr=False)
    kind: str = "installed"

    def next_boot(self) -> NovaServer:
        """As long as Nova rescues it, also a reboot from inside comes up in the rescue system."""
        return dataclasses.replace(self)


class OpenStack(Account):
    """Servers of an OpenStack cloud: real Nova, whose hypervisor presses the buttons of the lab's machines."""

    provider = "openstack"

    def __init__(self, directory: Path, cloud: Cloud | None = None):
        """directory: for Nova's files. cloud: one that runs already and is to be used; by default a Nova of our own."""
        self._borrowed = cloud is not None
        self.nova = cloud or Nova(directory / "nova", self._press)
        self._power: t.Callable[[Event], None] | None = None
        self.servers: dict[str, NovaServer] = {}
        self._passwords: set[str] = set()

    def __enter__(self) -> t.Self:
        if self._borrowed:
            self._power, self.nova.power = self.nova.power, self._press
        else:
            self.nova.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        if not self._borrowed:
            self.nova.__exit__(kind, exc, traceback)
            return
        self.nova.power = self._power
        for server in self.servers:
            self.nova.delete_server(server)

    def add(self, number: int, name: str, machine: StandIn) -> NovaServer:
        server = NovaServer(self.nova.create_server(name, address=machine.address), name, machine)
        self.servers[server.id] = server
        return server

    def server_name(self, server: t.Any) -> str:
        return str(server.name)

    def environment(self) -> dict[str, str]:
        return {"OS_CLIENT_CONFIG_FILE": str(self.nova.clouds_yaml), "OS_CLOUD": "member"}

    def writes(self) -> t.Sequence[t.Any]:
        return [action for server in self.servers for action in self.nova.actions(server) if action != "create"]

    def sensitive(self) -> set[str]:
        return {*self._passwords, self.nova.password}

    def rescue(self, server: NovaServer) -> None:
        """Put a server into rescue as somebody would who knows nothing of this collection."""
        with self.nova.connection() as connection:
            connection.compute.rescue_server(server.id, "somebody's own", self.nova.rescue_image)
        self.nova.wait_for(server.id, "RESCUE")

    def _press(self, event: Event) -> None:
        server = self.servers.get(event["server"])
        if server is None:  # it is being made
            return
        what = event["event"]
        if what == "rescue":
            server.kind, server.password = "rescue", event["password"]
            self._passwords.add(event["password"])
        elif what == "unrescue":
            server.kind, server.password = "installed", None
        if what == "power_off":
            server.machine.power_off()
        elif what == "power_on":
            server.machine.power_on()
        else:
            server.machine.reset()


PROVIDERS = ("openstack", "ovh_dedicated", "ovh_vps", "softlayer", "softlayer_hardware")


def accounts(names: t.Iterable[str], ovh: OvhApi, softlayer: SoftLayerApi, directory: Path,
             cloud: Cloud | None = None) -> dict[str, Account]:
    """Those named, of PROVIDERS. directory: for what they write. cloud: see OpenStack."""
    makers: dict[str, t.Callable[[], Account]] = {
        "openstack": lambda: OpenStack(directory, cloud), "ovh_dedicated": lambda: OvhDedicated(ovh), "ovh_vps": lambda: OvhVps(ovh),
        "softlayer": lambda: SoftLayer(softlayer), "softlayer_hardware": lambda: SoftLayerHardware(softlayer),
    }
    return {name: makers[name]() for name in names}
