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

"""The keeper: what was there before and is not any more is lost; all is declared again."""

import time
from types import SimpleNamespace

import amqp
from kombu.entity import Exchange, Queue
import oslo_messaging
from oslo_messaging._drivers import impl_rabbit
import pytest

from kongming.bus import host_connection
from kongming.bus import keeper as bus_keeper
from kongming.bus.keeper import CHECK_S, Connection, Expiring, Keeper
from kongming.rpc.calls import HINT_S

REFUSED = amqp.AccessRefused("access to exchange 'nova' refused", (50, 20), "Queue.bind", 403)
TIMED_OUT = amqp.PreconditionFailed(
    "delivery acknowledgement on channel 1 timed out. Timeout value used: 5000 ms", (0, 0), "", 406
)


class Rabbit:
    """RabbitMQ: what it has, and how often it is called."""

    def __init__(self):
        self.exchanges, self.queues = {"nova"}, {}
        self.bound, self.opened, self.closed = [], 0, 0
        self.refusal = None

    def channel(self):
        self.opened += 1
        return Channel(self)


class Channel(amqp.Channel):  # type: ignore[misc]
    """One of its channels."""

    def __init__(self, rabbit):
        self.connection = rabbit

    def __del__(self):
        """Close nothing: there is no connection."""

    def close(self):
        self.connection.closed += 1

    def exchange_declare(self, name, _type, *, passive):
        assert passive
        if name not in self.connection.exchanges:
            raise amqp.NotFound("no exchange", (40, 10), "", 404)

    def queue_declare(self, name, *, passive):
        assert passive
        if name not in self.connection.queues:
            raise amqp.NotFound("no queue", (50, 10), "", 404)
        return SimpleNamespace(consumer_count=self.connection.queues[name])


class Consumer:
    """The driver's."""

    type, exchange_name, queue_name = "topic", "nova", "q"

    def __init__(self, rabbit):
        self._rabbit = rabbit
        self.queue = lambda _channel: self

    def declare(self, _connection=None):
        if self._rabbit.refusal is not None:
            raise self._rabbit.refusal
        self._rabbit.exchanges.add("nova")
        self._rabbit.queues.setdefault("q", 0)
        self._rabbit.bound.append("q")


@pytest.fixture
def rabbit():
    return Rabbit()


@pytest.fixture
def keeper():
    return Keeper()


def declare(keeper, rabbit):
    return keeper.declare(Consumer(rabbit), rabbit.channel(), Consumer(rabbit).declare)


def test_a_queue_that_never_existed_is_not_lost(keeper, rabbit):
    rabbit.exchanges.clear()
    declare(keeper, rabbit)
    assert keeper.take_lost() == ()
    assert rabbit.bound == ["q"]


@pytest.mark.parametrize(
    ("lost", "expected"),
    [
        ("", ()),
        ("exchange", ("exchange nova",)),
        ("queue", ("queue q",)),
        ("both", ("exchange nova", "queue q")),
    ],
)
def test_a_missing_queue_is_logged_once_and_bound_again(keeper, rabbit, lost, expected):
    declare(keeper, rabbit)
    if lost in ("exchange", "both"):
        rabbit.exchanges.clear()
    if lost in ("queue", "both"):
        rabbit.queues.clear()
    declare(keeper, rabbit)
    declare(keeper, rabbit)
    assert keeper.take_lost() == expected
    assert keeper.take_lost() == ()
    # There is no way to find out about the binding, so it is made each time.
    assert rabbit.bound == ["q"] * 3


@pytest.mark.parametrize("in_part", [False, True])
def test_a_queue_that_could_not_be_restored_is_not_logged_as_restored(keeper, rabbit, in_part):
    declare(keeper, rabbit)
    rabbit.queues.clear()
    rabbit.refusal = REFUSED
    with pytest.raises(amqp.AccessRefused):
        declare(keeper, rabbit)
    assert keeper.take_lost() == ()
    rabbit.refusal = None
    if in_part:
        # It was declared, and could not be bound.
        rabbit.queues["q"] = 0
    declare(keeper, rabbit)
    assert keeper.take_lost() == ("queue q",)


def test_a_queue_with_a_consumer_differs_from_one_without(keeper, rabbit):
    declare(keeper, rabbit)
    assert not declare(keeper, rabbit)
    rabbit.queues["q"] = 1
    assert declare(keeper, rabbit)


def test_another_driver_loses_no_queue(keeper, rabbit):
    for _ in range(2):
        assert keeper.declare(Consumer(rabbit), object(), Consumer(rabbit).declare)
    assert keeper.take_lost() == ()
    assert rabbit.bound == ["q"] * 2


class Driver:
    """A connection of the driver's, in the middle of its work."""

    def __init__(self, keeper, rabbit, monkeypatch):
        self.made = Connection.__new__(Connection)
        self.collected, self.consumed = [], []
        self.made._keeper = keeper
        self.made._check_at = time.monotonic()
        self.made._new_tags = set()
        self.made._consumers = {Consumer(rabbit): 1}
        self.made.channel = rabbit.channel()
        self.made.connection = SimpleNamespace(
            connected=True, collect=lambda: self.collected.append(True)
        )
        monkeypatch.setattr(
            impl_rabbit.Connection, "consume", lambda _, timeout: self.consumed.append(timeout)
        )

    def consume(self):
        self.made.consume(0.5)
        assert self.consumed.pop() == 0.5
        return bool(self.collected)


@pytest.fixture
def made(keeper, rabbit, monkeypatch):
    rabbit.queues["q"] = 1
    return Driver(keeper, rabbit, monkeypatch)


def test_all_queues_are_declared_and_bound_again_on_a_separate_channel_when_due(made, rabbit):
    assert not made.consume()
    assert not made.consume()
    assert rabbit.bound == ["q"]
    # The consumers' own, one to declare on, and two to check: all except the first are closed.
    assert (rabbit.opened, rabbit.closed) == (4, 3)
    made.made._check_at -= CHECK_S
    made.consume()
    assert rabbit.bound == ["q"] * 2


@pytest.mark.parametrize("busy", ["not connected", "new consumers", "only answers"])
def test_a_busy_consumer_is_not_interrupted(made, rabbit, busy):
    if busy == "not connected":
        made.made.connection.connected = False
    elif busy == "new consumers":
        made.made._new_tags = {1}
    else:
        next(iter(made.made._consumers)).type = "direct"
    assert not made.consume()
    assert rabbit.bound == []


def test_a_refused_declaration_leaves_the_consumers_unchanged(made, keeper, rabbit):
    rabbit.refusal = REFUSED
    assert not made.consume()
    assert keeper.refusal.kind == "permission"
    assert rabbit.opened - 1 == rabbit.closed
    rabbit.refusal = None
    made.made._check_at -= CHECK_S
    made.consume()
    assert keeper.refusal is None


@pytest.mark.parametrize("error", [TIMED_OUT, amqp.ConnectionForced("x"), OSError("x")])
def test_a_connection_that_is_lost_meanwhile_is_established_again(made, keeper, rabbit, error):
    rabbit.refusal = error
    assert made.consume()
    assert keeper.refusal is None


def test_a_consumer_that_disappears_without_notice_has_the_connection_established_again(
    made, rabbit
):
    rabbit.queues["q"] = 0
    assert made.consume()


def test_the_driver_has_the_attributes_that_the_keeper_uses():
    consumer = impl_rabbit.Consumer("nova", "key", "q", "topic", False, False, False, None)
    assert (consumer.exchange_name, consumer.type) == ("nova", "topic")
    assert hasattr(consumer, "queue_name")
    queue = Queue("q", Exchange("nova", "topic"))
    assert callable(queue)
    assert callable(queue.declare)


def test_a_missing_exchange_of_another_service_is_reported_as_that():
    made = host_connection._Existing("nova", "topic", channel=None)
    channel = Channel(Rabbit())
    channel.connection.exchanges.clear()

    def refuse(*_, **__):
        raise REFUSED

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Exchange, "declare", refuse)
        with pytest.raises(
            amqp.ChannelError, match="no exchange 'nova', and Kongming does not declare"
        ):
            made.declare(channel=channel)


@pytest.mark.parametrize(
    ("options", "timeout", "expires"),
    [
        (None, None, None),
        (oslo_messaging.TransportOptions(at_least_once=True), 5.0, 5.0),
        (Expiring(HINT_S), None, HINT_S),
    ],
)
def test_a_hint_expires_and_so_does_a_call_without_a_waiting_caller(
    monkeypatch, options, timeout, expires
):
    published = []
    made = Connection.__new__(Connection)
    made._producer = bus_keeper._Producer.__new__(bus_keeper._Producer)
    monkeypatch.setattr(
        bus_keeper.Producer, "publish", lambda _, body, **given: published.append(given)
    )
    monkeypatch.setattr(
        impl_rabbit.Connection,
        "_publish",
        lambda self, exchange, msg, key, timeout, options: self._producer.publish(
            msg, expiration=timeout
        ),
    )
    made._publish("exchange", "message", "key", timeout, options)
    made._publish("exchange", "message", "key")
    assert published == [{"expiration": expires}, {"expiration": None}]
