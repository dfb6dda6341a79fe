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

"""How many SQL statements a request of the API takes, and a call of a conductor's."""

from __future__ import annotations

from collections.abc import Callable
import itertools
import time
from typing import Any
import uuid

import falcon.testing
from oslo_config import cfg

from kongming.allocation.statuses import Status
from kongming.api.application import make_application
from kongming.conductor.claims import HostClaims
from kongming.conductor.delivery import Delivery
from kongming.conductor.endpoint import Endpoint
from kongming.conductor.notifications import Notifications
from kongming.conductor.pusher import Pusher
from kongming.conf.api import NOAUTH
from kongming.db.allocations import Allocations
from kongming.db.database import Database
from kongming.db.hosts import Hosts
from kongming.db.leases import Leases
from kongming.db.values import Location
from kongming.nova.polling import PollIntervals
from kongming.rpc.messages import Changed, Exchange, ExecutorInfo, Report, Reports

ABOUT = ExecutorInfo("1.0", 1e9, 60.0)


class Silence:
    """The side of the bus on which nobody is."""

    def changed(self, instance_uuids: object) -> None:
        """Accept what the API sends to conductors."""

    def push(self, host: str, instances: object) -> None:
        """Accept what conductors send to executors."""


class Statements:
    """The API and a conductor in this process, on a database whose statements are counted.

    :param conf: whose ``[database]`` is used; it has its tables.
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        conf.set_override("auth_strategy", NOAUTH, group="api")
        silence: Any = Silence()
        self._database = Database(conf)
        self._hosts = Hosts(self._database)
        self._allocations = Allocations(self._database)
        app: Any = make_application(conf, self._database, silence)
        # Falcon's client needs a function.
        self._http = falcon.testing.TestClient(lambda environ, answer: app(environ, answer))
        pusher = Pusher(self._allocations, self._hosts, silence)
        delivery = Delivery(
            "statements",
            self._allocations,
            Leases(self._database),
            pusher,
            None,
            PollIntervals(60.0, 60.0),
            Notifications(None),
            self._hosts,
        )
        claims = HostClaims(self._allocations, self._hosts)
        self._conductor = Endpoint(
            self._allocations, self._hosts, silence, delivery, claims, Notifications(None)
        )
        self._number = itertools.count(1)

    def close(self) -> None:
        """Close the connections."""
        self._database.close()

    def of_map(self, instances: int) -> dict[str, int]:
        """Count what a map takes in its life, by what is done to it.

        Its instances are on one host, and nothing was requested for them before.
        """
        number = next(self._number)
        path, host = f"/v1/allocation-maps/map-{number}", f"host-of-{number}"
        uuids = [str(uuid.uuid4()) for _ in range(instances)]
        counted = {
            "PUT of a new map": self._request("PUT", path, _map(uuids, "0")),
            "PUT of the same map": self._request("PUT", path, _map(uuids, "0")),
        }
        # As Nova would report it.
        self._allocations.locate({known: Location("p", host) for known in uuids})
        self._exchange(host, [], {})
        changed = Changed(tuple(uuids))
        counted["changed: tell the host"] = self._count(lambda: self._conductor.changed(changed))
        counted["report: all applied"] = self._report(host, uuids, 1, "applied")
        counted["PUT of a map, all changed"] = self._request("PUT", path, _map(uuids, "1"))
        counted["report: all applied again"] = self._report(host, uuids, 2, "applied")
        known = dict.fromkeys(uuids, 2)
        counted["exchange, nothing new"] = self._exchange(host, uuids, known)
        counted["GET of a map"] = self._request("GET", path)
        listed = f"/v1/allocations?map=map-{number}&limit=1000"
        counted["GET of its allocations"] = self._request("GET", listed)
        counted["DELETE of a map"] = self._request("DELETE", path)
        counted["report: all released"] = self._report(host, uuids, 3, "released")
        return counted

    def of_one(self) -> dict[str, int]:
        """Count what a single allocation takes, and the hosts, however many there are."""
        known, host = str(uuid.uuid4()), f"host-of-{next(self._number)}"
        path = f"/v1/allocations/{known}"
        counted = {"PUT of a new allocation": self._request("PUT", path, _allocation("0"))}
        self._allocations.locate({known: Location("p", host)})
        counted["exchange of a new host"] = self._exchange(host, [known], {})
        counted["PUT of a changed allocation"] = self._request("PUT", path, _allocation("1"))
        counted["changed: tell the host"] = self._count(
            lambda: self._conductor.changed(Changed((known,)))
        )
        counted["report: applied"] = self._report(host, [known], 2, "applied")
        counted["exchange, nothing new"] = self._exchange(host, [known], {known: 2})
        counted["GET of an allocation"] = self._request("GET", path)
        counted["GET of its history"] = self._request("GET", f"{path}/history")
        counted["GET of all hosts"] = self._request("GET", "/v1/hosts?limit=1000")
        counted["GET of a host"] = self._request("GET", f"/v1/hosts/{host}")
        counted["DELETE of an allocation"] = self._request("DELETE", path)
        counted["report: released"] = self._report(host, [known], 3, "released")
        return counted

    def add_hosts(self, number: int) -> None:
        """Have hosts seen until there are so many."""
        for _ in range(number - len(self._hosts.list(snapshots=False))):
            name = f"more-{next(self._number)}"
            self._hosts.heartbeat(
                name, started_at=1e9, version="1.0", interval_s=60.0, now=time.time()
            )

    def _request(self, method: str, path: str, body: Any = None) -> int:
        def send() -> None:
            result = self._http.simulate_request(
                method, path, json=body, host="localhost", remote_addr="127.0.0.1"
            )
            if not 200 <= result.status_code < 300:
                raise AssertionError(f"{method} {path}: {result.status}: {result.text[:500]}")

        return self._count(send)

    def _report(self, host: str, uuids: list[str], generation: int, status: str) -> int:
        reports = Reports(host, tuple(_report(known, generation, status) for known in uuids))
        return self._count(lambda: self._conductor.report(reports))

    def _exchange(self, host: str, guests: list[str], known: dict[str, int]) -> int:
        reports = tuple(_report(one, number, "applied") for one, number in known.items())
        exchange = Exchange(
            host, ABOUT, complete=True, guests=tuple(guests), known=known, reports=reports
        )
        return self._count(lambda: self._conductor.exchange(exchange))

    def _count(self, what: Callable[[], object]) -> int:
        before = self._database.statements
        what()
        return self._database.statements - before


def _allocation(cpus: str) -> dict[str, Any]:
    return {"allocation": {"vcpu_pinning": cpus}}


def _map(uuids: list[str], cpus: str) -> dict[str, Any]:
    return {"allocations": {known: {"vcpu_pinning": cpus} for known in uuids}}


def _report(instance_uuid: str, generation: int, status: str) -> Report:
    changed_at = 1e9 + generation
    return Report(instance_uuid, generation, Status(status), "", "", "", "", None, changed_at)
