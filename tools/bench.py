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

"""The benchmarks: ratios against a floor that is measured in the same run.

Called by tools/bench, which sets up what this needs. Each part is a function
that gives the rows of the table; a floor is this file, run in a process of
its own with ``--floor``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
import json
import os
from pathlib import Path
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any
import uuid

from bench_bed import HOST, KEY, Bed, Row, cpu_time, pss
import bench_keeping
import bench_nova
import bench_snapshot
import bench_standalone
import kombu
import libvirt
from oslo_config import cfg

from kongming.allocation.statuses import Status
import kongming.cmd.backend  # noqa: F401  (chooses oslo.service's backend)
from kongming.executor.store.store import Store
from kongming.hypervisor.connection import run_event_loop
from kongming.tests import captures
from kongming.tests.testbed import threads
from kongming.tests.testbed.broker import Broker
from kongming.tests.testbed.guest import start_guest
from kongming.tests.testbed.libvirtd import Libvirtd
from kongming.tests.testbed.nova import TOPIC, Nova
from kongming.tests.testbed.process import Process, wait_until

ROUTING_KEY = f"{TOPIC}.info"


def floor(bed: Bed, kind: str, exchange: str, out: Path) -> AbstractContextManager[Process]:
    """Run a floor of this file's."""
    addresses = (bed.broker.transport_url(), bed.libvirtd.uri)
    return bed.floor(__file__, kind, exchange, *addresses, out=out)


def latency(bed: Bed, events: int) -> list[Row]:
    """From publishing to the last vCPU seen pinned, the two in turn."""
    online = sorted(threads.online_cpus())
    connection: Any = libvirt.open(bed.libvirtd.uri)
    rows = []
    with ExitStack() as stack:
        daemon = stack.enter_context(bed.daemon("latency", "ours"))
        results = bed.root / "results"
        stack.enter_context(floor(bed, "pin", "bare", results))
        store = Store(daemon.state_path)
        url = bed.broker.transport_url()
        novas = {exchange: Nova(url, exchange=exchange) for exchange in ("ours", "bare")}
        for vcpus in (1, 4, 16):
            uuids = {exchange: str(uuid.uuid4()) for exchange in novas}
            for exchange, known in uuids.items():
                start_guest(connection, f"bench-{exchange}-{vcpus}", uuid=known, vcpus=vcpus)
            taken: dict[str, list[float]] = {exchange: [] for exchange in novas}
            for number in range(events + 10):
                cpu = online[number % len(online)]
                for exchange, nova in novas.items():
                    begin = time.time()
                    nova.publish(uuids[exchange], HOST, {KEY: str(cpu)}, "instance.update")
                    if exchange == "ours":
                        end = _applied(store, uuids[exchange], number + 1)
                    else:
                        end = _pinned(results, uuids[exchange], number + 1)
                    taken[exchange].append(end - begin)
                    _check(uuids[exchange], cpu)
            # The first ones warm up connections and caches.
            rows += _latency_rows(vcpus, *(_sorted(taken[x][10:]) for x in ("ours", "bare")))
        store.close()
    return rows


def _applied(store: Store, instance_uuid: str, generation: int) -> float:
    def applied() -> float | None:
        record = store.get(instance_uuid)
        done = record and (record.generation, record.status) == (generation, Status.APPLIED)
        return record.changed_at if record and done else None

    return wait_until(applied, 30, "the service applied it") or 0.0


def _pinned(results: Path, instance_uuid: str, number: int) -> float:
    def pinned() -> float | None:
        lines = [line for line in results.read_text().splitlines() if instance_uuid in line]
        return float(lines[number - 1].split()[1]) if len(lines) >= number else None

    return wait_until(pinned, 30, "the floor pinned it") or 0.0


def _check(instance_uuid: str, cpu: int) -> None:
    if set(threads.vcpu_affinity(instance_uuid).values()) != {frozenset([cpu])}:
        raise AssertionError("the threads do not run where they were asked to")


def _sorted(values: list[float]) -> list[float]:
    return sorted(1000 * value for value in values)


def _latency_rows(vcpus: int, ours: list[float], floor: list[float]) -> list[Row]:
    def row(name: str, value: Callable[[list[float]], float], goal: str) -> Row:
        return Row(
            f"event → pinned and seen, {vcpus} vCPU, {name} of {len(ours)}",
            f"{value(ours):.1f} ms",
            f"{value(floor):.1f} ms",
            f"{value(ours) / value(floor):.2f}",
            goal,
        )

    return [
        row("median", statistics.median, "≤ 1.5"),
        row("99th percentile", lambda values: values[int(0.99 * len(values))], ""),
    ]


def foreign(bed: Bed, events: int) -> list[Row]:
    """What an event of another host costs: CPU time of the whole process."""
    rounds = 3
    with ExitStack() as stack:
        daemon = stack.enter_context(bed.daemon("foreign", "cloud"))
        listening = bed.root / "listening"
        bare_one = stack.enter_context(floor(bed, "listen", "cloud", listening))
        costs: dict[int, list[float]] = {daemon.process.pid: [], bare_one.pid: []}
        for _ in range(rounds):
            before = {pid: cpu_time(pid) for pid in costs}
            _publish_foreign(bed, "cloud", events)
            for pid, cost in costs.items():
                cost.append((cpu_time(pid) - before[pid]) / events)
        ours, bare = (statistics.median(cost) * 1e6 for cost in costs.values())
    return [
        Row(
            f"foreign event, CPU time, median of {rounds} times {events}",
            f"{ours:.0f} µs",
            f"{bare:.0f} µs",
            f"{ours / bare:.2f}",
            "≤ 1.1",
        )
    ]


def memory(bed: Bed, events: int) -> list[Row]:
    """Memory over many foreign events, and what the service needs when idle."""
    with ExitStack() as stack:
        daemon = stack.enter_context(bed.daemon("memory", "busy"))
        bare_one = stack.enter_context(floor(bed, "listen", "busy", bed.root / "busy"))
        pids = (daemon.process.pid, bare_one.pid)
        samples = [[pss(pid) for pid in pids]]
        for _ in range(20):
            _publish_foreign(bed, "busy", events // 20)
            samples.append([pss(pid) for pid in pids])
        seconds = 60
        before = [cpu_time(pid) for pid in pids]
        # Nothing happens in this time: that is what is measured.
        time.sleep(seconds)
        spent = [cpu_time(pid) for pid in pids]
    idle = [100 * (end - begin) / seconds for begin, end in zip(before, spent, strict=True)]
    # Of the last half, its first and its last five samples.
    growth = [
        statistics.median(of[16:]) - statistics.median(of[11:16])
        for of in zip(*samples, strict=True)
    ]

    def row(what: str, values: Sequence[float], unit: str, goal: str) -> Row:
        ours, bare = values
        # What is next to nothing has no ratio worth the name.
        ratio = f"{ours / bare:.2f}" if bare > 1 else ""
        return Row(what, f"{ours:.2f} {unit}", f"{bare:.2f} {unit}", ratio, goal)

    return [
        row("memory (PSS) when ready", samples[0], "MB", ""),
        row(f"memory after {events} foreign events", samples[-1], "MB", "≤ 64 MB"),
        row("growth over their last half", growth, "MB", "none"),
        row(f"idle, CPU time over {seconds} s", idle, "% of a core", "≤ 0.3 %"),
    ]


def start(bed: Bed, times: int) -> list[Row]:
    """From the start of the process to READY; the floor only imports the libraries."""
    taken = []
    daemon = bed.daemon("start", "start")
    for _ in range(times):
        begin = time.monotonic()
        daemon.start_soon()
        while not daemon.is_ready():
            time.sleep(0.001)
        taken.append(time.monotonic() - begin)
        daemon.stop()
    imports = "import kongming.cmd.backend, oslo_messaging, oslo_log.log, libvirt, sqlite3"
    bare = []
    for _ in range(times):
        begin = time.monotonic()
        subprocess.run([sys.executable, "-c", imports], check=True, capture_output=True)
        bare.append(time.monotonic() - begin)
    ours, floor = statistics.median(taken), statistics.median(bare)
    name = f"start → READY, median of {times} (floor: importing the libraries)"
    return [Row(name, f"{ours:.2f} s", f"{floor:.2f} s", f"{ours / floor:.2f}", "≤ 3 s")]


def _publish_foreign(bed: Bed, exchange: str, events: int) -> None:
    """Publish events of another host and wait until all listeners have handled them."""
    message = captures.message("01-create", "instance.create.end")
    message["payload"]["nova_object.data"]["host"] = "elsewhere"
    with kombu.Connection(_amqp(bed.broker.transport_url())) as connection:
        producer = connection.Producer()
        for number in range(events):
            # oslo.messaging drops what it takes for the same message again.
            message["_unique_id"] = uuid.uuid4().hex
            body = {"oslo.version": "2.0", "oslo.message": json.dumps(message)}
            producer.publish(body, exchange=exchange, routing_key=ROUTING_KEY, serializer="json")
            if number % 500 == 499:
                _drain(bed, exchange, at_most=2000)
    _drain(bed, exchange, at_most=0)


def _drain(bed: Bed, exchange: str, at_most: int) -> None:
    """Wait until no queue of ours holds more than so many messages."""

    def drained() -> bool:
        with kombu.Connection(_amqp(bed.broker.transport_url())) as connection:
            channel = connection.channel()
            for name in (f"{exchange}.{HOST}", f"{exchange}.floor"):
                try:
                    _, ready, _ = channel.queue_declare(name, passive=True)
                except connection.channel_errors:
                    channel = connection.channel()
                    continue
                if ready > at_most:
                    return False
        return True

    wait_until(drained, 600, "the listeners handled the events")
    if at_most == 0:
        # Ready is what was not yet sent to a listener: up to a prefetch more
        # is on its way.
        wait_until(lambda: _unacked(bed, exchange) == 0, 60, "all was acknowledged")


def _unacked(bed: Bed, exchange: str) -> int:
    queues = bed.broker.queues()
    return sum(queue.unacked for name, queue in queues.items() if name.startswith(f"{exchange}."))


def _amqp(transport_url: str) -> str:
    return transport_url.replace("rabbit://", "amqp://") + "/"


def run_floor(kind: str, exchange: str, transport_url: str, uri: str, out: str) -> None:
    """Be a floor: the least that could do the same."""
    floors = {"pin": pin_floor, "listen": listen_floor}
    floors[kind](exchange, transport_url, uri, Path(out))


def pin_floor(exchange: str, transport_url: str, uri: str, out: Path) -> None:
    """Consume with kombu, pin with libvirt, look at the threads: nothing else."""
    run_event_loop()
    hypervisor: Any = libvirt.open(uri)
    host_cpus = hypervisor.getCPUMap()[0]
    topic = kombu.Exchange(exchange, type="topic", durable=False)
    queue = kombu.Queue(f"{exchange}.floor", topic, ROUTING_KEY, durable=False)

    def handle(_body: object, message: Any) -> None:
        event = json.loads(message.payload["oslo.message"])
        data = event["payload"]["nova_object.data"]
        if data["host"] == HOST:
            domain = hypervisor.lookupByUUIDString(data["uuid"])
            cpu = int(data["metadata"][KEY])
            cpumap = tuple(number == cpu for number in range(host_cpus))
            for vcpu in range(domain.maxVcpus()):
                domain.pinVcpu(vcpu, cpumap)
            if any(tuple(seen) != cpumap for seen in domain.vcpus()[1]):
                raise AssertionError("not pinned")
            print(data["uuid"], repr(time.time()), file=written, flush=True)
        message.ack()

    with kombu.Connection(_amqp(transport_url)) as connection:
        consumer = connection.Consumer([queue], callbacks=[handle], prefetch_count=100)
        with consumer, out.open("w") as written:
            while True:
                connection.drain_events()


def listen_floor(exchange: str, transport_url: str, _uri: str, out: Path) -> None:
    """Listen with oslo.messaging to an endpoint that does nothing."""
    import oslo_messaging

    class Endpoint:
        def info(self, *_arguments: object) -> None:
            pass

    conf = cfg.ConfigOpts()
    conf([], default_config_files=[], default_config_dirs=[])
    oslo_messaging.get_notification_transport(conf, transport_url)
    conf.set_override("rabbit_qos_prefetch_count", 100, "oslo_messaging_rabbit")
    transport = oslo_messaging.get_notification_transport(conf, transport_url)
    target = oslo_messaging.Target(exchange=exchange, topic=TOPIC)
    server = oslo_messaging.get_notification_listener(
        transport, [target], [Endpoint()], pool=f"{exchange}.floor"
    )
    server.start(override_pool_size=1)
    out.touch()
    threading.Event().wait()


def table(rows: Sequence[Row]) -> str:
    """Write the rows as a reStructuredText table."""
    head = Row("what", "Kongming", "floor", "ratio", "goal")
    cells = [(r.what, r.ours, r.floor, r.ratio, r.goal) for r in (head, *rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(5)]
    rule = "  ".join("=" * width for width in widths)

    def written(line: tuple[str, ...]) -> str:
        padded = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        return "  ".join(padded).rstrip()

    return "\n".join([rule, written(cells[0]), rule, *map(written, cells[1:]), rule]) + "\n"


def main() -> int:
    """Measure the parts that are named, or all."""
    parts: dict[str, tuple[Callable[[Bed, int], list[Row]], int]] = {
        "latency": (latency, 200),
        "foreign": (foreign, 10_000),
        "memory": (memory, 100_000),
        "start": (start, 7),
        "keeping": (bench_keeping.measure, 50),
        "nova": (bench_nova.requests, 0),
        "snapshot": (bench_snapshot.measure, 9),
        "standalone": (bench_standalone.measure, 1000),
    }
    parser = argparse.ArgumentParser(prog="tools/bench", description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="*", choices=[[], *parts], help="what to measure")
    parser.add_argument("--events", type=int, help="instead of each part's own number")
    parser.add_argument("--output", type=Path, help="also write the table to this file")
    arguments = parser.parse_args()
    run_event_loop()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="kongming-bench-") as folder:
        root = Path(folder)
        with Broker(root / "b") as broker, Libvirtd(root / "l") as libvirtd:
            for name in arguments.part or parts:
                part, events = parts[name]
                print(f"-- {name}", file=sys.stderr, flush=True)
                rows += part(Bed(root, broker, libvirtd), arguments.events or events)
    print(table(rows))
    if arguments.output:
        arguments.output.write_text(table(rows))
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--floor"]:
        run_floor(*sys.argv[2:])
    # Ended from outside, it still ends what it has started.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    status = main()
    sys.stdout.flush()
    # libvirt's event loop has no end: Python would tear its thread down in mid-work.
    os._exit(status)
