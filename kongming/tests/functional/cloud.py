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

"""The service in one process: ``fake://`` messaging, libvirt's test driver."""

import itertools
import time
import uuid

from kongming.cmd import launch
from kongming.notification.service import NotificationHandlerService
from kongming.tests.testbed.nova import Nova
from kongming.tests.testbed.process import patience

URI = "test:///default"
EVERYWHERE = set(range(8))
NOVA = '<metadata><nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1"/></metadata>'
_number = itertools.count()


def wait_for(condition):
    deadline = time.monotonic() + 20 * patience()
    while not condition():
        assert time.monotonic() < deadline, "this never came about"
        time.sleep(0.02)


class Cloud:
    """A host with the service running, a Nova that notifies, and its guests."""

    def __init__(self, tmp_path, connection, more=""):
        # Exchanges of fake:// are shared by all of a process's transports.
        host = f"host{next(_number)}"
        config = tmp_path / "kongming.conf"
        config.write_text(
            f"[DEFAULT]\nhost = {host}\nstate_path = {tmp_path / 'state'}\n"
            f"[notification_handler]\nexchange = {host}\n"
            f"[libvirt]\nconnection_uri = {URI}\n"
            f"[oslo_messaging_notifications]\ntransport_url = fake://\n{more}"
        )
        self.conf = launch.configure(["--config-file", str(config)])
        self.connection = connection
        self.domains = []
        self.service = None

    def start(self):
        self.service = NotificationHandlerService(self.conf)
        self.service.start()
        assert self.service.ready.wait(20 * patience())
        self.sent = 0
        self._nova = Nova("fake://", exchange=self.conf.host)
        return self

    def stop(self):
        if self.service is not None:
            self.service.stop()
            self.service._executor._connections._keeper._loop.stop(10 * patience())
        self.service = None

    def guest(self, *, metadata=NOVA, vcpus=4, more="", instance_uuid=None):
        instance_uuid = instance_uuid or str(uuid.uuid4())
        self.domains.append(
            self.connection.createXML(
                f"<domain type='test'><name>{instance_uuid}</name><uuid>{instance_uuid}</uuid>"
                f"{metadata}<memory>1024</memory><vcpu>{vcpus}</vcpu>{more}"
                "<os><type>hvm</type></os></domain>",
                0,
            )
        )
        return self.domains[-1]

    def publish(self, domain, event_type="instance.create.end", *, host=..., **metadata):
        metadata = {key.replace("_", "-"): value for key, value in metadata.items()}
        host = self.conf.host if host is ... else host
        payload = self._nova.payload(domain.UUIDString(), host, metadata)
        self.send(event_type, payload, f"nova-compute:{self.conf.host}")

    def send(self, event_type, payload, publisher_id="nova-compute:x"):
        self.sent += 1
        self._nova.send(event_type, payload, publisher_id)

    def received_all(self):
        """Wait until the listener has handled all that was published."""
        handled = self.service._handler.counts
        wait_for(lambda: sum(handled.values()) == self.sent)

    def settled(self):
        """Wait until all work that is known of is done."""
        self.received_all()
        queue = self.service._executor._queue
        wait_for(lambda: not queue and not queue._worked_on)

    def record(self, domain):
        return self.service._executor._store.get(domain.UUIDString())


def pins(domain):
    return [{cpu for cpu, there in enumerate(cpumap) if there} for cpumap in domain.vcpuPinInfo()]
