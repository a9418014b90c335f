# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""OpenStack's Nova, by openstacksdk. Private to this collection.

Shapes: https://docs.openstack.org/api-ref/compute/; what Nova answers in which state was tried on Nova 34.
"""

from __future__ import annotations

import collections
import ipaddress
import re
import typing as t
import uuid
from urllib.parse import urlencode

from ansible.module_utils.basic import missing_required_lib

from ..._errors import BadInput, LifeboatError, MissingLibrary, NotAllowed, NotFound, ProviderError
from ..._wait import Backoff
from ._base import HARDDISK, RESCUE, BootOption, Facts, Origin, Provider, Server, Task

# Rescues what boots from a volume. Rescue with an image of choice is older.
MICROVERSION = (2, 87)
BEST = "system-rescue"
# Nova shows nowhere which image a server was rescued with, so that is noted in the server's metadata.
NOTE = "lifeboat_rescue_image"
DISK = BootOption("harddisk", HARDDISK, "harddisk", "the server's own disk or volume")
UNKNOWN = BootOption("rescue", RESCUE, "unknown", "Nova does not tell which image it rescued the server with.")
# Where Nova takes changes of the metadata.
_NOTABLE = ("active", "paused", "suspended", "stopped")
_REFUSED = {
    "paused": "openstack server unpause",
    "suspended": "openstack server resume",
    "shelved": "openstack server unshelve",
    "shelved_offloaded": "openstack server unshelve",
}
_RESCUABLE = ("active", "stopped", "error", "rescued")
_CONSOLES = (("vnc", "novnc"), ("spice", "spice-html5"), ("serial", "serial"), ("mks", "webmks"), ("rdp", "rdp-html5"))
_READ_ONLY_ROLES = {"reader", "auditor"}
_CHECK_LOG_IN = "Check the user, the password or application credential, and the project: in clouds.yaml, openstack_auth or OS_*."

Json = t.Dict[str, t.Any]


class _Conflict(ProviderError):
    """Nova refused what does not fit the server's state (409)."""


class _Passing(ProviderError):
    """A failure that passes by itself, after which it is not known whether the request was done."""


def _state(server: Json) -> str:
    return str(server.get("OS-EXT-STS:vm_state") or "").lower()


def _task_state(server: Json) -> str | None:
    return server.get("OS-EXT-STS:task_state") or None


class OpenStack(Provider):
    """Servers of OpenStack. Rescue and its end reboot at once, and Nova reboots nothing that is in rescue."""

    facts = Facts(
        name="openstack",
        reboot="one_call",
        boot_option_lasts=True,
        hard_reboot=False,
        credentials=("given", "console"),
        tells_armed=True,
        settings=("status", NOTE),
        rights=("role member",),
    )

    # A call that failed on the way is tried again for so long.
    patience = 60.0

    def __init__(self, params: t.Mapping[str, t.Any]):
        """params: the options `openstack_*`; what is absent comes from clouds.yaml and OS_*, as in openstacksdk."""
        try:
            import openstack
            import openstack.config
            from keystoneauth1 import exceptions as auth_errors
        except ImportError as exc:
            raise MissingLibrary(missing_required_lib("openstacksdk", url="https://pypi.org/project/openstacksdk/")) from exc
        self._errors = (openstack.exceptions.SDKException, auth_errors.ClientException)
        self._auth_errors = auth_errors
        names = {"cloud": "cloud", "auth": "auth", "auth_type": "auth_type", "region_name": "region_name", "interface": "interface",
                 "validate_certs": "verify", "ca_cert": "cacert"}
        given = {theirs: params[f"openstack_{ours}"] for ours, theirs in names.items() if params.get(f"openstack_{ours}") is not None}
        try:
            config = openstack.config.OpenStackConfig().get_one(api_timeout=30, **given)
            self._connection = openstack.connection.Connection(config=config)
        except (*self._errors, OSError) as exc:
            raise BadInput(f"The OpenStack credentials are not complete: {self._text(exc)}",
                           todo="Name a cloud of clouds.yaml in openstack_cloud, give openstack_auth, or set OS_CLOUD or the other "
                                "OS_* in the environment.") from exc
        self._ids: dict[str, str] = {}
        self._images_seen: dict[str, t.Any] | None = None
        self._version: str | None = None
        self._version_known = False

    # -- calls

    @staticmethod
    def _text(exc: BaseException) -> str:
        """An exception's sentence on one line, with a full stop."""
        return re.sub(r"\s+", " ", str(exc)).strip().rstrip(".") + "."

    def _guarded(self, what: str, call: t.Callable[[], t.Any]) -> t.Any:
        """The result of a call of the library; what it raises becomes one of our exceptions."""
        errors = self._auth_errors
        try:
            return call()
        except (errors.Unauthorized, errors.AuthorizationFailure) as exc:
            raise NotAllowed(f"The OpenStack credentials are not valid: {self._text(exc)}", todo=_CHECK_LOG_IN) from exc
        except errors.NotFound as exc:
            # Only keystone's answers to the log-in come as this; a service's are of the library's own kind.
            raise NotAllowed(f"The OpenStack credentials are not valid: {self._text(exc)}", todo="Look at auth_url, and whether the "
                             "application credential is still there.") from exc
        except (errors.MissingRequiredOptions, errors.NoMatchingPlugin) as exc:
            raise BadInput(f"The OpenStack credentials are not complete: {self._text(exc)}", todo=_CHECK_LOG_IN) from exc
        except errors.SSLError as exc:
            raise ProviderError(f"The certificate of OpenStack's API is not trusted: {self._text(exc)}",
                                todo="Name the authority's certificate in openstack_ca_cert.") from exc
        except (errors.EndpointNotFound, errors.EmptyCatalog) as exc:
            raise BadInput(f"The cloud has no such service: {self._text(exc)}",
                           todo="Look at openstack_region_name and openstack_interface.") from exc
        except errors.ConnectionError as exc:
            raise _Passing(f"OpenStack's API does not answer {what}: {self._text(exc)}") from exc
        except self._errors as exc:
            if type(exc).__name__ == "ServiceDisabledException":
                raise BadInput(f"The cloud has no such service: {self._text(exc)}",
                               todo="Look at openstack_region_name and openstack_interface.") from exc
            status = getattr(exc, "status_code", None) or getattr(exc, "http_status", None)
            self._raise_for(what, status, self._text(exc), exc)

    def _raise_for(self, what: str, status: int | None, text: str, cause: Exception | None = None) -> t.NoReturn:
        if status == 401:
            raise NotAllowed(f"The OpenStack credentials are not valid: {text}", todo=_CHECK_LOG_IN) from cause
        if status == 403:
            raise NotAllowed(f"The OpenStack user may not do this ({what}): {text}", todo="It needs the role member in the project, "
                             "or another one that the cloud's policy lets rescue servers.") from cause
        if status == 404:
            raise NotFound(f"OpenStack does not find it ({what}): {text}",
                           todo="Somebody may have deleted it meanwhile.") from cause
        if status == 409:
            raise _Conflict(f"Nova refused {what}: {text}") from cause
        if status == 501:
            raise ProviderError(f"This cloud cannot do it ({what}): {text}",
                                todo="Ask its operator whether the hypervisors rescue servers.") from cause
        if status is not None and (status == 429 or status >= 500):
            raise _Passing(f"OpenStack's API failed at {what}: {text}") from cause
        raise ProviderError(f"OpenStack refused {what}: {text}", todo="If that does not say why, the cloud's operator can.") from cause

    def _try(self, method: str, path: str, body: Json | None = None) -> Json:
        """One call to Nova, not repeated. Returns the answer's JSON, or {}."""
        what = f"{method.upper()} {re.sub('[0-9a-f-]{36}', 'ID', path)}"
        more = {} if body is None else {"json": body}

        def call() -> t.Any:
            return getattr(self._connection.compute, method)(path, microversion=self._microversion(), raise_exc=False, **more)

        response = self._guarded(what, call)
        if response.status_code >= 400:
            self._raise_for(what, response.status_code, self._message(response))
        try:
            return response.json() if response.content else {}
        except ValueError as exc:
            raise _Passing(f"What OpenStack's API answered to {what} cannot be read.") from exc

    @staticmethod
    def _message(response: t.Any) -> str:
        try:
            text = next(iter(response.json().values()))["message"]
        except (ValueError, KeyError, TypeError, AttributeError, StopIteration):
            text = f"{response.status_code} {response.reason}"
        return re.sub(r"\s+", " ", str(text)).strip().rstrip(".") + "."

    def _microversion(self) -> str | None:
        """What we speak; None for the oldest, where the cloud has not ours."""
        if not self._version_known:
            endpoint = self._guarded("the version of Nova", self._connection.compute.get_endpoint_data)
            highest = endpoint.max_microversion if endpoint else None
            self._version = "{}.{}".format(*MICROVERSION) if highest and tuple(highest) >= MICROVERSION else None
            self._version_known = True
        return self._version

    def _repeat(self, what: str, call: t.Callable[[], t.Any]) -> t.Any:
        """The result of something safe to repeat, repeated while its failure is one that passes."""
        last: list[LifeboatError] = []

        def look() -> tuple[t.Any] | None:
            try:
                return (call(),)
            except _Passing as exc:
                last[:] = [exc]
                return None

        def late() -> Exception:
            return ProviderError(f"OpenStack's API failed for {self.patience:g} s at {what}: {last[0].what}",
                                 todo="Try again later; the cloud's operator may know of an outage.")

        return self.clock.wait(self.patience, Backoff(0.5, 8.0, 2.0)).until(look, late)[0]

    def _call(self, method: str, path: str, body: Json | None = None) -> Json:
        return t.cast(Json, self._repeat(f"{method.upper()} {path}", lambda: self._try(method, path, body)))

    # -- servers

    def list_servers(self) -> list[str]:
        """Names; where two servers have the same, their ids."""
        return sorted(self._named(self._list("/servers")))

    def read_servers(self) -> dict[str, Server | None]:
        servers: dict[str, Server | None] = {}
        for name, data in sorted(self._named(self._list("/servers/detail")).items()):
            try:
                servers[name] = self._server(name, data)
            except ProviderError:
                # It has no address, which is its own failure and not that of all of them.
                servers[name] = None
        return servers

    @staticmethod
    def _named(found: t.Sequence[Json]) -> dict[str, Json]:
        """Servers by their names; where two servers have the same, or Nova does not tell, by their ids."""
        names = collections.Counter(server.get("name") for server in found)
        names[None] = 2
        return {server["name"] if names[server.get("name")] == 1 else server["id"]: server for server in found}

    def _list(self, path: str, name: str | None = None) -> list[Json]:
        """All servers of the project, or those of a name. path: `/servers`, or `/servers/detail` for as much as Nova shows of one."""
        found: list[Json] = []
        query = {} if name is None else {"name": f"^{re.escape(name)}$"}
        seen: set[str] = set()
        while True:
            answer = self._call("get", f"{path}?{urlencode(query)}" if query else path)
            # A cloud that ignores the marker has the same page again and again.
            new = [server for server in answer["servers"] if server["id"] not in seen]
            found += new
            if not new or not answer.get("servers_links"):
                return [server for server in found if name in (None, server.get("name"))]
            seen.update(server["id"] for server in new)
            query["marker"] = str(new[-1]["id"])

    def _find(self, name: str) -> Json:
        """The server of a name, as Nova shows it."""
        same = self._list("/servers/detail", name)
        if len(same) > 1:
            raise BadInput(f"{len(same)} servers have the name {name!r}.",
                           todo=f"Name the one that you mean by its id: {', '.join(sorted(server['id'] for server in same))}.")
        if not same:
            seen = ", ".join(sorted(f"{server.get('name')} ({server['id']})" for server in self._list("/servers")))
            raise NotFound(f"OpenStack knows no server {name!r} in this project.", todo=f"These credentials see: {seen or 'none'}.")
        return same[0]

    def _show(self, name: str) -> Json:
        """The server as Nova shows it."""
        if name not in self._ids:
            try:
                self._ids[name] = str(uuid.UUID(name))
                return t.cast(Json, self._call("get", f"/servers/{self._ids[name]}")["server"])
            except (ValueError, NotFound):
                self._ids.pop(name, None)
            data = self._find(name)
            self._ids[name] = str(data["id"])
            return data
        return t.cast(Json, self._call("get", f"/servers/{self._ids[name]}")["server"])

    def _id(self, name: str) -> str:
        if name not in self._ids:
            self._show(name)
        return self._ids[name]

    def read_server(self, name: str) -> Server:
        return self._server(name, self._show(name))

    def _server(self, name: str, data: Json) -> Server:
        return Server(name=name, address=self._address(name, data), boot=self._boot(data),
                      settings={"status": data["status"], NOTE: (data.get("metadata") or {}).get(NOTE)})

    @staticmethod
    def _boot(data: Json) -> str:
        state, task = _state(data), _task_state(data)
        if task == "rescuing" or (state == "rescued" and task != "unrescuing"):
            return (data.get("metadata") or {}).get(NOTE) or UNKNOWN.id
        return DISK.id

    @staticmethod
    def _address(name: str, data: Json) -> str:
        """The floating IPv4, else a public one, else any IPv4, else any."""
        found = [entry for entries in (data.get("addresses") or {}).values() for entry in entries]

        def rank(entry: Json) -> tuple[bool, bool, bool]:
            public = ipaddress.ip_address(entry["addr"]).is_global
            return entry["version"] != 4, entry.get("OS-EXT-IPS:type") != "floating", not public

        if not found:
            raise ProviderError(f"{name} has no address in OpenStack.", todo="Give one in the option address.")
        return str(min(found, key=rank)["addr"])

    # -- boot options

    def _images(self) -> list[t.Any]:
        """The images that a server can be rescued with."""
        if self._images_seen is None:
            found = self._repeat("GET /images", lambda: self._guarded(
                "GET /images", lambda: list(self._connection.image.images(status="active"))))
            # What is only a snapshot of volumes holds no system of its own; Nova refuses it.
            self._images_seen = {image.id: image for image in found if image.size != 0 and image.status == "active"}
        return list(self._images_seen.values())

    @staticmethod
    def _is_stable(image: t.Any) -> bool:
        """Whether the server's own disks keep their names beside it, which a server on a volume needs."""
        properties = image.properties or {}
        return bool(properties.get("hw_rescue_device") and properties.get("hw_rescue_bus"))

    def _option(self, image: t.Any) -> BootOption:
        words = [f"tags: {', '.join(sorted(image.tags))}"] if image.tags else []
        words += ["fits servers on volumes"] if self._is_stable(image) else []
        return BootOption(str(image.id), RESCUE, str(image.name or image.id), "; ".join(words))

    def boot_options(self, name: str, kind: str | None = None) -> list[BootOption]:
        options = [DISK] if kind in (None, HARDDISK) else []
        return options + ([self._option(image) for image in self._images()] if kind in (None, RESCUE) else [])

    def boot_option(self, name: str, option_id: str) -> BootOption:
        for option in (DISK, UNKNOWN):
            if option.id == option_id:
                return option
        what = f"GET /images/{option_id}"
        return self._option(self._repeat(what, lambda: self._guarded(what, lambda: self._connection.image.get_image(option_id))))

    def choose(self, name: str, wanted: str) -> BootOption:
        if wanted == "harddisk":
            return DISK
        images = self._images()
        found = [image for image in images if image.id == wanted]
        if not found:
            word = BEST if wanted in ("best", "rescue") else wanted
            found = [image for image in images if image.name == word or word in (image.tags or [])]
        if len(found) != 1:
            known = found or images
            listed = ", ".join(sorted(f"{image.name} (id {image.id})" for image in known))
            if not found:
                raise BadInput(f"No image has the id, the name or the tag {BEST if wanted in ('best', 'rescue') else wanted!r}.",
                               todo=f"Name one in the option rescue. These credentials see: {listed or 'none'}.")
            raise BadInput(f"{len(found)} images fit {wanted!r}.", todo=f"Name one by its id in the option rescue: {listed}.")
        self._refuse_unstable(name, found[0], images)
        return self._option(found[0])

    def _refuse_unstable(self, name: str, image: t.Any, images: t.Sequence[t.Any]) -> None:
        """Raise BadInput where Nova cannot rescue a server that boots from a volume; its own words do not tell why."""
        if self._show(name).get("image") or (self._is_stable(image) and self._microversion()):
            return
        if not self._microversion():
            raise BadInput(f"{name} boots from a volume, and this cloud's Nova is too old to rescue such a server.",
                           state="Nothing was changed.", todo="Detach the volume and attach it to another server to repair it.")
        fit = ", ".join(sorted(f"{other.name} (id {other.id})" for other in images if self._is_stable(other)))
        raise BadInput(f"{name} boots from a volume, and the image {image.name} lacks the properties hw_rescue_device and "
                       "hw_rescue_bus, without which Nova cannot rescue such a server.", state="Nothing was changed.",
                       todo=f"These images have them: {fit}." if fit else
                       "Set them: openstack image set --property hw_rescue_device=disk --property hw_rescue_bus=virtio IMAGE.")

    def rescue_rank(self, option: BootOption) -> int | None:
        return 0 if option.kind == RESCUE else None

    # -- settings

    def rescue_settings(self, server: Server, option: BootOption, public_key: str | None,
                        options: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
        return {}

    def boot_settings(self, option: BootOption) -> dict[str, t.Any]:
        return {}

    def restorable_settings(self, server: Server) -> dict[str, t.Any]:
        return {"status": "SHUTOFF" if server.settings["status"] == "SHUTOFF" else "ACTIVE", NOTE: None}

    def same_setting(self, setting: str, one: t.Any, other: t.Any) -> bool:
        if setting == "status":
            # Off or not is all that is restored.
            return (one == "SHUTOFF") == (other == "SHUTOFF")
        return (one or None) == (other or None)

    def write_settings(self, name: str, changes: t.Mapping[str, t.Any]) -> None:
        server_id, path = self._id(name), f"/servers/{self._id(name)}"
        if NOTE in changes:
            # First: Nova takes it only while no task is under way.
            try:
                if changes[NOTE]:
                    self._call("post", f"{path}/metadata", {"metadata": {NOTE: changes[NOTE]}})
                else:
                    self._call("delete", f"{path}/metadata/{NOTE}")
            except NotFound:
                self._ids[name] = server_id
        if "status" in changes:
            state = _state(self._show(name))
            stop = changes["status"] == "SHUTOFF"
            if stop != (state == "stopped"):
                try:
                    self._call("post", f"{path}/action", {"os-stop": None} if stop else {"os-start": None})
                except _Conflict:
                    # An answer that was lost, and a second request while the first is under way.
                    if _task_state(self._show(name)) not in ("powering-off", "powering-on") and \
                            stop != (_state(self._show(name)) == "stopped"):
                        raise

    # -- rebooting

    def _actions(self, name: str) -> list[Json] | None:
        """What Nova was asked to do with a server, the newest first; None where that may not be read."""
        try:
            found = self._call("get", f"/servers/{self._id(name)}/os-instance-actions")["instanceActions"]
        except NotAllowed:
            return None
        return sorted(found, key=lambda action: str(action["start_time"]), reverse=True)

    def reboot_mark(self, name: str) -> t.Any:
        """The ids of the requests that Nova knows by now; None where that may not be read."""
        actions = self._actions(name)
        return None if actions is None else [action["request_id"] for action in actions]

    def _happened(self, name: str, mark: t.Any, actions: t.Sequence[str]) -> str | None:
        """The first of these actions that was begun since the mark was taken, or None."""
        if mark is None:
            return None
        known = self._actions(name) or []
        new = [str(action["action"]) for action in known if action["request_id"] not in mark and action["action"] in actions]
        return new[0] if new else None

    def switch(self, name: str, option: BootOption, mark: t.Any, asked_before: bool = False, password: str | None = None) -> Task:
        if option.kind == RESCUE:
            return self._rescue(name, option, mark, asked_before, password)
        return self._boot_disk(name, mark, asked_before)

    def _rescue(self, name: str, option: BootOption, mark: t.Any, asked_before: bool, password: str | None) -> Task:
        data = self._show(name)
        if not asked_before and _task_state(data) is None:
            self._note(name, data, option)
        rescue: Json = {"rescue_image_ref": option.id} if option.id != UNKNOWN.id else {}
        if password:
            rescue["adminPass"] = password

        def has_begun(server: Json) -> bool:
            return _task_state(server) == "rescuing" or _state(server) == "rescued"

        def explain(server: Json, exc: ProviderError) -> LifeboatError:
            if isinstance(exc, _Conflict) and has_begun(server):
                by = self.rescued(name).by
                return ProviderError(f"{name} is in rescue already{', asked for by ' + by if by else ''}, and Nova can neither "
                                     "reboot a server in rescue nor change its rescue system.", state="This changed nothing.",
                                     todo="Use state=absent, and then state=present.")
            if "volume-backed" in exc.what:
                return ProviderError(exc.what, state="This changed nothing.", todo="The host that it runs on, or the image, cannot do "
                                     "that. Choose another image, or attach the volume to another server to repair it.")
            if "rescue image" in exc.what:
                return ProviderError(exc.what, state="This changed nothing.", todo="Choose another image in the option rescue.")
            return self._as_said(server, exc)

        return self._once(name, {"rescue": rescue}, ("rescue",), mark, asked_before, has_begun, explain)

    def _note(self, name: str, data: Json, option: BootOption) -> None:
        """Note which image is to run. In rescue it is too late for that, and after an error too early."""
        if _state(data) in _NOTABLE and (data.get("metadata") or {}).get(NOTE) != option.id:
            try:
                self._call("post", f"/servers/{self._id(name)}/metadata", {"metadata": {NOTE: option.id}})
            except NotAllowed:
                # Without it the rescue system's name cannot be shown later. That is all.
                return

    def _boot_disk(self, name: str, mark: t.Any, asked_before: bool) -> Task:
        state = _state(self._show(name))
        actions = ("unrescue", "reboot", "start")
        if asked_before:
            found = self._happened(name, mark, actions)
            if found:
                return self.read_task(name, found)
        if state == "rescued":
            return self._once(name, {"unrescue": None}, actions, mark, asked_before,
                              lambda server: _state(server) != "rescued" or _task_state(server) == "unrescuing", self._as_said)
        if state == "stopped":
            return self._once(name, {"os-start": None}, actions, mark, asked_before,
                              lambda server: _state(server) != "stopped" or _task_state(server) == "powering-on", self._as_said)
        return self.reboot_hard(name, mark, asked_before)

    def reboot_hard(self, name: str, mark: t.Any, asked_before: bool = False) -> Task:
        if _state(self._show(name)) == "rescued":
            raise ProviderError(f"{name} is in rescue, and Nova cannot reboot a server in rescue.", state="Nothing was rebooted.",
                                todo="Use rescue_mode with state=absent, and then with state=present.")
        return self._once(name, {"reboot": {"type": "HARD"}}, ("reboot",), mark, asked_before,
                          lambda server: (_task_state(server) or "").startswith("reboot"), self._as_said)

    @staticmethod
    def _as_said(server: Json, exc: ProviderError) -> LifeboatError:
        """The error for a refusal, with what the server is now."""
        task = _task_state(server)
        state = f"This changed nothing. Nova says that it is {server['status']}{f', and at work on it ({task})' if task else ''}."
        if "is locked" in exc.what:
            return NotAllowed(exc.what, state=state, todo=f"Unlock it: openstack server unlock {server['id']}.")
        return ProviderError(exc.what, state=state, todo="Run this again when that has ended." if task else
                             f"Look at it: openstack server show {server['id']}.")

    def _once(self, name: str, body: Json, actions: t.Sequence[str], mark: t.Any, asked_before: bool,
              has_begun: t.Callable[[Json], bool], explain: t.Callable[[Json, ProviderError], LifeboatError]) -> Task:
        """Ask Nova for an action, at most once since the mark was taken.

        has_begun: whether a server's state shows that it is done or under way, where the list of actions may not be read or
        is late. explain: the error for a refusal.
        """
        server_id = self._id(name)
        action = next(iter(body)).replace("os-", "")
        unsure = [asked_before]
        last: list[LifeboatError] = []

        def refused(server: Json, exc: ProviderError) -> LifeboatError:
            error = explain(server, exc)
            if unsure[0]:
                error.state = f"Nova says that it is {server['status']}. Whether the request before this one arrived is not known."
            return error

        def look() -> Task | None:
            if unsure[0]:
                # Whether the call arrived is not known. What Nova was asked tells, and keeps us from a second time.
                found = self._happened(name, mark, actions)
                if found or (mark is None and has_begun(self._show(name))):
                    return self.read_task(name, found or action)
            try:
                self._try("post", f"/servers/{server_id}/action", body)
            except _Passing as exc:
                last[:] = [exc]
                unsure[0] = True
                return None
            except _Conflict as exc:
                server = self._show(name)
                if has_begun(server) and (unsure[0] or self._happened(name, mark, actions)):
                    # The answer to the first time was lost, and it arrived. Or somebody else wished the same since the mark, and
                    # was first; Nova does it once, and that is gone on with.
                    task = self.read_task(name, action)
                    return task if unsure[0] else task._replace(text=f"{task.text} (somebody else asked for it, a moment earlier)")
                raise refused(server, exc) from None
            except (NotAllowed, NotFound):
                raise
            except ProviderError as exc:
                raise refused(self._show(name), exc) from None
            return Task(action, "running", f"{action}: asked")

        def late() -> Exception:
            return ProviderError(f"OpenStack's API failed for {self.patience:g} s when asked to {action} {name}: {last[0].what}",
                                 state="Whether a request arrived is not known.",
                                 todo="Run this again later: it looks for that first, and asks again only where none arrived.")

        return t.cast(Task, self.clock.wait(self.patience, Backoff(1.0, 8.0, 2.0)).until(look, late))

    def read_task(self, name: str, task_id: str) -> Task:
        """How an action stands. The status alone says nothing: it lags behind, and a rescue of a broken server begins at ERROR."""
        try:
            server = t.cast(Json, self._try("get", f"/servers/{self._id(name)}")["server"])
        except (NotFound, _Passing) as exc:
            return Task(task_id, "unknown", f"not readable: {exc.what}")
        status, task = server["status"], _task_state(server)
        if task is not None:
            return Task(task_id, "running", f"{task_id}: {task}")
        if status == "ERROR":
            # The reason is written a moment later than the state, so it may not be there yet.
            fault = server.get("fault") or {}
            return Task(task_id, "failed", f"{task_id}: {fault.get('message') or 'Nova says ERROR, and no reason'}")
        ended = "rescued" if task_id == "rescue" else "active"
        if _state(server) != ended:
            return Task(task_id, "failed", f"{task_id}: it ended, and Nova says {status}")
        return Task(task_id, "done", f"{task_id}: {status}")

    def unfinished_tasks(self, name: str) -> list[Task]:
        task = _task_state(self._show(name))
        return [Task(task, "running", f"{task}")] if task else []

    # -- what can be told beforehand

    def check_rights(self, name: str) -> None:
        data = self._show(name)
        state, task, roles = _state(data), _task_state(data), self._roles()
        if roles and roles <= _READ_ONLY_ROLES:
            raise NotAllowed(f"The OpenStack user has only the role {', '.join(sorted(roles))} in this project, which may not "
                             "rescue servers.", state="Nothing was changed.", todo="It needs the role member.")
        if data.get("locked") and "admin" not in roles:
            why = f" ({data['locked_reason']})" if data.get("locked_reason") else ""
            raise NotAllowed(f"{name} is locked{why}, so Nova refuses to rescue it.", state="Nothing was changed.",
                             todo=f"Unlock it: openstack server unlock {self._id(name)}.")
        if state in _REFUSED:
            raise ProviderError(f"{name} is {data['status']}, and Nova rescues no such server.", state="Nothing was changed.",
                                todo=f"Use {_REFUSED[state]} {self._id(name)} first.")
        if state not in _RESCUABLE:
            raise ProviderError(f"{name} is {data['status']} ({state}), and Nova rescues no such server.", state="Nothing was changed.",
                                todo="It can be rescued while it is ACTIVE, SHUTOFF or ERROR.")
        if task not in (None, "rescuing", "unrescuing"):
            # Those two may be this session's own, by a call that died; the session tells them apart.
            raise ProviderError(f"Nova is at work on {name} ({task}).", state="Nothing was changed.",
                                todo="Run this again when that has ended.")

    def _roles(self) -> set[str]:
        """The roles of these credentials, or none where the kind of log-in does not tell."""
        session: t.Any = self._connection.session
        get_access = getattr(session.auth, "get_access", None)
        access = self._guarded("the log-in", lambda: get_access(session)) if get_access else None
        return set(getattr(access, "role_names", None) or ())

    def login_words(self, name: str, option: BootOption) -> str | None:
        return (f"The image {option.name} must let somebody in by SSH: by cloud-init, or with the password of root that Nova puts into "
                "the configuration drive. SystemRescue as shipped does neither, and its firewall is closed. Use login=console, or "
                "another image.")

    def rescued(self, name: str) -> Origin:
        for action in self._actions(name) or []:
            if action["action"] == "rescue":
                return Origin(f"{action['start_time'].split('.')[0]}Z", f"user {action['user_id']}")
        return Origin()

    def console_url(self, name: str) -> str | None:
        path = f"/servers/{self._id(name)}/remote-consoles"
        for protocol, kind in _CONSOLES:
            try:
                answer = self._try("post", path, {"remote_console": {"protocol": protocol, "type": kind}})
                return str(answer["remote_console"]["url"])
            except ProviderError:
                # This cloud has not that one.
                continue
        return None
