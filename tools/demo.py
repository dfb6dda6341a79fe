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

"""The demonstration: one guest's life with Kongming, seen on its vCPU threads.

Called by tools/demo, which sets up what this needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
import os
from pathlib import Path
import signal
import subprocess
import sys
import tempfile
from typing import Any
import uuid

import libvirt
from oslo_log import log
from story import say

from kongming import metadata
from kongming.cmd import launch
from kongming.cpuset import CpuSet
from kongming.executor.record import Record
from kongming.executor.store import Store
from kongming.hypervisor.keeper import run_event_loop
from kongming.notification.service import NotificationHandlerService
from kongming.tests.testbed import threads
from kongming.tests.testbed.broker import Broker
from kongming.tests.testbed.daemon import Daemon
from kongming.tests.testbed.embedded import embedded_uri
from kongming.tests.testbed.guest import destroy, start_guest
from kongming.tests.testbed.libvirtd import Libvirtd
from kongming.tests.testbed.nova import Nova
from kongming.tests.testbed.process import wait_until
from kongming.tests.testbed.qemu import without_kvm

HOST = "demo-host"
VCPUS = 4
INSIDE = "--inside"

Affinity = dict[int, frozenset[int]]


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
    say("the service, in this process: fake:// messaging, libvirt's embedded QEMU driver")
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
def services(root: Path) -> Iterator[Cloud]:
    """Three real services, each in processes of its own."""
    run_event_loop()
    say("a RabbitMQ of its own")
    with Broker(root / "rabbitmq") as broker:
        say("a libvirtd of its own")
        with Libvirtd(root / "libvirt") as libvirtd:
            say("the installed kongming-notification-handler")
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

    def tell(self) -> None:
        """Tell it from the guest's start to its return to the baseline."""
        online = sorted(threads.online_cpus())
        baseline = self._affinity()
        asked = f"0-1:{online[-1]};2-3:{online[0]}"
        say(f"Nova: instance.create.end with {metadata.VCPU_PINNING}={asked}")
        wanted = self._wanted(asked)
        self._notify("instance.create.end", asked)
        self._expect("applied", wanted, before=baseline)

        bad = f"{online[0]},{metadata.MAX_LENGTH}"
        say(f"Nova: instance.update with {metadata.VCPU_PINNING}={bad}: no such CPU")
        self._notify("instance.update", bad)
        self._expect("refused", wanted, before=wanted)

        say("Nova: instance.update without the key: back to what was before")
        self._notify("instance.update", None)
        self._expect(None, baseline, before=wanted)

    def _wanted(self, asked: str) -> Affinity:
        pins = metadata.parse_vcpu_pinning(asked).resolve(CpuSet(range(VCPUS)))
        return {vcpu: frozenset(cpus) for vcpu, cpus in pins.items()}

    def _affinity(self) -> Affinity:
        return threads.vcpu_affinity(self._uuid)

    def _notify(self, event_type: str, value: str | None) -> None:
        asked = {} if value is None else {metadata.VCPU_PINNING: value}
        self._cloud.nova.publish(self._uuid, HOST, asked, event_type)

    def _expect(self, status: str | None, wanted: Affinity, *, before: Affinity) -> None:
        """Wait for an outcome, then judge by what the kernel says of the threads."""

        def settled() -> bool:
            record = self._cloud.record(self._uuid)
            return (record.status.value if record else None) == status

        wait_until(settled, 60, f"the outcome: {status or 'back to the baseline'}")
        now = self._affinity()
        self.failed |= now != wanted
        self._show(before, wanted, now)
        lines = self._cloud.log.read_text().splitlines()
        for line in lines[self._log_shown :]:
            if self._uuid in line:
                print("  log:", line.split("] ", 1)[-1].strip())
        self._log_shown = len(lines)

    def _show(self, before: Affinity, wanted: Affinity, now: Affinity) -> None:
        print(
            f"  {'vCPU':>6} {'thread':>8}   {'before':<12} {'expected':<12} {'now, in /proc':<14}"
        )
        for vcpu, thread in threads.vcpu_threads(self._uuid).items():
            sets = [str(CpuSet(affinity[vcpu])) for affinity in (before, wanted, now)]
            right = "right" if now[vcpu] == wanted[vcpu] else "WRONG"
            print(f"  {vcpu:>6} {thread:>8}   {sets[0]:<12} {sets[1]:<12} {sets[2]:<14} {right}")


def show(cloud: Cloud) -> bool:
    """Run the story on a guest of its own; tell whether all came as asked."""
    connection: Any = libvirt.open(cloud.uri)
    instance_uuid = str(uuid.uuid4())
    say(f"a QEMU guest with {VCPUS} vCPUs: instance {instance_uuid}")
    guest = start_guest(connection, "kongming-demo", uuid=instance_uuid, vcpus=VCPUS)
    try:
        story = Story(cloud, instance_uuid)
        story.tell()
    finally:
        destroy(guest)
        connection.close()
    return not story.failed


def _show_chosen(arguments: list[str], root: Path) -> bool:
    if "--standalone" in arguments:
        # Imported here: the others need nothing of it.
        import demo_standalone

        return demo_standalone.show(root)
    stage = services if "--services" in arguments else embedded
    with stage(root) as cloud:
        return show(cloud)


def main(arguments: list[str]) -> int:
    """Show the demonstration that was chosen; 0 if the threads ran as asked."""
    if os.geteuid() != 0:
        print("The guests are pinned as on a compute host: run this as root.", file=sys.stderr)
        return 2
    if "--services" not in arguments and INSIDE not in arguments:
        with tempfile.TemporaryDirectory(prefix="kongming-demo-") as root:
            command = without_kvm([sys.executable, __file__, INSIDE, *arguments], Path(root))
            quiet = {**os.environ, "LIBVIRT_LOG_OUTPUTS": f"3:file:{root}/libvirt.log"}
            return subprocess.run(command, env=quiet, check=False).returncode
    with tempfile.TemporaryDirectory(prefix="kongming-demo-") as root:
        good = _show_chosen(arguments, Path(root))
    if len(threads.online_cpus()) == 1:
        print("This machine has a single CPU: its threads could not have run elsewhere.")
    say("every vCPU thread ran where it was asked to" if good else "NOT as asked: see above")
    return 0 if good else 1


if __name__ == "__main__":
    # Ended from outside, it still ends what it has started.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    status = main(sys.argv[1:])
    sys.stdout.flush()
    # libvirt's event loop has no end: Python would tear its thread down in mid-work.
    os._exit(status)
