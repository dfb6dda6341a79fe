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

"""A client of Nova's API, as the service user: the servers and their hosts.

Nothing is concluded from a response that is not a proper answer: it is NovaUnavailable, or
NovaDenied.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
import time
from typing import Any

from keystoneauth1 import exceptions as keystone_exceptions
from keystoneauth1 import loading
from openstack import connection, exceptions
from oslo_config import cfg

from kongming import exception, version
from kongming.conf.nova import GROUP, register_auth_opts
from kongming.nova import server as servers
from kongming.nova.server import Server

# Nova's limit for one page.
_PAGE = 1000
_PAGES_MAX = 1000
_RETRY_AFTER_MAX_S = 600.0
_SHORT = 200

_POLICIES = (
    "os_compute_api:servers:detail:get_all_tenants and os_compute_api:servers:allow_all_filters"
)


class Nova:
    """Nova's API. Any thread may call any method, one at a time.

    :ivar requests: the number of requests, by outcome.
    :ivar listed_at: when servers were last listed, by Nova's clock, in seconds since the epoch:
        the next value of ``changes-since``.
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        """Read ``[nova]``; no request is sent yet.

        :raises ConfigInvalid: if the options can't be used.
        """
        self._conf = conf
        self._compute: Any = None
        self._date = 0.0
        self.listed_at = 0.0
        self.requests: Counter[str] = Counter()
        register_auth_opts(conf)
        try:
            auth = loading.load_auth_from_conf_options(conf, GROUP)
            self._session = loading.load_session_from_conf_options(conf, GROUP, auth=auth)
        except (keystone_exceptions.ClientException, cfg.Error) as error:
            raise exception.ConfigInvalid(f"[nova]: {error}") from error

    def server(self, instance_uuid: str, *, deleted: bool = False) -> Server | None:
        """Return one server; None if Nova has no such server, or has deleted it.

        :param deleted: whether to include a deleted server. Only then Nova shows a server that
            can still be restored to users that are not administrators.
        :raises NovaUnavailable: or NovaDenied.
        """
        always = {"changes-since": "1970-01-01T00:00:00Z"} if deleted else {}
        for found in self.servers(uuid=instance_uuid, **always):
            return found
        # Lists lack the servers of a cell that is down; a request for one server shows that.
        status, body = self._get(f"/servers/{instance_uuid}")
        if status == 200 and isinstance(body.get("server"), dict):
            return servers.read(body["server"])
        if status == 404 and "itemNotFound" in body:
            return None
        raise self._unusable(status, body)

    def servers(self, **filters: str) -> Iterator[Server]:
        """Yield the servers of all projects that match the filters, page by page.

        :param filters: ``host``, ``uuid``, ``changes-since``.
        :raises NovaUnavailable: or NovaDenied.
        """
        query = {"all_tenants": "1", "limit": str(_PAGE), **filters}
        for number in range(_PAGES_MAX):
            status, body = self._get("/servers/detail", query)
            if number == 0:
                self.listed_at = self._date
            rows = body.get("servers")
            if status != 200 or not isinstance(rows, list):
                raise self._unusable(status, body)
            page = [servers.read(row) for row in rows]
            self._check_filter(page, filters)
            yield from page
            if not page or not body.get("servers_links"):
                return
            if query.get("marker") == page[-1].instance_uuid:
                break
            query["marker"] = page[-1].instance_uuid
        raise exception.NovaUnavailable("the list of servers has no end")

    def _check_filter(self, page: list[Server], filters: dict[str, str]) -> None:
        """Raise an error if Nova ignored a filter, as it does if the user may not use it."""
        uuid = filters.get("uuid")
        if uuid and any(server.instance_uuid != uuid for server in page):
            self._deny()
        host = filters.get("host")
        for server in page if host else ():
            if server.host not in (None, host):
                if server.host.casefold() == str(host).casefold():
                    raise exception.NovaAmbiguous(
                        f"Nova has the servers of this host on {server.host}, but [DEFAULT] host "
                        f"is {host}: names are compared exactly, set the one of nova-compute"
                    )
                self._deny()

    def _deny(self) -> None:
        self.requests["denied"] += 1
        raise exception.NovaDenied(
            "Nova lists servers that do not match the filter: the service user may not use "
            f"filters; allow it {_POLICIES}"
        )

    def _get(self, path: str, query: dict[str, str] | None = None) -> tuple[int, dict[str, Any]]:
        try:
            response = self._adapter().get(path, params=query or {}, raise_exc=False)
        except (keystone_exceptions.ClientException, exceptions.SDKException) as error:
            raise self._unreachable(error) from error
        self._date = _moment(response.headers.get("Date"), time.time())
        try:
            body = response.json()
        except ValueError:
            body = None
        if response.status_code in _HINTS or response.status_code >= 500:
            known = body if isinstance(body, dict) else {}
            raise self._unusable(response.status_code, known, self._pause(response.headers))
        if not isinstance(body, dict):
            self.requests["garbage"] += 1
            raise exception.NovaUnavailable(
                f"Nova's answer (HTTP {response.status_code}) can't be read: does the endpoint "
                "lead to Nova?"
            )
        self.requests["answered"] += 1
        return response.status_code, body

    def _adapter(self) -> Any:
        if self._compute is None:
            compute = connection.Connection(
                session=self._session,
                oslo_conf=self._conf,
                service_types=["compute"],
                app_name="kongming",
                app_version=version.release(),
            ).compute
            self._check_catalog(compute)
            self._compute = compute
        return self._compute

    def _check_catalog(self, compute: Any) -> None:
        """Refuse to choose one of several regions."""
        if compute.region_name or compute.endpoint_override:
            return
        # Not every plugin of keystoneauth's has a catalogue.
        get_access = getattr(self._session.auth, "get_access", None)
        access: Any = None if get_access is None else get_access(self._session)
        if access is None or not access.has_service_catalog():
            return
        found = access.service_catalog.get_endpoints_data(
            "compute", interface=compute.interface, service_name=compute.service_name
        )
        endpoints = {
            str(each.url).rstrip("/"): str(each.region_name)
            for several in found.values()
            for each in several
        }
        if len(endpoints) > 1:
            named = ", ".join(f"{region} ({url})" for url, region in sorted(endpoints.items()))
            raise exception.NovaAmbiguous(
                f"the Keystone catalog has Nova in several regions: {_short(named)}; set [nova] "
                "region_name to the region of this host"
            )

    def _unreachable(self, error: Exception) -> exception.NovaUnavailable:
        """Return the error for an exception of keystoneauth or the SDK."""
        status = getattr(error, "http_status", None) or getattr(error, "status_code", None)
        if status in _HINTS or (status and status >= 500):
            response = getattr(error, "response", None)
            pause = self._pause(response.headers) if response is not None else 0.0
            return self._unusable(status, {}, pause, who=f"{error.__class__.__module__}: ")
        self.requests["unreachable"] += 1
        return exception.NovaUnavailable(f"{type(error).__name__}: {_short(error)}")

    def _unusable(
        self, status: int, body: dict[str, Any], retry_after: float = 0.0, who: str = ""
    ) -> exception.NovaUnavailable:
        """Return the error for an unusable response."""
        kind = exception.NovaDenied if status in _DENIED else exception.NovaUnavailable
        self.requests[_OUTCOMES.get(status, "failed")] += 1
        words = _words(body)
        reply = f"; Nova says: {words}" if words else ""
        return kind(f"{who}HTTP {status}{_HINTS.get(status, '')}{reply}", retry_after=retry_after)

    def _pause(self, headers: Mapping[str, str]) -> float:
        """Return the seconds of Retry-After, which may be a date; limited."""
        written = headers.get("Retry-After")
        if not written:
            return 0.0
        try:
            seconds = float(written)
        except ValueError:
            now = _moment(headers.get("Date"), time.time())
            seconds = _moment(written, now) - now
        return min(max(seconds, 0.0), _RETRY_AFTER_MAX_S)


_DENIED = frozenset({401, 403})
_OUTCOMES = {401: "denied", 403: "denied", 429: "rate_limited", 413: "rate_limited"}
_HINTS = {
    401: ": Keystone rejects the service user; check [nova] username, password, "
    "user_domain_name, project_name and project_domain_name, or the application credential",
    403: f": the service user is not allowed to do this; allow it {_POLICIES}",
    413: ": too many requests",
    429: ": too many requests",
}


def _moment(date: str | None, default: float) -> float:
    """Return the time of an HTTP date, or the default if it can't be read."""
    try:
        return parsedate_to_datetime(date or "").timestamp()
    except (ValueError, TypeError, OverflowError):
        return default


def _words(body: Mapping[str, Any]) -> str:
    """Return Nova's message in an error or a list of versions; empty if there is none."""
    for part in body.values():
        if isinstance(part, dict) and isinstance(part.get("message"), str):
            return _short(part["message"])
    choices = body.get("choices")
    if isinstance(choices, list):
        ids = [str(each.get("id")) for each in choices if isinstance(each, dict)]
        return _short(f"choose one of the versions {', '.join(ids)}")
    return _short(", ".join(sorted(body)))


def _short(what: object) -> str:
    """Return a foreign text on one line, short and printable."""
    text = " ".join(str(what).split())[:_SHORT]
    return "".join(each if each.isprintable() else "?" for each in text)
