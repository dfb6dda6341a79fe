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
"""Headers of all requests and responses, of the API and of its health check."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_OF_ALL = (
    # A response is valid only now, and only for its client.
    ("Cache-Control", "no-store"),
    # A browser must not interpret JSON as a script or a page.
    ("X-Content-Type-Options", "nosniff"),
)
# Each proxy appends its own value; the first is the client's.
_LISTS = tuple(f"HTTP_X_FORWARDED_{name}" for name in ("PROTO", "HOST", "FOR", "PREFIX"))
_SCHEME, _SCHEMES = "HTTP_X_FORWARDED_PROTO", ("http", "https")
_NAMES = frozenset(name.lower() for name, _ in _OF_ALL)


def on_all_answers(application: WSGIApplication) -> WSGIApplication:
    """Return the application with these headers on each response."""

    def wrapped(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            kept = [(name, value) for name, value in headers if name.lower() not in _NAMES]
            return start_response(status, [*kept, *_OF_ALL], *exc_info)

        return application(environ, start)

    return wrapped


def first_of_forwarded(application: WSGIApplication) -> WSGIApplication:
    """Return the application with only the first value of forwarded headers."""

    def wrapped(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        for name in _LISTS:
            if name in environ:
                environ[name] = environ[name].partition(",")[0].strip()
        if environ.get(_SCHEME, "").lower() not in _SCHEMES:
            environ.pop(_SCHEME, None)
        return application(environ, start_response)

    return wrapped
