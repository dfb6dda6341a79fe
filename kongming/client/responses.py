# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.
"""Faults of requests: the meaning of unusable or missing responses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
import math
import os
import queue
import socket
import ssl
import threading
from typing import Any, TypeVar
from urllib.parse import urlsplit

from keystoneauth1 import exceptions as keystone
from openstack import exceptions
from requests import exceptions as requests
from urllib3 import exceptions as urllib3

from kongming.runtime.escaping import escape

_PASSING = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)
_NEVER_CARRIED_OUT = frozenset({"identity_unavailable"})
_NO_URL = (requests.InvalidURL, requests.MissingSchema, requests.InvalidSchema)
#: Raised before any part of a request has left this machine.
_UNSENT = (
    urllib3.NewConnectionError,
    urllib3.ConnectTimeoutError,
    urllib3.ProxyError,
    urllib3.SSLError,
    socket.gaierror,
    ssl.SSLError,
    ConnectionRefusedError,
    *_NO_URL,
)
#: The ends of Keystone's paths for tokens.
_OF_KEYSTONE = ("/auth/tokens", "/tokens")
_TIMEOUTS = (TimeoutError, urllib3.TimeoutError, keystone.ConnectTimeout)

_T = TypeVar("_T")


class Fault(exceptions.HttpException):
    """A request failed, or its outcome is unknown.

    Its text is one line for people.

    :ivar status_code: the HTTP status; None if no response could be read.
    :ivar code: Kongming's reason code; empty if the response is not Kongming's.
    :ivar request_id: that of the API's log; None if unknown.
    :ivar sent: whether the API may have received the request.
    :ivar retry_after: the seconds after which the API expects a retry.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str = "",
        request_id: str | None = None,
        sent: bool = True,
        retry_after: float = 0.0,
    ) -> None:
        super().__init__(escape(message))
        self.status_code = status
        self.code = code
        self.request_id = request_id
        self.sent = sent
        self.retry_after = retry_after

    def __str__(self) -> str:
        return str(self.message)

    @property
    def passing(self) -> bool:
        """Whether a retry may succeed."""
        if self.status_code is None or not self.code:
            return True
        is_server_error = self.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
        return self.status_code in _PASSING or is_server_error

    @property
    def outcome_unknown(self) -> bool:
        """Whether the API may have accepted the change nevertheless."""
        if not self.sent or self.code in _NEVER_CARRIED_OUT:
            return False
        status = self.status_code
        refused = HTTPStatus.BAD_REQUEST, HTTPStatus.INTERNAL_SERVER_ERROR
        return status is None or not refused[0] <= status < refused[1]


class BadRequest(Fault, exceptions.BadRequestException):
    """The request is malformed, or what it requests is impossible."""


class Forbidden(Fault, exceptions.ForbiddenException):
    """The policy does not allow it to this user."""


class NotFound(Fault, exceptions.NotFoundException):
    """The allocation, map or host does not exist, or belongs to another project."""


class Conflict(Fault, exceptions.ConflictException):
    """The resource was changed meanwhile, or an instance belongs to another map."""


class OutcomeUnknown(Fault):
    """The answer to a change got lost, and whether it was accepted can't be found out."""


_KINDS: Mapping[int, type[Fault]] = {
    HTTPStatus.BAD_REQUEST: BadRequest,
    HTTPStatus.FORBIDDEN: Forbidden,
    HTTPStatus.NOT_FOUND: NotFound,
    HTTPStatus.CONFLICT: Conflict,
}


def of_answer(response: Any) -> Fault:
    """Map an unusable HTTP answer to a fault."""
    status = int(response.status_code)
    retry_after = _retry_after(response.headers.get("Retry-After"))
    try:
        errors = response.json()["errors"]
        # Further errors are further problems of the same body.
        detail = "; ".join(str(each["detail"]) for each in errors)
        code, request_id = str(errors[0]["code"]), errors[0].get("request_id")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return Fault(
            f"{response.url} responds with HTTP {status}{_phrase(status)}, not in the form of "
            "Kongming's API: it is a proxy or another service, or the address is wrong",
            status=status,
            retry_after=retry_after,
        )
    message = f"{code}: {detail}"
    if request_id and status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        message += f" ({request_id})"
    message += f" (HTTP {status})"
    kind = _KINDS.get(status, Fault)
    return kind(message, status=status, code=code, request_id=request_id, retry_after=retry_after)


def of_exception(error: keystone.ClientException, seconds: float) -> Fault:
    """Return the fault for an exception of keystoneauth.

    :param seconds: the time limit of the response.
    """
    causes = list(_causes(error))
    sent = not any(isinstance(cause, _UNSENT) for cause in causes)
    if isinstance(error, keystone.HttpError):
        # Only Keystone's responses are raised; those of the API are returned.
        status = int(error.http_status)
        return Fault(
            f"Keystone refuses to issue a token (HTTP {status}{_phrase(status)})"
            if status < HTTPStatus.INTERNAL_SERVER_ERROR
            else f"Keystone is unavailable (HTTP {status}{_phrase(status)})",
            status=status,
            sent=False,
        )
    if not any(isinstance(each, keystone.ConnectionError) for each in causes):
        return Fault(f"Keystone provides no token or no endpoint: {error}", sent=False)
    url = next((found for cause in causes if (found := _url(cause))), "")
    why = _why(causes, seconds)
    discovering = isinstance(error, keystone.DiscoveryFailure)
    if discovering or urlsplit(url).path.endswith(_OF_KEYSTONE):
        return Fault(f"Keystone can't be reached: {why}", sent=False)
    return Fault(f"Kongming's API can't be reached: {why}", sent=sent)


def timed_out(seconds: float, *, sent: bool = True) -> Fault:
    """Return the fault of an API that does not respond in time."""
    return Fault(f"Kongming's API can't be reached: no response within {seconds:.3g} s", sent=sent)


def bounded(call: Callable[[], _T], seconds: float) -> _T:
    """Return the result of a call with a time limit in total.

    The time-out of a socket is no such limit: a response may come byte by byte, and Keystone may
    have to issue a token first.

    :raises Fault: if it takes longer; the call continues in a background thread.
    """
    ended: queue.SimpleQueue[tuple[_T | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            ended.put((call(), None))
        except BaseException as error:  # noqa: BLE001, the waiting thread raises it
            ended.put((None, error))

    if seconds <= 0:
        raise timed_out(0, sent=False)
    threading.Thread(target=run, name="request", daemon=True).start()
    try:
        result, error = ended.get(timeout=seconds)
    except queue.Empty:
        raise timed_out(seconds) from None
    if error is not None:
        raise error
    return result  # type: ignore[return-value]


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception, its causes, and the exceptions that libraries nest in it."""
    left, seen = [error], set()
    while left:
        each = left.pop()
        if not isinstance(each, BaseException) or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        inside = (getattr(each, name, None) for name in ("reason", "original"))
        left += [each.__cause__, each.__context__, *inside, *each.args]


def _url(cause: BaseException) -> str:
    """Return the URL of the request; empty if unknown."""
    return str(getattr(getattr(cause, "request", None), "url", None) or "")


def _why(causes: list[BaseException], seconds: float) -> str:
    """Return why there is no response."""
    for cause in causes:
        if isinstance(cause, _NO_URL):
            return "its address, or one that it redirects to, is neither http nor https"
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted ({cause.verify_message})"
        if isinstance(cause, ssl.SSLError):
            return "its port does not support the TLS of this client"
        if isinstance(cause, socket.gaierror):
            return "its name can't be resolved"
    for cause in causes:
        if isinstance(cause, OSError) and cause.errno:
            return os.strerror(cause.errno).lower()
    if any(isinstance(cause, _TIMEOUTS) for cause in causes):
        return f"no response within {seconds:.3g} s"
    return "the response was cut off, or is not HTTP"


def _phrase(status: int) -> str:
    try:
        return f" {HTTPStatus(status).phrase}"
    except ValueError:
        return ""


def _retry_after(written: str | None) -> float:
    """Read a header Retry-After, seconds or a date; 0 if there is none."""
    try:
        seconds = float(written or 0)
    except ValueError:
        try:
            moment = parsedate_to_datetime(written or "")
        except ValueError:
            return 0.0
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        seconds = (moment - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0
