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

"""The kinds of the queues at RabbitMQ: quorum, durable, or not durable.

From 4.3 on RabbitMQ refuses by default queues that are neither durable nor exclusive, and
oslo.messaging declares such queues by default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from oslo_config import cfg
from oslo_messaging._drivers import amqp, impl_rabbit

SECTION = "oslo_messaging_rabbit"
QUORUM = {"rabbit_quorum_queue": True, "rabbit_transient_quorum_queue": True}


@dataclass(frozen=True, slots=True)
class QueueKind:
    """How the driver declares queues.

    :ivar arguments: the arguments that RabbitMQ defines.
    """

    durable: bool
    auto_delete: bool
    arguments: Mapping[str, Any]

    def __str__(self) -> str:
        kind = "durable" if self.durable else "not durable"
        return str(self.arguments.get("x-queue-type", kind))

    @classmethod
    def of_messages(cls, options: Any) -> QueueKind:
        """Return the kind of the queues that a topic's messages are sent to.

        :param options: the options of ``[oslo_messaging_rabbit]``.
        """
        quorum = options.rabbit_quorum_queue
        durable = quorum or options.amqp_durable_queues
        return cls(durable, options.amqp_auto_delete, _arguments(options, 0, quorum))

    @classmethod
    def of_replies(cls, options: Any) -> QueueKind:
        """Return the kind of the queues that replies are sent to."""
        quorum = options.rabbit_transient_quorum_queue
        return cls(quorum, False, _arguments(options, options.rabbit_transient_queues_ttl, quorum))


def set_defaults(conf: cfg.ConfigOpts, defaults: Mapping[str, bool]) -> None:
    """Set defaults of ``[oslo_messaging_rabbit]``; values that the configuration sets count.

    Those that were set for another transport do not remain. Quorum queues go neither with
    ``rabbit_ha_queues`` nor with ``amqp_auto_delete``.
    """
    conf.register_opts([*impl_rabbit.rabbit_opts, *amqp.amqp_opts], group=SECTION)
    for name in QUORUM:
        conf.clear_default(name, group=SECTION)
    options = conf[SECTION]
    if not (options.rabbit_ha_queues or options.amqp_auto_delete):
        for name, value in defaults.items():
            conf.set_default(name, value, group=SECTION)


def _arguments(options: Any, ttl: int, quorum: bool) -> dict[str, Any]:
    limits = impl_rabbit.QuorumMemConfig(
        options.rabbit_quorum_delivery_limit,
        options.rabbit_quorum_max_memory_length,
        options.rabbit_quorum_max_memory_bytes,
    )
    arguments = impl_rabbit._get_queue_arguments(
        options.rabbit_ha_queues, ttl, quorum, limits, rabbit_stream_fanout=False
    )
    return dict(arguments)
