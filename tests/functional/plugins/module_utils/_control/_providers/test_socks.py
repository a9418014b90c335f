# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The APIs through a SOCKS proxy, OpenSSH's own (ssh -D), which the environment names."""

from __future__ import annotations

import socket
import subprocess

import pytest

from ansible_collections.lifeboat.rescue.plugins.module_utils._control._providers._registry import make_provider
from ansible_collections.lifeboat.rescue.plugins.module_utils._errors import ProviderError
from lifeboat_lab.ovh_api import OvhApi, Server, Vps
from lifeboat_lab.simulated import SimulatedClock, SimulatedClockwork
from lifeboat_lab.softlayer_api import Server as SoftLayerServer
from lifeboat_lab.softlayer_api import SoftLayerApi
from lifeboat_lab.waiting import until

pytest_plugins = "lifeboat_lab.nova.fixtures"

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")


@pytest.fixture
def proxy(bastion, monkeypatch):
    """The process; while it runs, the environment's proxy is there."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        place = free.getsockname()

    def listens():
        with socket.socket() as sock:
            return sock.connect_ex(place) == 0

    with subprocess.Popen(["ssh", "-F", str(bastion.config), "-o", "BatchMode=yes", "-o", "ExitOnForwardFailure=yes", "-N",
                           "-D", "{}:{}".format(*place), "bastion"], stdin=subprocess.DEVNULL) as process:
        try:
            until(listens, 30, "The proxy does not listen.", every=0.05)
            with monkeypatch.context() as patch:
                for name in ("NO_PROXY", "no_proxy", "http_proxy", "ALL_PROXY", "all_proxy"):
                    patch.delenv(name, raising=False)
                patch.setenv("HTTP_PROXY", "socks5h://{}:{}".format(*place))
                yield process
        finally:
            process.terminate()


def check(proxy, params, name, address):
    """A server is read through the proxy; without it, that fails."""
    assert make_provider(params).read_server(name).address == address
    proxy.terminate()
    proxy.wait(timeout=30)
    with pytest.raises(ProviderError):
        make_provider(params, SimulatedClock(SimulatedClockwork())).read_server(name)


@pytest.mark.parametrize(("provider", "made"), [
    ("ovh_dedicated", Server("ns100001.ip-192-0-2.eu", ip="192.0.2.1")), ("ovh_vps", Vps("vps-00000001.vps.ovh.net", ip="192.0.2.1"))])
def test_ovh(proxy, nobody, provider, made):
    with OvhApi([made]) as api:
        keys = {f"ovh_{name}": value for name, value in api.credential.client_arguments().items()}
        check(proxy, {"provider": provider, "ovh_endpoint": api.url, **keys}, made.name, "192.0.2.1")


@pytest.mark.parametrize("transport", ["url", "rest_url"])
def test_softlayer(proxy, nobody, transport):
    with SoftLayerApi([SoftLayerServer(1001, "vs", "web1", primaryIpAddress="192.0.2.1")]) as api:
        keys = {f"softlayer_{name}": value for name, value in api.credential.client_arguments().items()}
        check(proxy, {"provider": "softlayer", "softlayer_endpoint_url": getattr(api, transport), **keys}, "vs:1001", "192.0.2.1")


def test_openstack(nobody, nova, make_server, proxy):
    make_server("web1", address="127.0.0.9")
    cloud = nova.cloud("member")
    check(proxy, {"provider": "openstack", "openstack_auth": cloud["auth"], "openstack_region_name": cloud["region_name"]}, "web1",
          "127.0.0.9")
