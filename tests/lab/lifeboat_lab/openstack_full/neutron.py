# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What stands in for Neutron: as much as Nova asks of it, with addresses on loopback, where the lab's machines answer."""

from __future__ import annotations

import json
import threading
import typing as t
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

Json = dict[str, t.Any]

NETWORK = str(uuid.uuid5(uuid.NAMESPACE_DNS, "network.lifeboat.invalid"))
SUBNET = str(uuid.uuid5(uuid.NAMESPACE_DNS, "subnet.lifeboat.invalid"))


class Neutron:
    """One network, one subnet, and the ports that Nova makes. url: of its API, whose tokens it does not look at."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, Json]] = {
            "networks": {NETWORK: {
                "id": NETWORK, "name": "lab", "status": "ACTIVE", "admin_state_up": True, "shared": True, "tenant_id": "neutron",
                "router:external": False, "subnets": [SUBNET], "mtu": 1500, "port_security_enabled": False}},
            "subnets": {SUBNET: {
                "id": SUBNET, "name": "lab", "network_id": NETWORK, "tenant_id": "neutron", "ip_version": 4, "cidr": "127.0.0.0/8",
                "gateway_ip": "127.255.255.254", "dns_nameservers": [], "host_routes": [], "enable_dhcp": False,
                "allocation_pools": [{"start": "127.0.0.2", "end": "127.255.255.250"}]}},
            "security-groups": {"default": {"id": str(uuid.uuid4()), "name": "default", "description": "", "tenant_id": "neutron",
                                            "security_group_rules": []}},
            "extensions": {"binding": {"alias": "binding", "name": "Port Binding"}},
            "ports": {},
            "floatingips": {},
        }
        self._lock = threading.Lock()
        self._made = 0
        neutron = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(size)) if size else {}
                address = urlsplit(self.path)
                status, answer = neutron.answer(self.command, address.path, parse_qs(address.query), body)
                data = b"" if answer is None else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_DELETE = answer

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, path: str, query: t.Mapping[str, list[str]], body: Json) -> tuple[int, Json | None]:
        """Status and answer of one request."""
        words = path.strip("/").removesuffix(".json").split("/")
        if words in ([""], ["v2.0"]):
            return 200, {"versions": [{"id": "v2.0", "status": "CURRENT", "links": [{"rel": "self", "href": f"{self.url}/v2.0/"}]}]}
        with self._lock:
            kind, key = words[1], words[2] if len(words) > 2 else None
            if kind == "quotas":
                return 200, {"quota": {"port": -1, "network": -1, "floatingip": -1, "security_group": -1}}
            if kind in self.tables:
                return self._table(method, kind, key, query, body)
        return 404, {"NeutronError": {"type": "NotFound", "message": f"Nothing at {path}.", "detail": ""}}

    def _table(self, method: str, kind: str, key: str | None, query: t.Mapping[str, list[str]], body: Json) -> tuple[int, Json | None]:
        table, one = self.tables[kind], kind.replace("-", "_").removesuffix("s")
        if key is None and method == "GET":
            return 200, {kind.replace("-", "_"): [row for row in table.values() if self._fits(row, query)]}
        if method == "POST" and kind == "ports":
            row = self._new_port(body[one])
            table[row["id"]] = row
            return 201, {one: row}
        if key in table:
            if method == "PUT":
                table[key].update(body[one])
            if method == "DELETE":
                del table[key]
                return 204, None
            return 200, {one: table[key]}
        return 404, {"NeutronError": {"type": "NotFound", "message": f"No {one} {key}.", "detail": ""}}

    @staticmethod
    def _fits(row: Json, query: t.Mapping[str, list[str]]) -> bool:
        # Everybody may use all of it; what is asked for by name or id is all that is looked at.
        asked = {name: wanted for name, wanted in query.items() if name in row and name not in ("tenant_id", "project_id", "fields")}
        return all(str(row[name]).lower() in [text.lower() for text in wanted] for name, wanted in asked.items())

    def _new_port(self, given: Json) -> Json:
        self._made += 1
        number = self._made
        wanted = [address["ip_address"] for address in given.get("fixed_ips") or [] if address.get("ip_address")]
        fixed = [{"subnet_id": SUBNET, "ip_address": address}
                 for address in wanted or [f"127.77.{number // 250 % 250}.{number % 250 + 1}"]]
        return {"name": "", "status": "ACTIVE", "admin_state_up": True, "device_id": "", "device_owner": "", "security_groups": [],
                "mac_address": f"fa:16:3e:00:{number // 256 % 256:02x}:{number % 256:02x}", "binding:vif_type": "ovs",
                "binding:vif_details": {}, "binding:vnic_type": "normal", "binding:profile": {}, "allowed_address_pairs": [],
                "resource_request": None, **given, "id": str(uuid.uuid4()), "fixed_ips": fixed}
