# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The images that a server can be rescued with. Private to this collection."""

from __future__ import annotations

import typing as t

from ...._errors import BadInput
from .._base import RESCUE, BootOption

if t.TYPE_CHECKING:
    from ._client import Client

BEST = "system-rescue"


class Images:
    """Those that the credentials see; they are listed once."""

    def __init__(self, client: Client):
        self._client = client
        self._seen: list[t.Any] | None = None

    def _all(self) -> list[t.Any]:
        if self._seen is None:
            found = self._client.repeat("GET /images", lambda: self._client.guarded(
                "GET /images", lambda: list(self._client.connection.image.images(status="active"))))
            # What is only a snapshot of volumes holds no system of its own; Nova refuses it.
            self._seen = [image for image in found if image.size != 0 and image.status == "active"]
        return self._seen

    def options(self) -> list[BootOption]:
        """The images that a server can be rescued with."""
        return [_option(image) for image in self._all()]

    def option(self, image_id: str) -> BootOption:
        """One image, or NotFound."""
        what = f"GET /images/{image_id}"
        return _option(self._client.repeat(what, lambda: self._client.guarded(
            what, lambda: self._client.connection.image.get_image(image_id))))

    def choose(self, name: str, wanted: str) -> BootOption:
        """The image meant by `best`, an id, a name or a tag, if the server of that name can be rescued with it; else BadInput."""
        images = self._all()
        found = [image for image in images if image.id == wanted]
        word = BEST if wanted in ("best", "rescue") else wanted
        if not found:
            found = [image for image in images if image.name == word or word in (image.tags or [])]
        if len(found) != 1:
            listed = ", ".join(sorted(f"{image.name} (id {image.id})" for image in found or images))
            if not found:
                raise BadInput(f"No image has the id, the name or the tag {word!r}.",
                               todo=f"Name one in the option rescue. These credentials see: {listed or 'none'}.")
            raise BadInput(f"{len(found)} images fit {wanted!r}.", todo=f"Name one by its id in the option rescue: {listed}.")
        self._refuse_unstable(name, found[0])
        return _option(found[0])

    def _refuse_unstable(self, name: str, image: t.Any) -> None:
        """Raise BadInput where Nova cannot rescue a server that boots from a volume; its own words do not tell why."""
        if self._client.show(name).get("image") or (_is_stable(image) and self._client.microversion()):
            return
        if not self._client.microversion():
            raise BadInput(f"{name} boots from a volume, and this cloud's Nova is too old to rescue such a server.",
                           state="Nothing was changed.", todo="Detach the volume and attach it to another server to repair it.")
        fit = ", ".join(sorted(f"{other.name} (id {other.id})" for other in self._all() if _is_stable(other)))
        raise BadInput(f"{name} boots from a volume, and the image {image.name} lacks the properties hw_rescue_device and "
                       "hw_rescue_bus, without which Nova cannot rescue such a server.", state="Nothing was changed.",
                       todo=f"These images have them: {fit}." if fit else
                       "Set them: openstack image set --property hw_rescue_device=disk --property hw_rescue_bus=virtio IMAGE.")


def _is_stable(image: t.Any) -> bool:
    """Whether the server's own disks keep their names beside it, which a server on a volume needs."""
    properties = image.properties or {}
    return bool(properties.get("hw_rescue_device") and properties.get("hw_rescue_bus"))


def _option(image: t.Any) -> BootOption:
    words = [f"tags: {', '.join(sorted(image.tags))}"] if image.tags else []
    words += ["fits servers on volumes"] if _is_stable(image) else []
    return BootOption(str(image.id), RESCUE, str(image.name or image.id), "; ".join(words))
