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

"""The bus for calls: transport, targets and signatures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
import uuid

from oslo_config import cfg
import oslo_messaging
from oslo_messaging.rpc.server import RPCServer

from kongming import exception
from kongming.allocation.host_name import in_queues
from kongming.bus import host_connection
from kongming.bus.client_options import client_options
from kongming.bus.keeper import Keeper, keep
from kongming.bus.queue_kind import QUORUM
from kongming.bus.subscription import Subscription
from kongming.bus.url import open_transport
from kongming.rpc import keys
from kongming.rpc.refusals import Refusals
from kongming.rpc.server import OTHER, Server
from kongming.rpc.signing import Signer

EXCHANGE = "kongming"
CONDUCTOR = oslo_messaging.Target(topic="kongming-conductor", version="1.0")
EXECUTOR = oslo_messaging.Target(topic="kongming-executor", version="1.0")


@dataclass(frozen=True, slots=True)
class Bus:
    """The bus, as one service uses it.

    :ivar transport: the transport of oslo.messaging.
    :ivar signer: signs calls; None without signatures.
    :ivar refusals: the messages that this service refused.
    :ivar keeper: keeps the subscriptions alive.
    """

    transport: Any
    signer: Signer | None = None
    refusals: Refusals = field(default_factory=Refusals)
    keeper: Keeper = field(default_factory=Keeper)


def open_bus(conf: cfg.ConfigOpts, host: str | None = None) -> Bus:
    """Return the bus of ``[DEFAULT] transport_url``; nothing is sent yet.

    :param host: the compute host whose service this is; None on controllers.
    :raises ConfigInvalid: if it, or ``[rpc]``, can't be used.
    """
    oslo_messaging.set_transport_defaults(EXCHANGE)
    for group, registered in client_options():
        conf.register_opts(registered, group=group)
    transport = open_transport(
        oslo_messaging.get_rpc_transport, conf, "[DEFAULT] transport_url", QUORUM
    )
    bus = Bus(transport, _signer(conf, host))
    if host is None:
        keep(transport, bus.keeper)
    else:
        _own_replies(transport, host)
        host_connection.restrict(transport, bus.keeper, EXECUTOR.topic)
    return bus


def subscription(
    bus: Bus,
    target: Any,
    host: str,
    server: Server,
    on_listening: Callable[[], None],
    on_missed: str,
) -> Subscription:
    """Return a subscription to the calls to a target.

    :param host: the name under which this server alone can be called.
    :param on_missed: how missed calls are made up for, as a clause.
    """
    here = oslo_messaging.Target(topic=target.topic, server=in_queues(host))

    def subscribe() -> Any:
        listening = RPCServer(bus.transport, here, server)
        listening.start()
        return listening

    return Subscription(
        target.topic,
        subscribe,
        on_undecodable=lambda why: bus.refusals.note("", OTHER, exception.MessageInvalid(why)),
        on_listening=on_listening,
        on_missed=lambda: on_missed,
        keeper=bus.keeper,
    )


def _signer(conf: cfg.ConfigOpts, host: str | None) -> Signer | None:
    if not conf.rpc.key_file:
        return None
    found = keys.read(conf.rpc.key_file, host)
    return Signer(found, host, required=conf.rpc.require_signatures)


def _own_replies(transport: Any, host: str) -> None:
    """Name the reply queue after the host, so that permissions can protect it.

    oslo.messaging has no option for it. With ``use_queue_manager`` its own names are good enough.
    """
    driver = transport._driver
    if getattr(driver, "_q_manager", None) is None:
        driver._get_reply_queue_name = lambda: f"reply_{in_queues(host)}:{uuid.uuid4().hex}"
