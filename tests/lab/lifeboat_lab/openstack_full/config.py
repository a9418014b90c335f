# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The settings of OpenStack's services: what they cannot do without, and what makes them small and quick."""

from __future__ import annotations

import base64
import dataclasses
import os
from pathlib import Path
from urllib.parse import quote

# How each service is told where its settings are. keystone's, placement's and glance's web programs read no arguments.
BY_DIRECTORY = {"keystone": "OS_KEYSTONE_CONFIG_DIR", "placement": "OS_PLACEMENT_CONFIG_DIR", "glance": "OS_GLANCE_CONFIG_DIR",
                "nova": "OS_NOVA_CONFIG_DIR"}
FILES = {"keystone": "keystone.conf", "placement": "placement.conf", "glance": "glance-api.conf", "nova": "nova.conf",
         "cinder": "cinder.conf", "nova-compute": "nova-compute.conf"}
# The volume driver of cinder that only writes down what it is asked.
VOLUMES = "cinder.tests.fake_driver.FakeLoggingVolumeDriver"

Sections = dict[str, dict[str, object]]


@dataclasses.dataclass
class Settings:
    """Of one cloud.

    directory: for everything. ports: of the services, by name. password: of all users, `service` being the services' own.
    """

    directory: Path
    venv: Path
    ports: dict[str, int]
    database_socket: Path
    neutron_url: str
    transport_url: str = dataclasses.field(repr=False)
    password: str = dataclasses.field(repr=False)

    def url(self, service: str) -> str:
        """Of the service's API."""
        return f"http://127.0.0.1:{self.ports[service]}"

    def catalog(self) -> dict[str, tuple[str, str]]:
        """Name and URL by type."""
        return {"identity": ("keystone", self.url("keystone")), "image": ("glance", self.url("glance")),
                "placement": ("placement", self.url("placement")), "compute": ("nova", f"{self.url('nova')}/v2.1"),
                "block-storage": ("cinder", f"{self.url('cinder')}/v3"), "network": ("neutron", self.neutron_url)}

    def file(self, service: str) -> Path:
        """Its settings."""
        return self.directory / "etc" / service / FILES[service]

    def variables(self) -> dict[str, str]:
        """For the environment of all."""
        return {variable: str(self.file(service).parent) for service, variable in BY_DIRECTORY.items()} | {
            "OS_NOVA_CONFIG_FILES": f"{self.venv}/etc/nova/api-paste.ini;{FILES['nova']}"}

    def arguments(self, service: str) -> list[str]:
        """For the command line of a service's program."""
        return [] if service in ("keystone", "placement", "glance") else ["--config-file", str(self.file(service))]

    def manage(self, service: str, *words: str) -> list[str]:
        """A command line of the service's program for operators."""
        return [f"{service}-manage", "--config-file", str(self.file(service)), *words]

    def database(self, name: str) -> dict[str, object]:
        """The section for a database."""
        return {"connection": f"mysql+pymysql://root@localhost/{name}?unix_socket={quote(str(self.database_socket), safe='/')}",
                "max_pool_size": 5, "max_overflow": 20}

    def user(self, **more: object) -> dict[str, object]:
        """The section of a client that asks keystone for a token."""
        return {"auth_type": "password", "auth_url": f"{self.url('keystone')}/v3", "username": "service", "password": self.password,
                "project_name": "service", "user_domain_id": "default", "project_domain_id": "default", "region_name": "lab", **more}

    def tokens(self) -> dict[str, object]:
        """The section of a service that looks at tokens."""
        return self.user(www_authenticate_uri=self.url("keystone"), service_token_roles="service,admin",
                         service_token_roles_required=True)


def write(settings: Settings) -> None:
    """Write all of them. The directory must be closed to others."""
    state = settings.directory / "state"
    for name in ("fernet", "credential", "images", "instances", "locks", "volumes"):
        (state / name).mkdir(parents=True, mode=0o700)
    for name in ("fernet", "credential"):
        # As keystone-manage fernet_setup and credential_setup make them, each in seconds.
        for number in ("0", "1"):
            (state / name / number).write_bytes(base64.urlsafe_b64encode(os.urandom(32)))
    client = settings.user()
    common: Sections = {
        "oslo_concurrency": {"lock_path": state / "locks"},
        # As clouds have it; with the old rules a reader may do everything.
        "oslo_policy": {"enforce_new_defaults": True, "enforce_scope": True},
        "keystone_authtoken": settings.tokens(),
    }
    messages: dict[str, object] = {"transport_url": settings.transport_url, "rpc_response_timeout": 120, "debug": False}
    own: dict[str, Sections] = {
        "keystone": {
            "database": settings.database("keystone"),
            "token": {"provider": "fernet"},
            "fernet_tokens": {"key_repository": state / "fernet"},
            "fernet_receipts": {"key_repository": state / "fernet"},
            "credential": {"key_repository": state / "credential"},
            # The least that bcrypt takes.
            "identity": {"password_hash_rounds": 4},
            # It is one process, so its own memory will do.
            "cache": {"enabled": True, "backend": "dogpile.cache.memory"},
        },
        "placement": {"placement_database": settings.database("placement"), "api": {"auth_strategy": "keystone"}, **common},
        "glance": {
            "DEFAULT": {"enabled_backends": "file:file", "worker_self_reference_url": settings.url("glance")},
            "database": settings.database("glance"),
            "glance_store": {"default_backend": "file"},
            "file": {"filesystem_store_datadir": state / "images"},
            "os_glance_staging_store": {"filesystem_store_datadir": state / "staging"},
            "os_glance_tasks_store": {"filesystem_store_datadir": state / "tasks"},
            "paste_deploy": {"flavor": "keystone", "config_file": settings.venv / "etc/glance/glance-api-paste.ini"},
            **common,
        },
        "nova": {
            "DEFAULT": {
                **messages, "host": "compute", "my_ip": "127.0.0.1", "compute_driver": "fake.LabDriver", "state_path": state,
                "instances_path": state / "instances", "periodic_fuzzy_delay": 0, "vif_plugging_is_fatal": False,
                "vif_plugging_timeout": 0, "osapi_compute_workers": 1, "service_down_time": 600,
            },
            "api_database": settings.database("nova_api"),
            "database": settings.database("nova"),
            "wsgi": {"api_paste_config": settings.venv / "etc/nova/api-paste.ini"},
            "conductor": {"workers": 1},
            "scheduler": {"workers": 1, "discover_hosts_in_cells_interval": 1},
            "placement": client,
            "glance": client,
            "neutron": client,
            "cinder": {**client, "catalog_info": "block-storage::publicURL", "os_region_name": "lab"},
            "keystone": client,
            # Without it cinder lets nobody take a volume from a server.
            "service_user": {**client, "send_service_user_token": True},
            "vnc": {"enabled": True, "novncproxy_base_url": "http://127.0.0.1:6080/vnc_auto.html"},
            **common,
        },
        "cinder": {
            "DEFAULT": {**messages, "host": "volumes", "my_ip": "127.0.0.1", "state_path": state / "volumes",
                        "enabled_backends": "lab", "auth_strategy": "keystone", "service_down_time": 600,
                        "api_paste_config": settings.venv / "etc/cinder/api-paste.ini", "periodic_fuzzy_delay": 0,
                        "resource_query_filters_file": settings.venv / "etc/cinder/resource_filters.json",
                        "glance_api_servers": settings.url("glance")},
            "database": settings.database("cinder"),
            "lab": {"volume_driver": VOLUMES, "volume_backend_name": "lab"},
            "service_user": {**client, "send_service_user_token": True},
            "coordination": {"backend_url": f"file://{state / 'locks'}"},
            **common,
        },
    }
    # What the hypervisors' hosts know in a cloud: no database.
    own["nova-compute"] = {name: values for name, values in own["nova"].items() if "database" not in name}
    for service, sections in own.items():
        file = settings.file(service)
        file.parent.mkdir(parents=True)
        text = "".join(f"[{section}]\n" + "".join(f"{name} = {value}\n" for name, value in values.items()) + "\n"
                       for section, values in sections.items())
        file.touch(0o600)
        # oslo.config takes a $ for the name of another setting.
        file.write_text(text.replace("$", "$$"), encoding="utf-8")
