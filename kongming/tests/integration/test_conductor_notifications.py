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

"""Versioned notifications of conductors, over a real RabbitMQ."""

import threading

from oslo_config import cfg
import oslo_messaging
import pytest

from kongming.bus import queue_kind
from kongming.rpc.bus import EXCHANGE
from kongming.tests.integration.site import HOST, Installation
from kongming.tests.testbed.process import wait_until

OPTIONS = "[conductor]\nemit_notifications = true\n"
#: The host is unresponsive after three of these seconds.
OFTEN = "[executor]\npull_interval = 1\n"


class Orchestrator:
    """Listens to the notifications as an orchestrator does."""

    def __init__(self, url):
        self.received = []
        self._lock = threading.Lock()
        conf = cfg.ConfigOpts()
        conf([], default_config_files=[], default_config_dirs=[])
        queue_kind.set_defaults(conf, queue_kind.QUORUM)
        self._listener = oslo_messaging.get_notification_listener(
            oslo_messaging.get_notification_transport(conf, url),
            [oslo_messaging.Target(exchange=EXCHANGE, topic="notifications")],
            [self],
            executor="threading",
        )

    def __enter__(self):
        self._listener.start(override_pool_size=1)
        return self

    def __exit__(self, *_):
        self._listener.stop()
        self._listener.wait()

    def info(self, _context, publisher, event, payload, _metadata):
        assert publisher.startswith("kongming-conductor:")
        with self._lock:
            self.received.append((event, payload["kongming_object.data"]))

    def wait(self, event, **fields):
        """Wait for an event, and return its data."""

        def found():
            with self._lock:
                received = [*self.received]
            return [
                data for name, data in received if name == event and fields.items() <= data.items()
            ]

        return wait_until(found, 60, f"{event} {fields}; received: {self.received}")[0]


@pytest.fixture(scope="module")
def installation(broker, tmp_path_factory):
    root = tmp_path_factory.mktemp("control")
    with Installation(broker, root, options=OPTIONS, conductors=1) as installation:
        yield installation


def test_an_orchestrator_is_notified_of_outcomes_and_hosts(installation, site, cpus):
    executor = site.executor(options=OFTEN)
    executor.start()
    guest = site.guest()
    uuid = guest.uuid
    with Orchestrator(installation.url) as orchestrator:
        site.put(uuid, vcpu_pinning=str(cpus[1]))
        data = orchestrator.wait("allocation.applied", instance_uuid=uuid)
        assert (data["host"], data["generation"], data["status"]) == (HOST, 1, "applied")
        site.put(uuid, vcpu_pinning="4095")
        data = orchestrator.wait("allocation.refused", instance_uuid=uuid)
        assert data["reason"] == "cpu_unknown"
        site.delete(uuid)
        orchestrator.wait("allocation.released", instance_uuid=uuid)
        executor.stop()
        assert orchestrator.wait("host.unresponsive")["name"] == HOST
        executor.start()
        assert orchestrator.wait("host.up")["name"] == HOST
