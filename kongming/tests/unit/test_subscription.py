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

"""A subscription: replaced where RabbitMQ refuses it, logged once, back when it listens."""

import logging
from pathlib import Path
import threading
import time

import amqp
from oslo_messaging import exceptions as oslo
from oslo_messaging._drivers import amqp as driver_amqp
from oslo_messaging._drivers import amqpdriver, common, impl_rabbit
import pytest

from kongming.bus import driver, subscription
from kongming.bus.hold import Hold
from kongming.bus.keeper import Keeper
from kongming.bus.reasons import UNREACHABLE, Reason, explain
from kongming.bus.subscription import Subscription
from kongming.tests.testbed.process import patience

DRIVER = logging.getLogger("oslo.messaging._drivers.impl_rabbit")
REFUSED = amqp.AccessRefused("access to queue 'q' refused for user 'k'", (50, 10), "x", 403)
LOGIN = Reason("login", "it rejects the user or the password")
GONE = Reason(UNREACHABLE, "nobody listens")


class Server:
    """A server as the driver returns it."""

    def __init__(self):
        self.listening = False
        self.ended = threading.Event()

    def stop(self):
        pass

    def wait(self):
        self.ended.set()


class Broker:
    """Stands in for RabbitMQ and the driver: what it lets us do is set by the test."""

    def __init__(self, monkeypatch):
        self.servers = []
        #: Whether it lets a new subscription listen at once.
        self.listens = False
        self.refusal = None
        self.why_not = None
        self.looks = 0
        self.received = []
        self.checks = 0
        self.missed = 0
        self.cut = []
        self.keeper, self.hold = Keeper(), Hold()
        monkeypatch.setattr(driver, "is_listening", self._is_listening)
        monkeypatch.setattr(driver, "why_not", self._look)
        monkeypatch.setattr(driver, "disconnect", self.cut.append)
        for name in ("_PATIENCE_S", "_CHECK_S", "_TICK_S"):
            monkeypatch.setattr(subscription, name, 0.01)
        monkeypatch.setattr(subscription, "_NO_CONSUMERS_S", 60.0)
        # Each pause as short, but kept: how long it would have been.
        self.pauses = []
        real = subscription.Backoff.next

        def next_(backoff):
            self.pauses.append(real(backoff))
            return 0.001

        monkeypatch.setattr(subscription.Backoff, "next", next_)
        self.subscription = Subscription(
            "test",
            self._subscribe,
            on_undecodable=self.received.append,
            on_listening=lambda: self.received.append("listening"),
            on_missed=self._missed,
            keeper=self.keeper,
            hold=self.hold,
        )

    def _missed(self):
        self.missed += 1
        return "all is asked for"

    def _subscribe(self):
        if self.refusal is not None:
            raise self.refusal
        self.servers.append(Server())
        self.servers[-1].listening = self.listens
        return self.servers[-1]

    def _is_listening(self, server):
        self.checks += 1
        return server.listening

    def _look(self, _server):
        self.looks += 1
        return self.why_not

    @property
    def server(self):
        wait_for(lambda: self.servers)
        return self.servers[-1]


def wait_for(condition):
    deadline = time.monotonic() + 20 * patience()
    while not condition():
        assert time.monotonic() < deadline, "this never came about"
        time.sleep(0.002)


@pytest.fixture
def broker(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    broker = Broker(monkeypatch)
    yield broker
    broker.subscription.stop(5)
    # What is left of it would meet the next test's.
    broker.subscription._thread.join(20 * patience())


@pytest.fixture
def lines(caplog):
    return lambda: [record.getMessage() for record in caplog.records]


def test_a_subscription_is_established_once_the_consumers_are(broker, lines):
    broker.subscription.start()
    assert not broker.subscription.connected
    wait_for(lambda: broker.looks > 2)
    assert broker.received == []
    broker.server.listening = True
    wait_for(lambda: broker.received == ["listening"])
    assert broker.subscription.connected
    assert lines() == []


def test_a_loss_that_the_driver_recovers_within_the_patience_is_no_outage(
    broker, lines, monkeypatch
):
    monkeypatch.setattr(subscription, "_PATIENCE_S", 60.0)
    broker.subscription.start()
    broker.server.listening = True
    wait_for(lambda: broker.received == ["listening"])
    broker.why_not = GONE
    broker.server.listening = False
    checks = broker.checks
    wait_for(lambda: broker.checks > checks + 3)
    assert not broker.subscription.connected
    broker.server.listening = True
    wait_for(lambda: len(broker.received) == 2)
    assert lines() == []
    assert broker.looks == 0


def test_an_outage_is_logged_with_its_reason_and_again_when_that_changes(broker, lines):
    broker.subscription.start()
    broker.server.listening = True
    wait_for(lambda: broker.received)
    broker.why_not = GONE
    broker.server.listening = False
    wait_for(lambda: len(lines()) == 1)
    looks = broker.looks
    wait_for(lambda: broker.looks > looks + 3)
    broker.why_not = LOGIN
    wait_for(lambda: len(lines()) == 2)
    # The driver makes a lost connection again by itself: nothing is given up.
    assert len(broker.servers) == 1
    broker.server.listening = True
    wait_for(lambda: len(lines()) == 3)
    assert lines() == [
        "RabbitMQ is unavailable (nobody listens); waiting for it",
        f"RabbitMQ rejects the subscription: {LOGIN.words}; it will be retried",
        "RabbitMQ is available again, after 0 s",
    ]
    assert broker.subscription.connected


def test_a_file_of_tls_that_can_not_be_read_is_named(broker, lines):
    broker.why_not = explain(FileNotFoundError(2, "No such file"))
    broker.keeper.unreadable = lambda: "[oslo_messaging_rabbit] ssl_ca_file /x: No such file"
    broker.subscription.start()
    wait_for(lines)
    (line,) = lines()
    assert (
        "subscription: [oslo_messaging_rabbit] ssl_ca_file /x: No such file; it will be retried"
        in line
    )


def test_the_reason_is_checked_with_growing_pauses(broker):
    broker.why_not = GONE
    broker.subscription.start()
    wait_for(lambda: broker.looks > 7)
    assert broker.pauses[:7] == [1, 2, 4, 8, 16, 30, 30]


def test_a_connection_with_a_refused_declaration_is_replaced_with_growing_pauses(broker, lines):
    broker.subscription.start()
    first = broker.server
    first.listening = True
    wait_for(lambda: broker.received)
    broker.refusal = oslo.MessageDeliveryFailure("Unable to connect")
    broker.refusal.__context__ = REFUSED
    first.listening = False
    DRIVER.error("Failed to consume message from queue: %s", REFUSED)
    wait_for(first.ended.is_set)
    before = len(broker.pauses)
    wait_for(lambda: len(broker.pauses) > before + 7)
    assert len(broker.servers) == 1
    assert broker.pauses[-1] == 30
    (line,) = lines()
    assert line.startswith("RabbitMQ rejects the subscription: a permission is missing")
    broker.refusal = None
    wait_for(lambda: len(broker.servers) == 2)
    assert not broker.subscription.connected
    broker.server.listening = True
    wait_for(lambda: broker.received == ["listening", "listening"])
    assert lines()[1].startswith("RabbitMQ is available again")


def test_a_subscription_that_connects_and_never_listens_is_replaced(broker, lines, monkeypatch):
    monkeypatch.setattr(subscription, "_NO_CONSUMERS_S", 0.01)
    broker.subscription.start()
    wait_for(lambda: len(broker.servers) > 1)
    wait_for(broker.servers[0].ended.is_set)
    assert lines()[0].startswith("RabbitMQ rejects the subscription: it accepts the connection")
    broker.server.listening = True


def test_before_the_first_connection_every_error_of_the_driver_is_logged_once(broker, lines):
    began, go_on = threading.Event(), threading.Event()

    def subscribe():
        began.set()
        assert go_on.wait(20 * patience())
        return broker.servers.append(Server()) or broker.servers[-1]

    broker.subscription._subscribe = subscribe
    broker.subscription.start()
    assert began.wait(20 * patience())
    info = {"connection_id": "x", "hostname": "h", "port": 1, "sleep_time": 1}
    for error in (ConnectionRefusedError(111, "x"), OSError("x"), REFUSED):
        DRIVER.error(
            "[%(connection_id)s] AMQP server on %(hostname)s:%(port)s is unreachable: "
            "%(err_str)s. Trying again in %(sleep_time)d seconds.",
            {**info, "err_str": error},
        )
    go_on.set()
    assert [line.partition(" (")[0] for line in lines()] == [
        "RabbitMQ is unavailable",
        "RabbitMQ rejects the subscription: a permission is missing",
    ]
    broker.server.listening = True
    wait_for(lambda: broker.received)
    assert lines()[-1].startswith("RabbitMQ is available again")


def test_lost_messages_are_logged_once_and_recovered(broker, lines):
    broker.subscription.start()
    broker.server.listening = True
    wait_for(lambda: broker.received)
    broker.keeper._lost = dict.fromkeys(["exchange nova", "queue kongming.compute-1"])
    wait_for(lambda: broker.missed)
    checks = broker.checks
    wait_for(lambda: broker.checks > checks + 3)
    assert broker.missed == 1
    (line,) = lines()
    assert line == (
        "RabbitMQ has lost what this service subscribes to (exchange nova, queue "
        "kongming.compute-1): declared and bound again. Messages sent in between "
        "are lost, so all is asked for"
    )


def test_a_refused_redeclaration_is_an_outage_although_the_connection_stands(broker, lines):
    broker.subscription.start()
    broker.server.listening = True
    wait_for(lambda: broker.received)
    broker.keeper.set_refusal(explain(REFUSED))
    wait_for(lines)
    assert not broker.subscription.connected
    broker.keeper.set_refusal(None)
    wait_for(lambda: len(lines()) == 2)
    assert broker.subscription.connected
    # The consumers stay: what comes is taken all the time.
    assert len(broker.servers) == 1
    assert lines()[0].startswith("RabbitMQ rejects the subscription: a permission is missing")
    assert lines()[1].startswith("RabbitMQ is available again")


def test_a_blocked_subscription_is_closed_until_the_work_succeeds(broker, lines):
    broker.listens = True
    broker.subscription.start()
    wait_for(lambda: broker.received)
    tries, first = [], broker.server

    def work():
        tries.append(len(broker.servers))
        return len(tries) > 3

    broker.hold.begin(work)
    broker.hold.wait()
    wait_for(first.ended.is_set)
    assert broker.cut == [first]
    wait_for(lambda: broker.missed)
    # Nothing is subscribed to before, and RabbitMQ is not to blame.
    assert tries == [1] * 4
    assert len(broker.servers) == 2
    assert not broker.hold.is_on
    assert broker.subscription.connected
    assert lines() == ["Messages are accepted again, and all is asked for"]


def test_blocked_messages_are_not_requeued_when_the_service_stops(broker):
    broker.subscription.start()
    broker.server.listening = True
    wait_for(lambda: broker.received)
    broker.hold.begin(lambda: False)
    assert broker.subscription.connected
    broker.subscription.stop(20)
    broker.hold.wait()
    assert set(broker.cut) == {broker.server}
    assert not broker.subscription.connected


def test_stopping_does_not_wait_for_a_hanging_driver(broker):
    broker.subscription.start()
    broker.server.listening = True
    wait_for(lambda: broker.received)
    forever = threading.Event()
    broker.server.wait = lambda: forever.wait(20 * patience())
    broker.subscription.stop(0.01)
    assert not broker.subscription.connected
    assert broker.subscription.stopping.is_set()
    forever.set()


class Connection:
    """kombu's, as far as it is used."""

    def __init__(self, errors, alternates=()):
        self._errors = list(errors)
        self.alt = list(alternates)
        self.switched = 0
        self.transport = self
        self.closed = []

    def clone(self, **given):
        assert given == {"connect_timeout": 5.0}
        return self

    def establish_connection(self):
        error = self._errors.pop(0)
        if error is not None:
            raise error
        return "connection"

    def close_connection(self, connection):
        self.closed.append(connection)

    def maybe_switch_next(self):
        self.switched += 1


class Holder:
    """Something that holds something."""

    def __init__(self, **held):
        self.__dict__ |= held


def holding(connection):
    poller = Holder(conn=Holder(connection=Holder(connection=connection, _new_tags=set())))
    return Holder(listener=Holder(_poll_style_listener=poller))


class TestDriver:
    def test_the_reason_for_a_failed_connection_is_found_by_connecting(self):
        assert driver.why_not(holding(Connection([REFUSED]))) == explain(REFUSED)
        lets_us_in = Connection([None])
        assert driver.why_not(holding(lets_us_in)) is None
        assert lets_us_in.closed == ["connection"]

    def test_each_of_several_hosts_is_tried(self):
        error = ConnectionRefusedError(111, "x")
        several = Connection([error, None], ["a", "b"])
        assert driver.why_not(holding(several)) is None
        assert several.switched == 1
        neither = Connection([error, REFUSED], ["a", "b"])
        assert driver.why_not(holding(neither)) == explain(REFUSED)

    def test_a_subscription_listens_if_it_is_connected_and_its_consumers_are_known(self):
        server = holding(Holder(connected=True))
        assert driver.is_listening(server)
        rabbit = server.listener._poll_style_listener.conn.connection
        rabbit._new_tags.add(1)
        assert not driver.is_listening(server)
        rabbit._new_tags.clear()
        rabbit.connection.connected = False
        assert not driver.is_listening(server)

    def test_a_driver_without_a_connection_always_listens(self):
        assert driver.is_listening(object())
        assert driver.why_not(object()) is None

    def test_a_repeated_message_is_handed_over(self):
        cache = driver_amqp._MsgIdCache()
        cache.add("one")
        with pytest.raises(common.DuplicateMessageError):
            cache.check_duplicate_message({driver_amqp.UNIQUE_ID: "one"})
        server = Holder(listener=Holder(_poll_style_listener=Holder(msg_id_cache=cache)))
        driver.accept_redelivered(server)
        cache.add("two")
        for name in ("one", "two"):
            assert cache.check_duplicate_message({driver_amqp.UNIQUE_ID: name}) == name

    def test_a_driver_that_drops_no_messages_is_unchanged(self):
        driver.accept_redelivered(object())

    def test_the_driver_has_the_attributes_that_are_read(self):
        source = Path(impl_rabbit.__file__).read_text()
        assert "self._new_tags = set(self._consumers.values())" in source
        assert "self._new_tags.remove(tag)" in source
        source = Path(amqpdriver.__file__).read_text()
        assert "self.msg_id_cache = rpc_amqp._MsgIdCache()" in source
