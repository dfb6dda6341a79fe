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

"""What can be seen of oslo.messaging's driver, and set: whether it listens, and why not.

It says neither. As long as it reconnects it even forgets why it can't: of each
error but the first it makes a time-out of its own.
"""

from __future__ import annotations

from collections import deque
import contextlib
from typing import Any

from kongming.bus.reasons import Reason, explain

_CONNECT_TIMEOUT_S = 5.0


def is_listening(server: Any) -> bool:
    """Tell whether a server's connection stands, and RabbitMQ knows all of its consumers.

    Drivers without a connection always listen.
    """
    connection = _connection(server)
    # It keeps those that it has still to tell RabbitMQ of.
    return connection is None or (
        bool(connection.connection.connected) and not connection._new_tags
    )


def why_not(server: Any) -> Reason | None:
    """Find out why a server can't connect, by connecting ourselves; None if that comes about."""
    connection = _connection(server)
    if connection is None:
        return None
    look = connection.connection.clone(connect_timeout=_CONNECT_TIMEOUT_S)
    reason = None
    for _ in look.alt or [None]:
        try:
            look.transport.close_connection(look.transport.establish_connection())
        except Exception as error:  # noqa: BLE001
            # The AMQP library lets through whatever the network raises.
            reason = explain(error)
            with contextlib.suppress(Exception):
                look.maybe_switch_next()
        else:
            return None
    return reason


def hand_over_repeated(server: Any) -> None:
    """Have a server hand over a message that comes again, as any other.

    The driver drops one that is among the last that it was told to acknowledge, and never
    acknowledges it: each takes one place of the prefetch count for as long as the connection
    stands, and when all are taken RabbitMQ sends nothing more.
    """
    cache = getattr(_poller(server), "msg_id_cache", None)
    if cache is not None:
        cache.prev_msgids = deque(maxlen=0)


def cut(server: Any) -> None:
    """Cut a server's connection: RabbitMQ takes back at once what was not acknowledged."""
    connection = _connection(server)
    if connection is not None:
        connection.connection.collect()


def _connection(server: Any) -> Any:
    """Return the RabbitMQ driver's connection of a server; None if it has none."""
    return getattr(getattr(_poller(server), "conn", None), "connection", None)


def _poller(server: Any) -> Any:
    return getattr(getattr(server, "listener", None), "_poll_style_listener", None)
