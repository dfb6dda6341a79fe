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

"""The stand-alone trigger under load: API, conductors, one RabbitMQ, one MariaDB.

The executors are simulated: their side of the bus is real, their guests are not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
import http.client
import json
import os
from pathlib import Path
import sys
import time
from typing import Any
import uuid

from bench_bed import Bed, Row, cpu_time, pss
import bench_floor
import pymysql
from sqlalchemy.engine import make_url

from kongming.tests import databases
from kongming.tests.statements import Statements
from kongming.tests.testbed.control_plane import ControlPlane
from kongming.tests.testbed.mariadb import MariaDB
from kongming.tests.testbed.nova_api import NovaApi
from kongming.tests.testbed.process import Process, free_port, wait_until
from kongming.tests.testbed.simulated_executors import SimulatedExecutors
from kongming.tests.testbed.tap import REPLY, Tap

CONDUCTORS = 2
GUESTS_A_HOST = 20
CLIENTS = 4
STEADY_S = 60
BUSY_S = 15
BUSY_HOSTS = 50
TIMEOUT = 300
_LOOK_S = 0.1


class Cloud:
    """Hosts with their guests, of which Nova knows two each: one for the map, one for itself."""

    def __init__(self, nova: NovaApi, hosts: int) -> None:
        self.names = [f"compute-{number}" for number in range(hosts)]
        self.of_map = [nova.add(name, {}) for name in self.names]
        self.single = [nova.add(name, {}) for name in self.names]

    def guests(self, hosts: int) -> dict[str, list[str]]:
        """Give the guests of the first hosts."""
        others = GUESTS_A_HOST - 2
        several = zip(self.names[:hosts], self.of_map, self.single, strict=False)
        return {
            name: [first, second, *(str(uuid.uuid4()) for _ in range(others))]
            for name, first, second in several
        }


def measure(bed: Bed, number: int) -> list[Row]:
    """Load the API with a map of so many instances on as many hosts."""
    sizes = [size for size in (1, 10, 100, 1000) if size <= number]
    with ExitStack() as stack:
        mariadb = stack.enter_context(MariaDB(bed.root / "mariadb"))
        nova = stack.enter_context(NovaApi())
        bed.broker.add_vhost("standalone")
        url = bed.broker.transport_url("standalone")
        cloud = Cloud(nova, number)
        rows = _statements(mariadb, sizes)
        floor = stack.enter_context(Floor(bed, mariadb))
        plane = ControlPlane(
            bed.root / "standalone",
            transport_url=url,
            connection=mariadb.create("kongming"),
            conductors=CONDUCTORS,
            options=nova.options(),
        )
        stack.enter_context(plane)
        for hosts in sizes[1:]:
            rows.append(_messages(bed, plane, url, cloud, hosts))
        rows += _load(bed, plane, url, cloud, floor)
        rows += _busy(bed, plane, url, cloud, floor)
    return rows


class Floor:
    """The least that could do the same: a WSGI application, servers of empty calls."""

    def __init__(self, bed: Bed, mariadb: MariaDB) -> None:
        self._bed = bed
        self._mariadb = mariadb
        self._stack = ExitStack()
        bed.broker.add_vhost("floor")
        self.url = bed.broker.transport_url("floor")
        self.servers: list[Process] = []

    def __enter__(self) -> Floor:
        address = make_url(self._mariadb.create("floor"))
        options = {
            "host": address.host,
            "port": address.port,
            "user": address.username,
            "password": address.password,
            "database": address.database,
        }
        with pymysql.connect(**options) as connection, connection.cursor() as cursor:
            cursor.execute(bench_floor.TABLE)
        self.port = free_port()
        gunicorn = [str(Path(sys.executable).parent / "gunicorn"), "--workers", "2"]
        gunicorn += ["--threads", "4", "--bind", f"127.0.0.1:{self.port}"]
        gunicorn += ["--pythonpath", str(Path(__file__).parent), "bench_floor:application"]
        process = Process(
            gunicorn,
            self._bed.root / "floor-api.log",
            {**os.environ, bench_floor.DATABASE: json.dumps(options)},
        )
        process.start()
        self._stack.callback(process.terminate)
        process.wait_ready(self._answers, 60, "the floor's API answers")
        for number in range(CONDUCTORS):
            out = self._bed.root / f"floor-{number}"
            running = self._bed.floor(bench_floor.__file__, "calls", self.url, out=out)
            self.servers.append(self._stack.enter_context(running))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _answers(self) -> bool:
        try:
            return _put(self.port, "/floor/one", {"allocation": {}})[0] == 200
        except OSError:
            return False


def _statements(mariadb: MariaDB, sizes: Sequence[int]) -> list[Row]:
    url = mariadb.create("statements")
    databases.database(url).close()
    counted = Statements(databases.configuration(url))
    rows = []
    # The first connection asks the server who it is.
    counted.of_one()
    for of_what, count in (("instances", counted.of_map), ("hosts", _of_hosts(counted))):
        found = [count(size) for size in sizes]
        told = " / ".join(map(str, sizes))
        for what in found[0]:
            numbers = [each[what] for each in found]
            rows.append(
                Row(
                    f"SQL statements, {told} {of_what}: {what}",
                    " / ".join(map(str, numbers)),
                    "",
                    "",
                    "constant",
                )
            )
    counted.close()
    return rows


def _of_hosts(counted: Statements) -> Callable[[int], dict[str, int]]:
    def count(hosts: int) -> dict[str, int]:
        counted.add_hosts(hosts)
        return counted.of_one()

    return count


def _messages(bed: Bed, plane: ControlPlane, url: str, cloud: Cloud, hosts: int) -> Row:
    """Count what one PUT sends: of one allocation, and of a map with one on each host."""
    executors = _executors(bed, url, cloud.guests(hosts), None)
    with executors:
        executors.wait_asked(TIMEOUT)
        found = []
        one_path = f"/v1/allocations/{cloud.single[0]}"
        map_path = f"/v1/allocation-maps/of-{hosts}"
        for path, body, instances in (
            (one_path, {"allocation": _asking(hosts)}, 1),
            (map_path, _map(cloud.of_map[:hosts], hosts), hosts),
        ):
            with Tap(url) as tap:
                assert _put(plane.api.port, path, body)[0] in (200, 201)
                sent = tap.wait_counts("report", instances, TIMEOUT)
            found.append(sent)
        plane.api.request("DELETE", map_path)
        wait_until(
            lambda: plane.api.request("GET", map_path).status == 404, TIMEOUT, "the map is gone"
        )
        one, of_map = found
    return Row(
        f"messages for one PUT, {hosts} hosts: one allocation; a map with one on each host",
        f"{sum(one.values())}; {of_map['changed']} + {_each(of_map, hosts)} for each host",
        "",
        "",
        "constant",
    )


def _each(sent: Counter[str], hosts: int) -> str:
    each = (sent["desired"] + sent["report"] + sent[REPLY]) / hosts
    if sum(sent.values()) != sent["changed"] + each * hosts:
        raise AssertionError(f"other messages than expected: {sent}")
    return f"{each:g}"


def _load(bed: Bed, plane: ControlPlane, url: str, cloud: Cloud, floor: Floor) -> list[Row]:
    number = len(cloud.names)
    guests = cloud.guests(number)
    with _executors(bed, floor.url, guests, None) as executors:
        empty_calls = _until_asked(executors)
    with _executors(bed, url, guests, float(STEADY_S)) as executors:
        started = _until_asked(executors)
        name = f"{number} executors start at once: until all have asked and told their view"
        floor_name = f"{number} empty calls"
        rows = [_seconds(f"{name} (floor: {floor_name})", started, empty_calls)]
        path = "/v1/allocation-maps/load"
        for what, cpus in (("new, Nova is asked", 0), ("all changed", 1)):
            body = _map(cloud.of_map, cpus)
            bare, _ = _timed(floor.port, path, body)
            taken, begin = _timed(plane.api.port, path, body)
            _wait_applied(plane, "load")
            applied = time.monotonic() - begin
            rows.append(_seconds(f"PUT of a map of {number} instances, {what}", taken, bare))
            name = f"the same, until all are applied (floor: PUT, and {floor_name})"
            rows.append(_seconds(name, applied, bare + empty_calls))
        begin = time.monotonic()
        told = plane.api.get(path)
        rows.append(
            Row(f"GET of that map, {number} allocations", _s(time.monotonic() - begin), "", "", "")
        )
        if told["counts"] != {"applied": number}:
            raise AssertionError(f"not all are applied: {told['counts']}")
        rows += _requests(plane, cloud, floor)
        rows += _steady(plane, executors, number)
    return rows


def _requests(plane: ControlPlane, cloud: Cloud, floor: Floor) -> list[Row]:
    rows = []
    for method in ("PUT", "GET"):
        ours, bare = (
            _rate(port, method, cloud.single[:1000]) for port in (plane.api.port, floor.port)
        )
        if method == "PUT":
            _wait_applied(plane, "")
        rows.append(
            Row(
                f"{method} of single allocations, {CLIENTS} clients",
                f"{ours:.0f}/s",
                f"{bare:.0f}/s",
                f"{bare / ours:.2f}",
                "",
            )
        )
    return rows


def _steady(plane: ControlPlane, executors: SimulatedExecutors, hosts: int) -> list[Row]:
    pids = [conductor.process.pid for conductor in plane.conductors]
    before, asked = [cpu_time(pid) for pid in pids], executors.counts()["exchange"]
    # Nothing but the exchanges happens in this time: that is what is measured.
    time.sleep(STEADY_S)
    used = [cpu_time(pid) - begin for pid, begin in zip(pids, before, strict=True)]
    exchanges = executors.counts()["exchange"] - asked
    name = f"{hosts} hosts that ask each {STEADY_S} s, CPU of both conductors ({exchanges} times)"
    memory = max(pss(pid) for pid in pids)
    return [
        Row(name, f"{100 * sum(used) / STEADY_S:.1f} % of a core", "", "", ""),
        Row("memory (PSS) of a conductor after that", f"{memory:.0f} MB", "", "", ""),
    ]


def _busy(bed: Bed, plane: ControlPlane, url: str, cloud: Cloud, floor: Floor) -> list[Row]:
    """Have executors ask one conductor as often as they get answers."""
    for conductor in plane.conductors[1:]:
        conductor.stop()
    for server in floor.servers[1:]:
        server.terminate()
    found = []
    several = ((url, plane.conductors[0].process.pid), (floor.url, floor.servers[0].pid))
    for where, pid in several:
        with _executors(bed, where, cloud.guests(BUSY_HOSTS), 0.0) as executors:
            executors.wait_asked(TIMEOUT)
            begin, used = time.monotonic(), cpu_time(pid)
            before = executors.counts()["exchange"]
            time.sleep(BUSY_S)
            exchanges = executors.counts()["exchange"] - before
            taken = time.monotonic() - begin
            found.append((exchanges / taken, 1000 * (cpu_time(pid) - used) / exchanges))
    (rate, cost), (bare_rate, bare_cost) = found
    return [
        Row(
            "exchanges that one conductor answers (floor: empty calls)",
            f"{rate:.0f}/s",
            f"{bare_rate:.0f}/s",
            f"{bare_rate / rate:.2f}",
            "",
        ),
        Row(
            "CPU time of the conductor for each",
            f"{cost:.2f} ms",
            f"{bare_cost:.2f} ms",
            f"{cost / bare_cost:.2f}",
            "",
        ),
    ]


def _executors(
    bed: Bed, url: str, guests: dict[str, list[str]], interval: float | None
) -> SimulatedExecutors:
    root = bed.root / "executors"
    return SimulatedExecutors(root, transport_url=url, guests=guests, interval=interval)


def _until_asked(executors: SimulatedExecutors) -> float:
    begin = time.monotonic()
    executors.wait_asked(TIMEOUT)
    return time.monotonic() - begin


def _wait_applied(plane: ControlPlane, name: str) -> None:
    """Wait until nothing is pending; asked seldom, so that it costs next to nothing."""
    query = f"/v1/allocations?status=pending&limit=1{name and f'&map={name}'}"
    deadline = time.monotonic() + TIMEOUT
    while plane.api.get(query)["allocations"]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"not all is applied after {TIMEOUT} s")
        time.sleep(_LOOK_S)


def _rate(port: int, method: str, uuids: Sequence[str]) -> float:
    """Send a request for each instance; give the requests in a second."""

    def send(part: Sequence[str]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
        for known in part:
            body = json.dumps({"allocation": _asking(0)}) if method == "PUT" else None
            connection.request(
                method,
                f"/v1/allocations/{known}",
                body,
                {"Content-Type": "application/json"},
            )
            response = connection.getresponse()
            text = response.read()
            if response.status not in (200, 201):
                raise AssertionError(text[:500])
        connection.close()

    begin = time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(send, [uuids[first::CLIENTS] for first in range(CLIENTS)]))
    return len(uuids) / (time.monotonic() - begin)


def _timed(port: int, path: str, body: Any) -> tuple[float, float]:
    begin = time.monotonic()
    status, text = _put(port, path, body)
    if status not in (200, 201):
        raise AssertionError(text[:500])
    return time.monotonic() - begin, begin


def _put(port: int, path: str, body: Any) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    connection.request("PUT", path, json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    answer = response.status, response.read()
    connection.close()
    return answer


def _asking(number: int) -> dict[str, Any]:
    return {"vcpu_pinning": str(number % 64)}


def _map(uuids: Sequence[str], number: int) -> dict[str, Any]:
    return {"allocations": {known: _asking(number) for known in uuids}}


def _seconds(what: str, ours: float, bare: float) -> Row:
    return Row(what, _s(ours), _s(bare), f"{ours / bare:.2f}", "")


def _s(seconds: float) -> str:
    return f"{seconds:.2f} s"
