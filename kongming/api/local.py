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
"""The check that a request comes from localhost, for an API without Keystone.

A browser on this machine sends the requests of any web page from a loopback address. Such a page
may have pointed its own name at this machine (DNS rebinding). So the requested name is checked,
too, and the origin of the page.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from kongming.allocation.cpuset import shown
from kongming.api import errors

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_FORWARDED = ("HTTP_FORWARDED", "HTTP_X_FORWARDED_", "HTTP_X_REAL_IP", "HTTP_VIA")
_AUTHORITY = re.compile(
    r"(?P<name>localhost)(?::[0-9]*)?"
    r"|(?P<v4>127\.[0-9.]+)(?::[0-9]*)?"
    r"|\[(?P<v6>[0-9a-f:]+)\](?::[0-9]*)?",
    re.ASCII | re.IGNORECASE,
)
_ORIGIN = re.compile(r"https?://(?P<authority>.*)", re.IGNORECASE)
_PATH = re.compile(r"[/?#]")
_KNOWN = "localhost, 127.0.0.0/8 and [::1]"


def check(environ: WSGIEnvironment) -> None:
    """Accept only direct requests from localhost to localhost.

    :raises NotLocal: naming the header or address of any other request.
    """
    forwarded = any(name.startswith(_FORWARDED) for name in environ)
    if forwarded or not _is_loopback(environ.get("REMOTE_ADDR", "")):
        raise errors.NotLocal(
            "[api] auth_strategy is noauth: only direct requests from localhost are accepted, not "
            "through a proxy; set it to keystone to serve others"
        )
    for authority in _authorities(environ):
        if not _names_loopback(authority):
            raise errors.NotLocal(
                f"[api] auth_strategy is noauth: the header Host is {shown(authority)}, and only "
                f"{_KNOWN} are accepted; use one of these, or set it to keystone"
            )
    origin = environ.get("HTTP_ORIGIN")
    if origin is not None and not _is_local_page(origin):
        raise errors.NotLocal(
            f"[api] auth_strategy is noauth: the header Origin is {shown(origin)}, and only "
            f"{_KNOWN} are accepted; set it to keystone to serve others"
        )


def _authorities(environ: WSGIEnvironment) -> list[str]:
    """Return the requested hosts: of the header, and of a target that is a full URL."""
    # As gunicorn and uWSGI provide it. Servers that use it prefer it to the header.
    target = environ.get("RAW_URI") or environ.get("REQUEST_URI") or "/"
    named = [] if target.startswith(("/", "*")) else [_PATH.split(target.partition("://")[2])[0]]
    return [environ.get("HTTP_HOST", ""), *named]


def _names_loopback(authority: str) -> bool:
    found = _AUTHORITY.fullmatch(authority)
    if found is None:
        return False
    return bool(found["name"]) or _is_loopback(found["v4"] or found["v6"])


def _is_local_page(origin: str) -> bool:
    found = _ORIGIN.fullmatch(origin)
    return found is not None and _names_loopback(found["authority"])


def _is_loopback(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    # A server that listens to both protocols shows IPv4 addresses in this form.
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback
