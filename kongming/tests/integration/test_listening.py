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

"""What services listen to is deleted at RabbitMQ, and made again: they receive again.

libvirt is its test driver: no guest is needed here. Each host's user has the permissions that the
documentation gives it: it uses exchanges, and does not make them.
"""

from contextlib import ExitStack
import itertools
import uuid

import amqp
import pytest

from kongming.bus.permissions import of_executor, of_notification_handler
from kongming.tests.testbed.broker import Broker, is_strict
from kongming.tests.testbed.control_plane import ControlPlane
from kongming.tests.testbed.daemon import EXECUTOR, HANDLER, HostProcess
from kongming.tests.testbed.nova import Nova
from kongming.tests.testbed.process import wait_until
from kongming.tests.thorough import stories

KEY = "kongming-vcpu-pinning"
LOST = "RabbitMQ has lost what this service subscribes to"


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with Broker(tmp_path_factory.mktemp("rabbitmq")) as broker:
        yield broker


class Place:
    """A virtual host of RabbitMQ, and one user of it with the permissions of a host.

    What is done there is done at once, without rabbitmqctl, which takes seconds.
    """

    def __init__(self, broker, permissions):
        self.broker = broker
        self.vhost = f"v-{uuid.uuid4().hex[:8]}"
        self._its = permissions
        broker.evaluate(*self._vhost(), *self._user(), *self._permissions())

    def _vhost(self):
        return [f'rabbit_vhost:add(<<"{self.vhost}">>, <<"test">>)', *self._permit("guest")]

    def _user(self):
        user = self._its.user
        added = f'rabbit_auth_backend_internal:add_user(<<"{user}">>, <<"{user}">>, <<"test">>)'
        return [added]

    def _permissions(self):
        its = self._its
        topics = f'<<"{its.exchange}">>, {_text(its.topic_write)}, {_text(its.topic_read)}'
        limited = (
            f'rabbit_auth_backend_internal:set_topic_permissions(<<"{its.user}">>, '
            f'<<"{self.vhost}">>, {topics}, <<"test">>)'
        )
        return [*self._permit(its.user, its.configure, its.write, its.read), limited]

    def _permit(self, user, configure=".*", write=".*", read=".*"):
        of_whom = f'<<"{user}">>, <<"{self.vhost}">>'
        patterns = f"{_text(configure)}, {_text(write)}, {_text(read)}"
        setting = "rabbit_auth_backend_internal:set_permissions"
        return [f'{setting}({of_whom}, {patterns}, <<"test">>)']

    def url(self, user):
        return self.broker.transport_url(self.vhost, user)

    def lose(self, what, exchange, queue):
        """Lose something as by mistake, and make again what others make."""
        if what == "exchange":
            self._do(lambda channel: channel.exchange_delete(exchange))
            self._declare(exchange)
        elif what == "binding":
            key = queue if exchange == "kongming" else "versioned_notifications.info"
            self._do(lambda channel: channel.queue_unbind(queue, exchange, key))
        elif what == "queue":
            self._do(lambda channel: channel.queue_delete(queue))
        elif what == "vhost":
            gone = f'rabbit_vhost:delete(<<"{self.vhost}">>, <<"test">>)'
            self.broker.evaluate(gone, *self._vhost(), *self._permissions())
            self._declare(exchange)
        elif what == "user":
            gone = f'rabbit_auth_backend_internal:delete_user(<<"{self._its.user}">>, <<"test">>)'
            self.broker.evaluate(gone, *self._user(), *self._permissions())

    def _declare(self, exchange):
        # As its owner declares it.
        durable = exchange == "kongming" or is_strict()
        self._do(
            lambda channel: channel.exchange_declare(
                exchange, "topic", durable=durable, auto_delete=False
            )
        )

    def _do(self, work):
        with amqp.Connection(f"127.0.0.1:{self.broker.port}", virtual_host=self.vhost) as made:
            work(made.channel())


def _text(pattern):
    written = pattern.replace("\\", "\\\\")
    return f'<<"{written}">>'


def host(root, name, program, url, more=""):
    return HostProcess(
        root / name,
        program,
        connection_uri="test:///default",
        host=name,
        options=f"[DEFAULT]\ntransport_url = {url}\n{more}",
    )


class Handler:
    """A notification handler, and Nova."""

    def __init__(self, broker, root):
        self.name = f"h-{uuid.uuid4().hex[:8]}"
        self.queue = f"kongming.{self.name}"
        topics = ("versioned_notifications",)
        self.place = Place(broker, of_notification_handler(self.name, self.name, "nova", topics))
        more = "[notification_handler]\npool = kongming.$host\n"
        self.process = host(root, self.name, HANDLER, self.place.url(self.name), more)
        self._nova = Nova(self.place.url("guest"))
        self.process.start_soon()
        self.publish()

    def publish(self):
        instance_uuid = str(uuid.uuid4())
        self._nova.publish(instance_uuid, self.name, {KEY: "0"})
        return instance_uuid

    def lose(self, what):
        self.place.lose(what, "nova", self.queue)

    def receives(self):
        instance_uuid = self.publish()
        try:
            return wait_until(lambda: self.process.record(instance_uuid), 2, "it was received")
        except TimeoutError:
            return None

    def check_receives(self):
        wait_until(self.receives, 120, "an event was received")


WHAT = ["exchange", "binding", "queue", "vhost", "user"]


def test_a_handler_receives_events_again_after_any_deletion(broker, tmp_path):
    with ExitStack() as stack:
        handlers = {what: Handler(broker, tmp_path) for what in WHAT}
        for each in handlers.values():
            stack.callback(each.process.stop)
            each.process.wait_ready()
            each.check_receives()
        for what, each in handlers.items():
            each.lose(what)
        for each in handlers.values():
            each.check_receives()
        logged = {what: each.process.log().count(LOST) for what, each in handlers.items()}
        # RabbitMQ shows nobody whether a binding was there.
        assert logged["queue"] == logged["vhost"] == 1
        assert logged["user"] == 0
        assert all("Traceback" not in each.process.log() for each in handlers.values())


class Site:
    """An executor and the controllers; what is requested gets there by a push, or not at all."""

    #: That of libvirt's test driver.
    GUEST = "6695eb01-f6a4-8304-79aa-97f2502e193f"
    NAME = "h-1"

    def __init__(self, broker, root, stack):
        self._cpus = itertools.cycle(range(4))
        self.place = Place(broker, of_executor(self.NAME, self.NAME, "kongming"))
        url = self.place.url("guest")
        self.plane = stack.enter_context(
            ControlPlane(root / "plane", transport_url=url, conductors=1)
        )
        more = "[executor]\npull_interval = 3600\n"
        self.process = host(root, self.NAME, EXECUTOR, self.place.url(self.NAME), more)
        self.process.start()
        stack.callback(self.process.stop)

    def lose(self, what):
        self.place.lose(what, "kongming", f"kongming-executor.{self.NAME}")
        if what in ("binding", "queue"):
            self.place.lose(what, "kongming", "kongming-conductor")

    def gets_pushes(self):
        """Return whether what is requested now is answered by the host."""
        path = f"/v1/allocations/{self.GUEST}"
        # The same again would be answered already.
        requested = {"vcpu_pinning": str(next(self._cpus))}
        put = self.plane.api.request("PUT", path, {"allocation": requested})
        assert put.status in (200, 201)

        def answered():
            return self.plane.api.get(path)["status"] != "pending"

        try:
            return wait_until(answered, 3, "the host has answered")
        except TimeoutError:
            return None


@stories("deletions", [("queue", "vhost"), WHAT], ids=["some", "all"])
def test_conductor_and_executor_receive_messages_again_after_any_deletion(
    broker, tmp_path, deletions
):
    with ExitStack() as stack:
        site = Site(broker, tmp_path, stack)
        (conductor,) = site.plane.conductors
        wait_until(site.gets_pushes, 60, "a push has arrived")
        for what in deletions:
            site.lose(what)
            wait_until(site.gets_pushes, 120, f"pushes arrive again: {what}")
        logs = conductor.log() + site.process.log()
        assert "Traceback" not in logs
        assert f"queue kongming-executor.{site.NAME})" in site.process.log()
