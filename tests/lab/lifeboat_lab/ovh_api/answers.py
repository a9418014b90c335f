# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Requests and answers, also those that are no success."""

from __future__ import annotations

import json
import re
import typing as t
from collections.abc import Callable, Sequence
from email.message import Message
from urllib.parse import parse_qs, urlsplit

if t.TYPE_CHECKING:
    from .faults import Fault


class ApiError(Exception):
    """An answer that is no success. more: the keys of its body besides the message."""

    def __init__(self, status: int, message: str, **more: t.Any) -> None:
        super().__init__(message)
        self.status = status
        self.body = {**more, "message": message}


def not_found(what: str) -> ApiError:
    """An object of a service that is not there."""
    return ApiError(404, f"The requested object ({what}) does not exist", **{"class": "Client::NotFound"})


def refused(status: int, code: str, message: str) -> ApiError:
    """A refusal with an error code."""
    return ApiError(status, message, errorCode=code, httpCode={400: "400 Bad Request", 403: "403 Forbidden"}[status])


def not_in_enumeration(name: str, value: t.Any, enumeration: str) -> ApiError:
    """A value that the schema has not."""
    return ApiError(400, f"[{name}] Given data ({value}) does not belong to the {enumeration} enumeration",
                    **{"class": "Client::BadRequest"})  # modelled


def check_fields(changes: t.Mapping[str, t.Any], writable: t.Mapping[str, tuple[type, ...]]) -> None:
    """Refuse a PUT with a field that cannot be written, or a value of the wrong type."""
    for name, value in changes.items():
        kinds = writable.get(name)
        if kinds is None:  # modelled
            raise ApiError(400, f"[{name}] This field is read-only or unknown", **{"class": "Client::BadRequest"})
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise refused(400, "INVALID_SIGNATURE", "Invalid signature")


# kind of fault → the answer. 409, 429 and 460 are modelled.
ANSWERS: dict[str, Callable[[], ApiError]] = {
    "403": lambda: refused(403, "NOT_GRANTED_CALL", "This call has not been granted"),
    "403-plain": lambda: ApiError(403, "Forbidden"),
    "iam": lambda: ApiError(403, "User not authorized for this action", **{"class": "Client::Forbidden"},
                            details={"unauthorizedActionsByIAM": "dedicatedServer:apiovh:put"}),
    "400": lambda: ApiError(400, "[netbootMode] Given data is not valid", **{"class": "Client::BadRequest"}),
    "401": lambda: ApiError(401, "You must login first", **{"class": "Client::Unauthorized"}),
    "forbidden": lambda: refused(403, "FORBIDDEN", "This is forbidden"),
    "invalid-key": lambda: refused(403, "INVALID_KEY", "This application key is invalid"),
    "invalid-signature": lambda: refused(400, "INVALID_SIGNATURE", "Invalid signature"),
    "not-credential": lambda: refused(403, "NOT_CREDENTIAL", "This credential does not exist"),
    "invalid-credential": lambda: refused(403, "INVALID_CREDENTIAL", "This credential is not valid"),
    "404": lambda: ApiError(404, "This service does not exist", **{"class": "Client::NotFound"}),
    "409": lambda: ApiError(409, "An operation is already running on this server", **{"class": "Client::Conflict"}),
    "429": lambda: ApiError(429, "Too many requests", **{"class": "Client::TooManyRequests"}),
    "460": lambda: ApiError(460, "This service is expired", **{"class": "Client::Expired"}),
    "500": lambda: ApiError(500, "Internal server error", **{"class": "Server::InternalServerError"}),
}
# The same for what no ApiError is: a status, and a body as it is.
BODIES: dict[str, tuple[int, bytes]] = {"403-string": (403, b'"Forbidden"'), "empty": (200, b"")}
HTML_503 = b"<html><head><title>503</title></head><body><h1>503 Service Unavailable</h1></body></html>"


class Request(t.NamedTuple):
    method: str
    target: str  # as it stood in the request line
    headers: Message
    body: bytes
    faults: Sequence[Fault] = ()  # that strike it

    @property
    def path(self) -> str:
        """The path without its version, with its query; empty where the version is none of ours."""
        found = re.match(r"/(?:1\.0|v1)(/.*)", self.target)
        return found[1] if found else ""

    @property
    def query(self) -> dict[str, str]:
        return {name: values[-1] for name, values in parse_qs(urlsplit(self.target).query).items()}

    def data(self) -> dict[str, t.Any]:
        """The JSON object in the body. The real API calls a body that it cannot read a wrong signature."""
        try:
            data = json.loads(self.body or b"{}")
        except ValueError:
            data = None
        if not isinstance(data, dict):
            raise refused(400, "INVALID_SIGNATURE", "Invalid signature")
        return data


class Route(t.NamedTuple):
    """One call of the API. path: a regular expression, whose groups handler takes after the request.

    signed: whether it is for signed calls only.
    """

    method: str
    path: str
    handler: Callable[..., t.Any]
    signed: bool = True
