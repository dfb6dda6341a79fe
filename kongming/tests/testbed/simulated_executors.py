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

"""Executors of many hosts in one process: all of their side of the bus, nothing of libvirt.

Each has a queue of its own and sends the same as a real one does, in the same
order, and all goes well that it is asked. They share a few threads and the
connections of these, and keep what they know in memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
import heapq
import itertools
import json
from pathlib import Path
import queue
import random
import sys
import threading
import time
from typing import Any
import uuid

import kombu

from kongming import exception
from kongming.allocation.statuses import Status
from kongming.cmd import launch
import kongming.cmd.backend  # noqa: F401  (chooses oslo.service's backend)
from kongming.rpc.bus import EXCHANGE, EXECUTOR
from kongming.rpc.client import ConductorClient
from kongming.rpc.messages import Desired, Exchange, ExecutorInfo, Push, Report
from kongming.tests.testbed.broker import kombu_url
from kongming.tests.testbed.process import Process, Service, wait_until

DIGEST = "0" * 64
START_TIMEOUT = 60
_RETRY_S = 1.0


class SimulatedExecutors(Service):
    """A process that is the executors of some hosts.

    :param guests: by host, the instances that run there.
    :param interval: seconds between two exchanges of a host; 0: it begins
        anew as soon as it has its answer; None: only the one at the start.
    :param threads: how many hosts may wait for a conductor at once.
    """

    def __init__(
        self,
        root: Path,
        *,
        transport_url: str,
        guests: dict[str, list[str]],
        interval: float | None = 60.0,
        threads: int = 16,
    ) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.hosts = len(guests)
        self._counted = root / "counted.json"
        self._counted.unlink(missing_ok=True)
        conf = root / "kongming.conf"
        conf.write_text(f"[DEFAULT]\ntransport_url = {transport_url}\nstate_path = {root}\n")
        job = {
            "conf": str(conf),
            "amqp": kombu_url(transport_url),
            "guests": guests,
            "interval": interval,
            "threads": threads,
            "counted": str(self._counted),
        }
        (root / "job.json").write_text(json.dumps(job))
        command = [sys.executable, "-m", __name__, str(root / "job.json")]
        self.process = Process(command, root / "simulated.log")

    def start(self) -> None:
        """Return when all hosts are listening; then they begin to ask."""
        self.process.start()
        self.process.wait_ready(self._counted.exists, START_TIMEOUT, "the executors listen")

    def counts(self) -> Counter[str]:
        """Count pushes taken, calls answered by name, calls that failed, and hosts that asked."""
        return Counter(json.loads(self._counted.read_text()))

    def wait_asked(self, timeout: float = 60) -> None:
        """Wait until each host has asked once, and was answered."""
        wait_until(lambda: self.counts()["asked"] >= self.hosts, timeout, "all hosts have asked")

    def _end(self) -> None:
        self.process.terminate()


class _Host:
    """What one executor knows; only one thread at a time works for a host."""

    def __init__(self, name: str, guests: list[str]) -> None:
        self.name = name
        self.guests = guests
        self.asked = False
        self._known: dict[str, tuple[int, bool]] = {}
        self.lock = threading.Lock()

    @property
    def known(self) -> dict[str, int]:
        return {uuid: generation for uuid, (generation, _) in self._known.items()}

    def reports(self) -> list[Report]:
        return [_report(uuid, *known) for uuid, known in self._known.items()]

    def take(self, instances: Mapping[str, Desired]) -> list[Report]:
        """Carry out requests, and return their reports."""
        news = []
        for instance_uuid, desired in instances.items():
            known = desired.generation, desired.allocation is None
            if known[0] > self._known.get(instance_uuid, (0, False))[0]:
                self._known[instance_uuid] = known
                news.append(_report(instance_uuid, *known))
        return news

    def let_go(self, instance_uuids: Iterable[str]) -> None:
        for instance_uuid in instance_uuids:
            self._known.pop(instance_uuid, None)

    def confirmed(self, reports: list[Report]) -> None:
        """Forget what a conductor knows to be released."""
        self.let_go(each.instance_uuid for each in reports if each.status == Status.RELEASED)


class _Executors:
    def __init__(self, job: dict[str, Any]) -> None:
        conf = launch.configure(["--config-file", job["conf"]])
        self._conductor = ConductorClient(conf)
        self._hosts = {name: _Host(name, guests) for name, guests in job["guests"].items()}
        self._interval = job["interval"]
        self._counted = Path(job["counted"])
        self._started_at = time.time()
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._work: queue.SimpleQueue[tuple[_Host, Mapping[str, Desired] | None]] = (
            queue.SimpleQueue()
        )
        self._due: list[tuple[float, int, _Host]] = []
        self._number = itertools.count()
        self._view = _view(max(map(len, job["guests"].values())))
        self._amqp = job["amqp"]
        self._threads = job["threads"]

    def run(self) -> None:
        listening = threading.Event()
        threading.Thread(target=self._listen, args=(listening,), daemon=True).start()
        listening.wait()
        for _ in range(self._threads):
            threading.Thread(target=self._run, daemon=True).start()
        for host in self._hosts.values():
            self._work.put((host, None))
        while True:
            self._tell()
            self._ask_if_due()
            time.sleep(0.02)

    def _listen(self, listening: threading.Event) -> None:
        topic = kombu.Exchange(EXCHANGE, type="topic")
        with kombu.Connection(self._amqp) as connection:
            channel = connection.channel()
            names = {f"{EXECUTOR.topic}.{host}": host for host in self._hosts}
            queues = [kombu.Queue(name, topic, name, exclusive=True) for name in names]
            for each in queues:
                consumer = kombu.Consumer(channel, [each], no_ack=True, accept=["json"])
                consumer.register_callback(self._callback(self._hosts[names[each.name]]))
                consumer.consume()
            listening.set()
            while True:
                connection.drain_events()

    def _callback(self, host: _Host) -> Any:
        def take(body: Any, _message: Any) -> None:
            push = json.loads(body["oslo.message"])
            self._count("pushes")
            self._work.put((host, Push.from_json(push["args"]).instances))

        return take

    def _run(self) -> None:
        while True:
            host, pushed = self._work.get()
            try:
                with host.lock:
                    if pushed is None:
                        self._exchange(host)
                    else:
                        self._report(host, host.take(pushed))
            except exception.ConductorUnresponsive as error:
                print(error, flush=True)
                self._count("failures")
                self._ask_later(host, _RETRY_S)

    def _exchange(self, host: _Host) -> None:
        reports = host.reports()
        answer = self._conductor.exchange(
            Exchange(
                host.name,
                ExecutorInfo("1.0", self._started_at, self._interval or 60.0),
                complete=True,
                guests=tuple(host.guests),
                known=host.known,
                reports=tuple(reports),
                digest=DIGEST,
            )
        )
        self._count("exchange")
        host.confirmed(reports)
        host.let_go(answer.elsewhere)
        if answer.send_snapshot:
            self._conductor.send_snapshot(host.name, self._view, DIGEST)
            self._count("snapshot")
        self._report(host, host.take(answer.desired))
        is_first, host.asked = not host.asked, True
        if is_first:
            self._count("asked")
        if self._interval is not None:
            # The first one at random, so that they don't come at once for ever.
            share = random.random() if is_first else 1.0
            self._ask_later(host, share * self._interval)

    def _report(self, host: _Host, reports: list[Report]) -> None:
        if reports:
            self._conductor.report(host.name, reports)
            self._count("report")
            host.confirmed(reports)

    def _ask_later(self, host: _Host, seconds: float) -> None:
        if not seconds:
            self._work.put((host, None))
            return
        with self._lock:
            heapq.heappush(self._due, (time.monotonic() + seconds, next(self._number), host))

    def _ask_if_due(self) -> None:
        with self._lock:
            while self._due and self._due[0][0] <= time.monotonic():
                self._work.put((heapq.heappop(self._due)[2], None))

    def _count(self, what: str) -> None:
        with self._lock:
            self._counts[what] += 1

    def _tell(self) -> None:
        with self._lock:
            text = json.dumps(self._counts)
        new = self._counted.with_suffix(".new")
        new.write_text(text)
        new.rename(self._counted)


def _report(instance_uuid: str, generation: int, released: bool) -> Report:
    # Always the same for the same: a report of it is no news.
    changed_at = 1e9 + generation
    if released:
        return Report.released(instance_uuid, generation, changed_at)
    return Report(instance_uuid, generation, Status.APPLIED, "", "", "api", "", None, changed_at)


def _view(guests: int) -> dict[str, Any]:
    """Make a view as long as that of a host with two nodes, 64 CPUs and some guests."""
    cpus = [{"id": cpu, "siblings": str(cpu), "online": True} for cpu in range(32)]
    pins = {str(vcpu): "0" for vcpu in range(8)}
    uuids = (str(uuid.UUID(int=number)) for number in range(guests))
    return {
        "cells": [{"id": cell, "cpus": cpus, "free_kib": 1} for cell in (0, 1)],
        "unassigned_cpus": [],
        "guests": [{"instance_uuid": each, "name": each, "pins": pins} for each in uuids],
        "rules": {},
        "violations": [],
    }


if __name__ == "__main__":
    _Executors(json.loads(Path(sys.argv[1]).read_text())).run()
