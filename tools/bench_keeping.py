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

"""Benchmarks of keeping guests placed, each against the least that could do the same.

A floor is this file, run in a process of its own with ``--floor``, or a bare
loop around libvirt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
import statistics
import sys
import threading
import time
from typing import Any
import uuid

from bench_bed import HOST, KEY, Bed, Row, cpu_time
import libvirt

from kongming.hypervisor.connection import run_event_loop
from kongming.tests.testbed import threads
from kongming.tests.testbed.daemon import Daemon
from kongming.tests.testbed.guest import destroy, start_guest
from kongming.tests.testbed.nova import Nova
from kongming.tests.testbed.process import wait_until

ROUNDS = 5
SECONDS = 20
STARTS = 100
CORRECTED = 25
# Fewer than the corrections after which a guest is left alone.
REPINS = 4


def measure(bed: Bed, number: int) -> list[Row]:
    """All of them, with so many guests."""
    connection: Any = libvirt.open(bed.libvirtd.uri)
    first, last = min(threads.online_cpus()), max(threads.online_cpus())
    guests = [str(uuid.uuid4()) for _ in range(number)]
    for known in guests:
        start_guest(connection, f"bench-{known[:8]}", uuid=known, vcpus=1)
    nova = Nova(bed.broker.transport_url(), exchange="keeping")
    daemon = bed.daemon("keeping", "keeping", "[executor]\ncheck_interval = 0\n")
    with _running(daemon):
        for known in guests:
            nova.publish(known, HOST, {KEY: str(last)}, "instance.update")
        _await_placed(guests, last)
    rows = replaced(daemon, connection, guests, first, last)
    rows += checked(daemon, number)
    with _running(daemon):
        rows += corrected(bed, connection, guests[:CORRECTED], first, last)
        rows += restarted(bed, connection, guests[0], last)
    return rows


def replaced(
    daemon: Daemon, connection: Any, guests: Sequence[str], first: int, last: int
) -> list[Row]:
    """All guests were pinned elsewhere while the service was down.

    The floor does what nobody can do without: for each guest look it up, read
    its definition, pin, and read the threads' affinity back.
    """
    ours, floor = [], []
    for _ in range(ROUNDS):
        _pin_all(connection, guests, first)
        before = len(daemon.log())
        with _running(daemon):
            wait_until(partial(_all_corrected, daemon, before, len(guests)), 60, "all corrected")
            _await_placed(guests, last)
        lines = daemon.log()[before:].splitlines()
        begin = next(line for line in lines if "Checking all" in line)
        end = [line for line in lines if "; corrected" in line][-1]
        ours.append(_logged_at(end) - _logged_at(begin))
        _pin_all(connection, guests, first)
        begun = time.monotonic()
        for known in guests:
            domain = connection.lookupByUUIDString(known)
            domain.XMLDesc()
            domain.pinVcpu(0, _map(last))
            domain.vcpus()
        floor.append(time.monotonic() - begun)
    ratios = [one / other for one, other in zip(ours, floor, strict=True)]
    return [
        Row(
            f"{len(guests)} guests placed again after the start, median of {ROUNDS}",
            f"{1000 * statistics.median(ours):.0f} ms",
            f"{1000 * statistics.median(floor):.0f} ms",
            f"{statistics.median(ratios):.2f}",
            "≤ 1.5",
        )
    ]


@contextmanager
def _running(daemon: Daemon) -> Iterator[None]:
    """Run it for a while: it can be run again afterwards."""
    daemon.start()
    try:
        yield
    finally:
        daemon.stop()


def _all_corrected(daemon: Daemon, seen: int, number: int) -> bool:
    # Looking takes CPU time from what is looked at; its log has the times.
    time.sleep(0.25)
    return daemon.log()[seen:].count("; corrected") == number


def checked(daemon: Daemon, number: int) -> list[Row]:
    """CPU time with a check each second, less that without any.

    The service looks at the time twice a second, so that a check may come
    half a second late: fewer are counted than there may have been.
    """
    spent = []
    text = daemon.conf.read_text()
    for interval in (0, 1):
        daemon.conf.write_text(text.replace("check_interval = 0", f"check_interval = {interval}"))
        with _running(daemon):
            pid = daemon.process.pid
            before = cpu_time(pid)
            # Nothing else happens in this time: that is what is measured.
            time.sleep(SECONDS)
            spent.append(cpu_time(pid) - before)
    daemon.conf.write_text(text)
    each = (spent[1] - spent[0]) / (SECONDS / 1.5)
    share = 100 * each / 60
    what = f"periodic check of {number} placed guests"
    return [
        Row(f"{what}, CPU time", f"{1000 * each:.0f} ms", "", "", ""),
        Row(f"{what}, at each 60 s", f"{share:.2f} % of a core", "", "", "≤ 0.5 %"),
    ]


def corrected(
    bed: Bed, connection: Any, guests: Sequence[str], first: int, last: int
) -> list[Row]:
    """From somebody's pin to its correction, as libvirt reports it to all."""
    arrivals = _Arrivals(connection)
    bare = [str(uuid.uuid4()) for _ in guests]
    for known in bare:
        start_guest(connection, f"bench-{known[:8]}", uuid=known, vcpus=1)
    taken: dict[str, list[float]] = {"ours": [], "bare": []}
    with bed.floor(
        __file__, "correct", bed.libvirtd.uri, str(last), *bare, out=bed.root / "correct"
    ):
        _await_placed(bare, last)
        for _ in range(REPINS):
            for pair in zip(guests, bare, strict=True):
                for kind, known in zip(taken, pair, strict=True):
                    domain = connection.lookupByUUIDString(known)
                    seen = arrivals.expect(known, last)
                    begun = time.monotonic()
                    domain.pinVcpu(0, _map(first))
                    taken[kind].append(seen() - begun)
                    _await_placed([known], last)
    arrivals.close()
    return _rows("foreign pin → corrected", taken)


def restarted(bed: Bed, connection: Any, ours: str, last: int) -> list[Row]:
    """From libvirt's report of a start to its report of the pin."""
    arrivals = _Arrivals(connection)
    bare = str(uuid.uuid4())
    taken: dict[str, list[float]] = {"ours": [], "bare": []}
    with bed.floor(__file__, "start", bed.libvirtd.uri, str(last), bare, out=bed.root / "restart"):
        for _ in range(STARTS):
            for kind, known in zip(taken, (ours, bare), strict=True):
                _destroy(connection, known)
                seen = arrivals.expect(known, last)
                start_guest(connection, f"bench-{known[:8]}", uuid=known, vcpus=1)
                pinned = seen()
                taken[kind].append(pinned - arrivals.started[known])
                _await_placed([known], last)
    arrivals.close()
    return _rows("guest started → placed", taken)


class _Arrivals:
    """When libvirt's reports come in here: the same for all that are measured."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.started: dict[str, float] = {}
        self._pinned: dict[tuple[str, str], threading.Event] = {}
        self._at: dict[tuple[str, str], float] = {}
        self._callbacks = [
            connection.domainEventRegisterAny(None, event, callback, None)
            for event, callback in (
                (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._lifecycle),
                (libvirt.VIR_DOMAIN_EVENT_ID_TUNABLE, self._tuned),
            )
        ]

    def expect(self, known: str, cpu: int) -> Callable[[], float]:
        """Give what waits for a guest's pin and says when it came."""
        key = (known, str(cpu))
        event = self._pinned[key] = threading.Event()

        def seen() -> float:
            if not event.wait(60):
                raise TimeoutError(f"guest {known} was never pinned to {cpu}")
            return self._at[key]

        return seen

    def close(self) -> None:
        for callback in self._callbacks:
            self._connection.domainEventDeregisterAny(callback)

    def _lifecycle(self, _c: Any, domain: Any, event: int, _detail: int, _o: object) -> None:
        if event == libvirt.VIR_DOMAIN_EVENT_STARTED:
            self.started[domain.UUIDString()] = time.monotonic()

    def _tuned(self, _c: Any, domain: Any, changes: dict[str, Any], _o: object) -> None:
        key = (domain.UUIDString(), str(changes.get("cputune.vcpupin0")))
        if key in self._pinned and not self._pinned[key].is_set():
            self._at[key] = time.monotonic()
            self._pinned[key].set()


def _rows(what: str, taken: dict[str, list[float]]) -> list[Row]:
    ours, floor = (sorted(1000 * value for value in taken[kind]) for kind in ("ours", "bare"))

    def row(name: str, value: Callable[[list[float]], float]) -> Row:
        one, other = value(ours), value(floor)
        ratio = f"{one / other:.2f}"
        return Row(f"{what}, {name} of {len(ours)}", f"{one:.1f} ms", f"{other:.1f} ms", ratio, "")

    return [
        row("median", statistics.median),
        row("99th percentile", lambda values: values[int(0.99 * len(values))]),
    ]


def _await_placed(guests: Sequence[str], cpu: int) -> None:
    for known in guests:
        wait_until(partial(_is_placed, known, cpu), 60, f"guest {known} is placed")


def _is_placed(known: str, cpu: int) -> bool:
    return set(threads.vcpu_affinity(known).values()) == {frozenset([cpu])}


def _pin_all(connection: Any, guests: Sequence[str], cpu: int) -> None:
    for known in guests:
        connection.lookupByUUIDString(known).pinVcpu(0, _map(cpu))


def _destroy(connection: Any, known: str) -> None:
    for domain in connection.listAllDomains():
        if domain.UUIDString() == known:
            destroy(domain)


def _map(cpu: int) -> tuple[bool, ...]:
    return tuple(number == cpu for number in range(max(threads.online_cpus()) + 1))


def _logged_at(line: str) -> float:
    return datetime.fromisoformat(" ".join(line.split()[:2])).timestamp()


def run_floor(kind: str, uri: str, cpu: str, *rest: str) -> None:
    """Be a floor: pin at once when libvirt reports a start, or another pin."""
    *guests, out = rest
    run_event_loop()
    connection: Any = libvirt.open(uri)
    wanted = _map(int(cpu))

    def started(_c: Any, domain: Any, event: int, _detail: int, _o: object) -> None:
        if event == libvirt.VIR_DOMAIN_EVENT_STARTED and domain.UUIDString() in guests:
            todo.append(domain)
            there.release()

    def tuned(_c: Any, domain: Any, changes: dict[str, Any], _o: object) -> None:
        if domain.UUIDString() in guests and changes.get("cputune.vcpupin0") != cpu:
            todo.append(domain)
            there.release()

    # An event's callback may not call libvirt itself.
    todo: list[Any] = []
    there = threading.Semaphore(0)
    if kind == "start":
        lifecycle = libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE
        connection.domainEventRegisterAny(None, lifecycle, started, None)
    else:
        _pin_all(connection, guests, int(cpu))
        tunable = libvirt.VIR_DOMAIN_EVENT_ID_TUNABLE
        connection.domainEventRegisterAny(None, tunable, tuned, None)
    Path(out).touch()
    while True:
        there.acquire()
        domain = todo.pop(0)
        domain.pinVcpu(0, wanted)
        domain.vcpus()


if __name__ == "__main__":
    run_floor(*sys.argv[2:])
