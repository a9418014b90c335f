# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real Nova for the lab, in a process and a virtual environment of its own.

    with Nova(Path("/tmp/nova")) as nova:
        os.environ["OS_CLIENT_CONFIG_FILE"] = str(nova.clouds_yaml)
        server = nova.create_server("web1")
        openstack.connect(cloud="member").compute.rescue_server(server, "secret", nova.rescue_image)

clouds.yaml has the clouds `member`, `reader` and `admin` of one project and `other` of another. Where machines are to
follow what Nova says, `power` is called with each event before Nova takes it for done:

    {"event": "rescue", "server": id, "name": ..., "image": id, "password": ...}
    {"event": "reboot", "server": id, "name": ..., "type": "SOFT" or "HARD"}
    {"event": "unrescue" | "power_off" | "power_on", "server": id, "name": ...}

Nova powers a server off before it rescues it, and says on once more within a reboot, so `power` must take both calmly. An
exception in it is a fault of the hypervisor.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import typing as t
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import requests

from ..images import LabError
from ..unkind import Unkind
from ..venvs import ensure_venv
from .cloud import Cloud, Event

__all__ = ["Event", "Nova", "ensure_nova_venv"]

LAB = Path(__file__).parents[2]
REQUIREMENTS = LAB / "requirements-nova.txt"
# Of Nova's own test fixtures: the only network, and a volume that has an image.
NETWORK = "3cb9bc59-5699-4588-a4b1-b87f96708bc6"
VOLUME = "6ca404f3-d844-4169-bb96-bc792f37de98"


def ensure_nova_venv(say: Callable[[str], None] = print) -> Path:
    """The virtual environment with Nova; see ensure_venv()."""
    return ensure_venv("nova", REQUIREMENTS, say, _put_paste_files)


def _put_paste_files(venv: Path) -> None:
    """Nova's fixtures look for them here; the wheel has them elsewhere."""
    packages = next((venv / "lib").glob("python3*/site-packages"))
    (packages / "etc").mkdir(exist_ok=True)
    shutil.copytree(venv / "etc/nova", packages / "etc/nova", dirs_exist_ok=True)


class Nova(Cloud):
    """Nova as a context manager; see Cloud."""

    def __init__(self, directory: Path, power: Callable[[Event], None] | None = None):
        super().__init__(directory, power)
        self.log = directory / "nova.log"
        self.url = ""
        self._process: subprocess.Popen[str] | None = None

    def _start(self) -> None:
        venv = ensure_nova_venv(lambda line: print(line, file=sys.stderr, flush=True))
        given = {"power_url": self._listen() if self.power else None}
        # Nothing of the caller's own cloud must reach it.
        env = {name: value for name, value in os.environ.items() if not name.startswith(("OS_", "PYTHON")) and "proxy" not in name.lower()}
        with open(self.log, "w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [venv / "bin/python", "-m", "lifeboat_lab.nova.service", json.dumps(given)], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=log, text=True, cwd=self.directory,
                start_new_session=True,  # Ctrl-C is for us; we end it
                env={**env, "PYTHONPATH": str(LAB), "PYTHONDONTWRITEBYTECODE": "1"})
        lines: queue.Queue[str] = queue.Queue()
        stdout = self._process.stdout
        assert stdout is not None

        def read() -> None:
            # To the end, or the process would wait for us one day.
            for line in itertools.chain(stdout, [""]):
                lines.put(line)

        threading.Thread(target=read, daemon=True).start()
        try:
            line = lines.get(timeout=120)
        except queue.Empty:
            line = ""
        if not line:
            raise LabError(f"Nova does not start; its last words in {self.log}:\n{self.log.read_text(encoding='utf-8')[-3000:]}")
        self.url = json.loads(line)["url"]
        self.auth_url = f"{self.url}/identity"

    def _stop(self) -> None:
        """End the process."""
        if self._process is not None:
            process, self._process = self._process, None
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=20)
            if process.stdout is not None:
                process.stdout.close()

    # -- what the lab can do that no user can

    def control(self, **settings: t.Any) -> dict[str, t.Any]:
        """Change settings of the service, and ask what came; see Front._control() there."""
        answer = requests.post(f"{self.url}/lab", json=settings, timeout=30)
        answer.raise_for_status()
        return t.cast(dict[str, t.Any], answer.json())

    def reset(self) -> None:
        self.control(rescue_seconds=0, page=1000, faults=[])

    def put_image(self, name: str, *, id: str | None = None, **fields: t.Any) -> str:
        image_id = id or str(uuid.uuid4())
        self.control(image={"id": image_id, "name": name, **fields})
        return image_id

    def images(self) -> list[str]:
        return t.cast(list[str], self.control()["images"])

    def remove_image(self, image_id: str) -> None:
        self.control(no_image=image_id)

    def lose(self, match: str, times: int = 1, after: bool = True, status: int = 502) -> None:
        """Break the next requests to Nova that contain `match` in their line or body. after: Nova does them nevertheless."""
        self.control(faults=[{"match": match, "after": after, "status": status}] * times)

    def meet(self, requests: int = 2) -> None:
        """Let so many of the next rescues with an image of choice find the server as it was before any of them."""
        self.control(together=requests)

    def be_unkind(self, server_id: str, unkind: Unkind) -> None:
        """Treat a server so from now on; Unkind() is kind again.

        What waits or is done early is the hypervisor's work. What lags is what Nova shows of a server after it was asked to change
        it (setting_lag), and the list of what it was asked (list_lag). Nova needs no help for a conflict, and its ids are text.
        """
        self.control(unkind={server_id: dataclasses.asdict(unkind)})

    def end_rescues(self, seconds: int) -> None:
        """Let Nova end the rescues that are older, as it does by itself where nova.conf has that for rescue_timeout."""
        self.control(rescue_timeout=seconds)

    def create_server(self, name: str, *, address: str | None = None, floating: str | None = None, volume_backed: bool = False,
                      host: str = "compute", user: str = "admin", wait: bool = True, metadata: Mapping[str, str] | None = None,
                      networks: Sequence[Mapping[str, str]] | t.Literal["none"] | None = None) -> str:
        """Make a server, wait until it is ACTIVE, return its id.

        address: a fixed one on loopback. floating: one that translates to it. host: `compute`, or `old`, which cannot
        rescue what boots from a volume.
        """
        if floating:
            self.control(floating=[address, floating])
        body: dict[str, t.Any] = {"name": name, "flavorRef": "1", "metadata": dict(metadata or {}), "imageRef": self.base_image,
                                  "networks": networks or [{"uuid": NETWORK, **({"fixed_ip": address} if address else {})}]}
        if user == "admin":
            body["availability_zone"] = f"nova:{host}"
        if volume_backed:
            del body["imageRef"]
            body["block_device_mapping_v2"] = [{"boot_index": 0, "uuid": VOLUME, "source_type": "volume",
                                                "destination_type": "volume"}]
        answer = self._connection(user).compute.post("/servers", json={"server": body}, microversion="2.87")
        if answer.status_code != 202:
            raise LabError(f"Nova makes no server: {answer.text}")
        server_id = str(answer.json()["server"]["id"])
        return self.wait_for(server_id, "ACTIVE") if wait else server_id
