# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The hypervisor below the lab's Nova: Nova's own fake one, slower, and with a wire to the machines of the lab."""

from __future__ import annotations

import queue
import threading
import time
import typing as t

import requests
from nova import exception
from nova.compute import power_state
from nova.virt import fake


class Lab:
    """What the lab has told this process. One for all hosts, because Nova makes the drivers itself.

    rescue_seconds: how long a rescue and an unrescue take. queue_seconds: how much longer, by server. early_seconds: how long it
    has been done before the machine hears of it, by server. power_url: who is told of each change of power and has to
    answer before it counts as done, or None.
    """

    rescue_seconds = 0.0
    queue_seconds: t.ClassVar[dict[str, float]] = {}
    early_seconds: t.ClassVar[dict[str, float]] = {}
    power_url: str | None = None
    _waiting: t.ClassVar[dict[str, queue.Queue[tuple[str, t.Any, dict[str, t.Any]]]]] = {}
    _one_at_a_time = threading.Lock()
    ended = threading.Event()

    @classmethod
    def tell(cls, event: str, instance: t.Any, **more: t.Any) -> None:
        """Say what a machine has to do now; raise where the lab says that it did not."""
        late = cls.early_seconds.get(instance.uuid)
        if late:
            waiting = cls._waiting.setdefault(instance.uuid, queue.Queue())
            waiting.put((event, instance, more))
            timer = threading.Timer(late, cls._tell_next, (waiting,))
            timer.daemon = True
            timer.start()
        else:
            cls._post(event, instance, **more)

    @classmethod
    def _tell_next(cls, waiting: queue.Queue[tuple[str, t.Any, dict[str, t.Any]]]) -> None:
        """Say what has waited longest: two that were to be told a moment apart keep their order."""
        with cls._one_at_a_time:
            event, instance, more = waiting.get_nowait()
            cls._post(event, instance, **more)

    @classmethod
    def _post(cls, event: str, instance: t.Any, **more: t.Any) -> None:
        if cls.power_url:
            answer = requests.post(cls.power_url, timeout=600, json={
                "event": event, "server": instance.uuid, "name": instance.display_name, **more})
            if answer.status_code != 204:
                raise exception.InternalError(f"{event}: {answer.text}")

    @classmethod
    def take_time(cls, instance: t.Any) -> None:
        """Let pass what a rescue takes, or until the process is told to end."""
        until = time.monotonic() + cls.rescue_seconds + cls.queue_seconds.get(instance.uuid, 0.0)
        while not cls.ended.is_set() and time.monotonic() < until:
            cls.ended.wait(0.02)


class Driver(fake.FakeDriver):  # type: ignore[misc, unused-ignore]
    """A host that can rescue what boots from a volume."""

    capabilities: t.ClassVar[dict[str, bool]] = {**fake.FakeDriver.capabilities, "supports_bfv_rescue": True}

    def rescue(self, context: t.Any, instance: t.Any, network_info: t.Any, image_meta: t.Any, rescue_password: str,
               block_device_info: t.Any, share_info: t.Any) -> None:
        """As libvirt does: an image that is not there fails here, long after Nova's API has said 200."""
        Lab.take_time(instance)
        status = image_meta.status if "status" in image_meta else "active"
        if status != "active" or not image_meta.size:
            raise exception.ImageUnacceptable(image_id=image_meta.id, reason=f"Image is not active: {status}"
                                              if status != "active" else "Image has no data")
        Lab.tell("rescue", instance, image=image_meta.id, password=rescue_password)
        # Nova's fake driver leaves it off, which no hypervisor does.
        self.instances[instance.uuid].state = power_state.RUNNING

    def unrescue(self, context: t.Any, instance: t.Any) -> None:
        """Boot the server's own disk again."""
        Lab.take_time(instance)
        Lab.tell("unrescue", instance)
        super().unrescue(context, instance)

    def reboot(self, context: t.Any, instance: t.Any, network_info: t.Any, reboot_type: str, *args: t.Any, **kwargs: t.Any) -> None:
        """A reboot that takes as long as a rescue, so that it can be seen under way."""
        Lab.take_time(instance)
        Lab.tell("reboot", instance, type=reboot_type)
        super().reboot(context, instance, network_info, reboot_type, *args, **kwargs)

    def power_off(self, instance: t.Any, timeout: int = 0, retry_interval: int = 0) -> None:
        """Nova does this by itself before a rescue, too."""
        Lab.tell("power_off", instance)
        super().power_off(instance, timeout, retry_interval)

    def power_on(self, context: t.Any, instance: t.Any, *args: t.Any, **kwargs: t.Any) -> None:
        """Also the second half of super().reboot(), which then tells twice that the server is on."""
        Lab.tell("power_on", instance)
        super().power_on(context, instance, *args, **kwargs)


class OldDriver(Driver):
    """A host without the trait COMPUTE_RESCUE_BFV."""

    capabilities: t.ClassVar[dict[str, bool]] = {**Driver.capabilities, "supports_bfv_rescue": False}
