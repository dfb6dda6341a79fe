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

"""Errors of the API: each is JSON with a stable code."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
import json
import logging
from typing import Any, ClassVar

import falcon

from kongming import exception
from kongming.runtime.escaping import escape

LOG = logging.getLogger(__name__)

REQUEST_ID = "openstack.request_id"
CONTENT_TYPE = "application/json"


class ApiError(exception.KongmingError):
    """An error that only the API has.

    :ivar status: the HTTP status.
    """

    status: ClassVar[int] = 400


class Unauthenticated(ApiError):
    """The request has no valid token."""

    reason = "unauthenticated"
    status = 401


class Forbidden(ApiError):
    """The client is not allowed to do this."""

    reason = "forbidden"
    status = 403


class NotLocal(ApiError):
    """Without authentication, only requests from localhost are accepted."""

    reason = "not_local"
    status = 403


class IdentityUnavailable(ApiError):
    """Keystone is unavailable, so the token can't be validated."""

    reason = "identity_unavailable"
    status = 503


class VersionUnsupported(ApiError):
    """The microversion is not supported."""

    reason = "version_unsupported"
    status = 406


class PreconditionFailed(ApiError):
    """The resource has another generation than a header of the request requires."""

    reason = exception.GenerationConflict.reason
    status = 412


class LengthRequired(ApiError):
    """The WSGI server does not support chunked bodies."""

    reason = "length_required"
    status = 411


class BodyTooLarge(ApiError):
    """The body is too long."""

    reason = "body_too_large"
    status = 413


class BodyEncoded(ApiError):
    """The body is compressed."""

    reason = "body_encoded"
    status = 415


class BodyInvalid(exception.RequestInvalid):
    """The body has one problem or several.

    :ivar details: the problems, each in words.
    """

    def __init__(self, *details: str) -> None:
        super().__init__("; ".join(details))
        self.details = details


class ContentTypeUnsupported(ApiError):
    """The content type of the body is not JSON."""

    reason = "content_type_unsupported"
    status = 415


_STATUS: tuple[tuple[type[exception.KongmingError], int], ...] = (
    (exception.Refused, 400),
    (exception.Unknown, 404),
    (exception.Conflict, 409),
    (exception.DatabaseUnavailable, 503),
    (exception.ThreadsBusy, 503),
    (exception.Unresponsive, 503),
)
_FALCON_CODES = {404: "path_unknown", 405: "method_not_allowed"}
_INTERNAL = "internal_error"


def status_of(error: exception.KongmingError) -> int:
    """Return the HTTP status of an error."""
    if isinstance(error, ApiError):
        return error.status
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def document(
    status: int, code: str, details: Iterable[str], request_id: str
) -> dict[str, list[dict[str, Any]]]:
    """Return the body of an error response, with an error for each detail."""
    title = HTTPStatus(status).phrase
    return {
        "errors": [
            {
                "status": status,
                "code": code,
                "title": title,
                "detail": escape(detail),
                "request_id": request_id,
            }
            for detail in details
        ]
    }


def write(value: object) -> bytes:
    """Return JSON in ASCII, which a client's text can't break."""
    return json.dumps(value).encode("ascii")


def install(app: falcon.App[Any, Any]) -> None:
    """Make a falcon application respond with this form for all errors."""
    app.add_error_handler(Exception, _on_fault)
    app.add_error_handler(exception.KongmingError, _on_kongming_error)
    app.add_error_handler(exception.DatabaseFault, _on_fault)
    app.add_error_handler(falcon.HTTPError, _on_http_error)


def _respond(
    req: falcon.Request, resp: falcon.Response, status: int, code: str, *details: str
) -> None:
    resp.status = status
    resp.content_type = CONTENT_TYPE
    resp.data = write(document(status, code, details, req.env.get(REQUEST_ID, "")))


def _on_kongming_error(
    req: falcon.Request, resp: falcon.Response, error: exception.KongmingError, _params: object
) -> None:
    status = status_of(error)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        LOG.error("%s %s: %s", req.method, req.path, error)
    if isinstance(error, exception.ThreadsBusy):
        resp.set_header("Retry-After", "1")
    details = error.details if isinstance(error, BodyInvalid) else [error.for_clients]
    _respond(req, resp, status, error.reason, *details)


def _on_http_error(
    req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError, _params: object
) -> None:
    status = error.status_code
    detail = (
        {
            404: "no such path; GET /openapi.json lists all paths",
            405: f"{req.method} is not allowed on this path; the header Allow lists what is",
        }.get(status)
        or error.description
        or error.title
        or "the request can't be read"
    )
    resp.set_headers(error.headers or {})
    code = _INTERNAL if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "request_invalid"
    _respond(req, resp, status, _FALCON_CODES.get(status, code), detail)


def _on_fault(
    req: falcon.Request, resp: falcon.Response, error: Exception, _params: object
) -> None:
    request_id = req.env.get(REQUEST_ID, "")
    LOG.error("%s %s failed (%s)", req.method, req.path, request_id, exc_info=error)
    detail = (
        "this is a fault of Kongming, not of the request: please report it; the API's log has "
        f"the details of {request_id}"
    )
    _respond(req, resp, 500, _INTERNAL, detail)
