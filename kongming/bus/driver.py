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

"""The state of oslo.messaging's driver: whether it listens, and why not.

The driver has no interface for either. While it reconnects it even hides the reason: it turns
each error but the first into a time-out.
"""

from __future__ import annotations

from collections import deque
import contextlib
from typing import Any

from kongming.bus.reasons import Reason, explain

_CONNECT_TIMEOUT_S = 5.0


def is_listening(server: Any) -> bool:
    """Return whether a server is connected, and RabbitMQ has all of its consumers.

    Drivers without a connection always listen.
    """
    connection = _connection(server)
    # _new_tags holds the consumers that RabbitMQ does not have yet.
    return connection is None or (
        bool(connection.connection.connected) and not connection._new_tags
    )


def why_not(server: Any) -> Reason | None:
    """Return why a server can't connect, by a connection of its own; None if that succeeds."""
    connection = _connection(server)
    if connection is None:
        return None
    probe = connection.connection.clone(connect_timeout=_CONNECT_TIMEOUT_S)
    reason = None
    for _ in probe.alt or [None]:
        try:
            probe.transport.close_connection(probe.transport.establish_connection())
        except Exception as error:  # noqa: BLE001
            # The AMQP library passes on any error of the network.
            reason = explain(error)
            with contextlib.suppress(Exception):
                probe.maybe_switch_next()
        else:
            return None
    return reason


def accept_redelivered(server: Any) -> None:
    """Have a server pass on a message that is delivered again, as any other.

    The driver drops such a message if it was among the last to be acknowledged, and never
    acknowledges it. Each of them takes one place of the prefetch count until the connection ends,
    and when all places are taken RabbitMQ sends nothing more.
    """
    cache = getattr(_poller(server), "msg_id_cache", None)
    if cache is not None:
        cache.prev_msgids = deque(maxlen=0)


def disconnect(server: Any) -> None:
    """Close a server's connection: RabbitMQ requeues unacknowledged messages at once."""
    connection = _connection(server)
    if connection is not None:
        connection.connection.collect()


def _connection(server: Any) -> Any:
    """Return the RabbitMQ driver's connection of a server; None if it has none."""
    return getattr(getattr(_poller(server), "conn", None), "connection", None)


def _poller(server: Any) -> Any:
    return getattr(getattr(server, "listener", None), "_poll_style_listener", None)
