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

"""A Nova that notifies: publishes events as a running Nova does.

The messages are those captured from a real one, for other instances.
"""

import copy
from typing import Any

from oslo_config import cfg
import oslo_messaging

from kongming.tests import captures

TOPIC = "versioned_notifications"


class Nova:
    """Publishes versioned notifications on one transport.

    :param transport_url: oslo.messaging's URL of the broker.
    :param exchange: Nova's control exchange.
    :param durable: whether nova.conf sets ``amqp_durable_queues``.
    """

    def __init__(
        self,
        transport_url: str,
        *,
        exchange: str = "nova",
        topic: str = TOPIC,
        durable: bool = False,
    ) -> None:
        conf = cfg.ConfigOpts()
        conf([], default_config_files=[], default_config_dirs=[])
        oslo_messaging.set_transport_defaults(exchange)
        if durable:
            # Makes the driver register its options.
            oslo_messaging.get_notification_transport(conf, "rabbit://")
            conf.set_override("amqp_durable_queues", True, "oslo_messaging_rabbit")
        transport = oslo_messaging.get_notification_transport(conf, transport_url)
        self._notifier = oslo_messaging.Notifier(transport, driver="messagingv2", topics=[topic])
        self._created = captures.message("01-create", "instance.create.end")

    def payload(self, instance_uuid: str, host: str | None, metadata: dict[str, str]) -> Any:
        """Give the payload of an event of an instance on ``host``."""
        payload = copy.deepcopy(self._created["payload"])
        payload["nova_object.data"] |= {"uuid": instance_uuid, "host": host, "metadata": metadata}
        return payload

    def publish(
        self,
        instance_uuid: str,
        host: str | None,
        metadata: dict[str, str],
        event_type: str = "instance.create.end",
    ) -> None:
        """Publish an event of an instance on ``host``."""
        self.send(event_type, self.payload(instance_uuid, host, metadata), f"nova-compute:{host}")

    def send(self, event_type: str, payload: Any, publisher_id: str) -> None:
        """Publish any payload, well-formed or not."""
        self._notifier.prepare(publisher_id=publisher_id).info({}, event_type, payload)
