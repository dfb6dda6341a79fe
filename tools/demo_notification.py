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

"""Nova's notifications at a glance: one guest's life with Kongming, seen on its vCPU threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
import os
from pathlib import Path
import uuid

from oslo_log import log
from story import explain, introduce, judged, running_guest, say, show_threads

from kongming.allocation import metadata
from kongming.allocation.cpuset import CpuSet
from kongming.allocation.statuses import Status
from kongming.cmd import launch
from kongming.executor.store.record import Record
from kongming.executor.store.store import Store
from kongming.hypervisor.connection import run_event_loop
from kongming.notification.service import NotificationHandlerService
from kongming.tests.testbed import memory, threads
from kongming.tests.testbed.abilities import Abilities, abilities, left_out
from kongming.tests.testbed.broker import Broker
from kongming.tests.testbed.daemon import Daemon
from kongming.tests.testbed.embedded import embedded_uri
from kongming.tests.testbed.nova import Nova
from kongming.tests.testbed.process import wait_until
from kongming.tests.testbed.session_libvirtd import private_libvirtd

TITLE = (
    "Kongming watches Nova's notifications, pins the vCPUs of a running guest as its metadata "
    "says, and checks with the kernel that it is so."
)
HOST = "demo-host"
VCPUS = 4
MEMORY_KIB = 32 * 1024
POSSIBLE_CPUS = Path("/sys/devices/system/cpu/possible")
NODES_WITH_MEMORY = Path("/sys/devices/system/node/has_memory")
QUOTA = metadata.PREFIX + "vcpu-quota"
NODES = metadata.PREFIX + "numa-nodes"


@dataclass(frozen=True)
class Cloud:
    """What the story needs: a libvirt, a Nova that notifies, and Kongming's word."""

    uri: str
    nova: Nova
    record: Callable[[str], Record | None]
    log: Path


@contextmanager
def embedded(root: Path) -> Iterator[Cloud]:
    """All in this process: fake:// messaging and libvirt's embedded QEMU driver."""
    say("Start the service in this process: fake:// messaging, libvirt's embedded QEMU driver")
    run_event_loop()
    uri, log_file, state_path = embedded_uri(root / "libvirt"), root / "log", root / "state"
    config = root / "kongming.conf"
    config.write_text(
        f"[DEFAULT]\nhost = {HOST}\nstate_path = {state_path}\nlog_file = {log_file}\n"
        f"[libvirt]\nconnection_uri = {uri}\n"
        "[oslo_messaging_notifications]\ndriver = messagingv2\ntransport_url = fake://\n"
    )
    conf = launch.configure(["--config-file", str(config)])
    log.setup(conf, "kongming")
    service = NotificationHandlerService(conf)
    service.start()
    if not service.ready.wait(60):
        raise TimeoutError("the service is not ready after 60 s")
    store = Store(state_path)
    try:
        yield Cloud(uri, Nova("fake://"), store.get, log_file)
    finally:
        service.stop()
        store.close()


@contextmanager
def services(root: Path, abilities: Abilities) -> Iterator[Cloud]:
    """Three real services, each in processes of its own."""
    run_event_loop()
    say("Start a RabbitMQ of its own")
    with Broker(root / "rabbitmq") as broker:
        say("Start a libvirtd of its own")
        with private_libvirtd(root / "libvirt", abilities) as libvirtd:
            say("Start the installed kongming-notification-handler")
            with Daemon(
                root / "kongming",
                transport_url=broker.transport_url(),
                connection_uri=libvirtd.uri,
                host=HOST,
            ) as daemon:
                nova = Nova(broker.transport_url())
                yield Cloud(libvirtd.uri, nova, daemon.record, daemon.process.log)


class Story:
    """One guest, and what is asked for it."""

    def __init__(self, cloud: Cloud, instance_uuid: str) -> None:
        self._cloud = cloud
        self._uuid = instance_uuid
        self._log_shown = 0
        self.failed = False

    def tell(self, *, limits: bool, nodes: Sequence[int]) -> None:
        """Tell it from the guest's start to its return to the baseline.

        :param limits: whether to ask for CPU time, too
        :param nodes: the NUMA nodes between which memory can move; none: no move
        """
        cpus = sorted(os.sched_getaffinity(0))
        first, last = cpus[0], cpus[-1]
        baseline = self._affinity()
        pinning = f"0-1:{last};2-3:{first}"
        asked = {metadata.VCPU_PINNING: pinning}
        pinned = {vcpu: str(last if vcpu < 2 else first) for vcpu in range(VCPUS)}
        say(f"Nova sends instance.create.end with {metadata.VCPU_PINNING}={pinning}")
        explain(f"vCPUs 0 and 1 go to CPU {last}, vCPUs 2 and 3 to CPU {first}.")
        self._notify("instance.create.end", asked, Status.APPLIED)
        self._expect_pins(baseline, pinned)

        beyond = max(threads.cpu_list(POSSIBLE_CPUS.read_text())) + 1
        unknown = f"{first},{beyond}"
        say(f"Nova sends instance.update with {metadata.VCPU_PINNING}={unknown}")
        explain(f"There is no CPU {beyond}: the request is refused, and changes nothing.")
        self._notify("instance.update", {metadata.VCPU_PINNING: unknown}, Status.REFUSED)
        self._expect_pins(pinned, pinned)

        if limits:
            self._limit(asked)
        if nodes:
            self._move(asked, nodes)

        say("Nova sends instance.update without these keys")
        explain("The guest returns to its baseline: what it had before Kongming touched it.")
        self._notify("instance.update", {}, None)
        self._expect_pins(pinned, baseline)
        if limits:
            self._expect_quotas("50%", "none")

    def _limit(self, asked: dict[str, str]) -> None:
        asked[QUOTA] = "50%"
        say(f"Nova sends instance.update with {QUOTA}=50%, pins as before")
        explain("Each vCPU may use half of a CPU's time; its control group holds it to that.")
        self._notify("instance.update", asked, Status.APPLIED)
        self._expect_quotas("none", "50%")

    def _move(self, asked: dict[str, str], nodes: Sequence[int]) -> None:
        before = memory.memory_kib(self._uuid)
        node = min(nodes, key=lambda each: before.get(each, 0))
        asked[NODES] = str(node)
        say(f"Nova sends instance.update with {NODES}={node}, the rest as before")
        explain(f"The memory of the running guest moves to NUMA node {node}.")
        self._notify("instance.update", asked, Status.APPLIED)
        now = memory.memory_kib(self._uuid)
        right = now.get(node, 0) >= MEMORY_KIB and set(now) == {node}
        self.failed |= not right
        print(f"   KiB on each node, in /proc: before {before}, now {now}  {judged(right)}")
        self._show_log()

    def _affinity(self) -> dict[int, str]:
        found = threads.vcpu_affinity(self._uuid)
        return {vcpu: str(CpuSet(cpus)) for vcpu, cpus in found.items()}

    def _quotas(self) -> dict[int, str]:
        return {
            vcpu: "none" if quota < 0 else f"{100 * quota // period}%"
            for vcpu, (quota, period) in threads.vcpu_quotas(self._uuid).items()
        }

    def _expect_pins(self, before: Mapping[int, str], expected: Mapping[int, str]) -> None:
        self._expect(before, expected, self._affinity(), "/proc")

    def _expect_quotas(self, before: str, expected: str) -> None:
        of_all = [dict.fromkeys(range(VCPUS), quota) for quota in (before, expected)]
        self._expect(of_all[0], of_all[1], self._quotas(), "its control group")

    def _expect(
        self,
        before: Mapping[int, str],
        expected: Mapping[int, str],
        now: Mapping[int, str],
        source: str,
    ) -> None:
        """Judge by what the kernel says of the threads."""
        right = show_threads(
            threads.vcpu_threads(self._uuid), before, expected, now, source=source
        )
        self.failed |= not right
        self._show_log()

    def _show_log(self) -> None:
        """Show what the service has logged of the guest since the last look."""
        lines = self._cloud.log.read_text().splitlines()
        for line in lines[self._log_shown :]:
            _, found, message = line.partition(f"Instance {self._uuid}: ")
            if found:
                explain(f"Its log: {message.strip()}")
        self._log_shown = len(lines)

    def _notify(self, event_type: str, asked: dict[str, str], expected: Status | None) -> None:
        """Have Nova send an event, and wait until Kongming is through with it."""
        before = self._cloud.record(self._uuid)
        self._cloud.nova.publish(self._uuid, HOST, asked, event_type)

        def is_settled() -> bool:
            record = self._cloud.record(self._uuid)
            return record != before and (record is None or record.status is not Status.PENDING)

        wait_until(is_settled, 60, f"what comes of {event_type}")
        record = self._cloud.record(self._uuid)
        if (record.status if record else None) is not expected:
            self.failed = True
            print(f"   WRONG: the outcome is not {expected or 'that nothing is kept'}: {record}")


def show(root: Path, *, with_services: bool) -> bool:
    """Run the story on a guest of its own; tell whether all came as asked."""
    found = abilities()
    nodes = _memory_nodes()
    introduce(TITLE, left_out(found, embedded=not with_services, nodes=len(nodes)))
    grouped = with_services and found.no_control_groups is None
    moves = nodes if grouped and len(nodes) > 1 else []
    with services(root, found) if with_services else embedded(root) as cloud:
        instance_uuid = str(uuid.uuid4())
        say(f"Start a guest with {VCPUS} vCPUs: instance {instance_uuid}")
        with running_guest(
            cloud.uri,
            instance_uuid,
            vcpus=VCPUS,
            memory_mib=MEMORY_KIB // 1024,
            allocated=bool(moves),
        ):
            story = Story(cloud, instance_uuid)
            story.tell(limits=grouped, nodes=moves)
    return not story.failed


def _memory_nodes() -> list[int]:
    try:
        return sorted(threads.cpu_list(NODES_WITH_MEMORY.read_text()))
    except OSError:
        # A kernel that knows of no nodes.
        return []
