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

"""What the documentation states of the bus, tried on a real RabbitMQ, sentence by sentence.

The intruder is a compute host that was broken into: it has its own RabbitMQ user and its own key.
"""

import contextlib
import itertools
import json
from pathlib import Path
import re
import shlex
import subprocess
import textwrap
import time
import uuid
import zlib

import amqp
import pytest

from kongming.rpc import keys
from kongming.rpc.signing import SIGNATURE, Signer
from kongming.tests.integration.site import HOST, Installation, Site
from kongming.tests.testbed.broker import Broker, is_strict
from kongming.tests.testbed.daemon import ExecutorDaemon
from kongming.tests.testbed.process import wait_until
from kongming.tests.testbed.program import BIN
from kongming.tests.thorough import stories

DOCUMENTS = Path(__file__).parents[3] / "doc/source"
INTRUDER = "compute-2"
# And a rule that no request here breaks.
OFTEN = "[executor]\npull_interval = 1\n[guard]\nallowed_nodes = 1\n"
_number = itertools.count(1)


def manage(*arguments):
    """Run kongming-manage; return its output."""
    command = [str(BIN / "kongming-manage"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


class Secured:
    """A virtual host of its own, with a user for each host, as the documentation has it.

    :param signed: whether calls are signed, too.
    :param exchange: ``[DEFAULT] control_exchange``.
    """

    def __init__(self, broker, root, *, signed, exchange="kongming"):
        self.broker, self.exchange = broker, exchange
        self.vhost = f"secured-{next(_number)}"
        self.prefix = f"kongming{next(_number)}"
        self._root = root
        broker.run(f"rabbitmqctl add_vhost {self.vhost}")
        for user in (self.user(None), self.user(HOST), self.user(INTRUDER)):
            broker.add_foreign_user(user)
        commands = manage(
            *("broker", "permissions", "--vhost", self.vhost, "--prefix", self.prefix),
            *("--exchange", exchange, HOST, INTRUDER),
        )
        for line in commands.splitlines():
            broker.run(line)
        self.signed = signed
        if signed:
            self.key(None).write_text(manage("broker", "key", "create"))
            options = root / "controller.conf"
            options.write_text(f"[rpc]\nkey_file = {self.key(None)}\n")
            for host in (HOST, INTRUDER):
                derived = manage("--config-file", str(options), "broker", "key", "derive", host)
                self.key(host).write_text(derived)

    def user(self, host):
        return self.prefix if host is None else f"{self.prefix}-{host}"

    def key(self, host):
        return self._root / f"{host or 'controllers'}.key"

    def options(self, host):
        """What kongming.conf of a host (None: a controller) has besides."""
        signing = f"[rpc]\nkey_file = {self.key(host)}\n" if self.signed else ""
        return f"[DEFAULT]\ncontrol_exchange = {self.exchange}\n{signing}"

    def url(self, host):
        return self.broker.transport_url(self.vhost, self.user(host))

    @contextlib.contextmanager
    def channel(self, host=INTRUDER):
        """A channel of a host's user; of None: of that of API and conductors."""
        user = self.user(host)
        connection = amqp.Connection(
            f"127.0.0.1:{self.broker.port}", user, user, virtual_host=self.vhost
        )
        connection.connect()
        try:
            yield connection.channel()
        finally:
            with contextlib.suppress(Exception):
                connection.close()

    def queues(self):
        return self.broker.queues(self.vhost)


class Occupied(Secured):
    """With a control plane, and a host that a guest runs on."""

    def __init__(self, broker, libvirtd, root, **options):
        super().__init__(broker, root, **options)
        self.installation = Installation(
            broker,
            root / "control",
            vhost=self.vhost,
            user=self.prefix,
            options=self.options(None),
        )
        self._libvirtd = libvirtd

    def __enter__(self):
        self.installation.__enter__()
        self.site = Site(self.installation, self.broker, self._libvirtd, self._root)
        self.executor = self.site.executor(
            options=OFTEN + self.options(HOST), transport_url=self.url(HOST)
        )
        self.executor.start()
        return self

    def __exit__(self, *_):
        self.site.close()
        self.installation.__exit__(None, None, None)

    def placed(self, cpu):
        """A guest that was placed."""
        guest = self.site.guest()
        self.site.put(guest.uuid, vcpu_pinning=str(cpu))
        self.site.plane.wait_status(guest.uuid, "applied")
        guest.wait_on(cpu)
        return guest

    def intruders(self):
        """The UUID of an instance of the intruder's own, with a desired allocation."""
        mine = self.site.nova.add(INTRUDER, {})
        self.site.put(mine, vcpu_pinning="0")
        path = f"/v1/allocations/{mine}"
        wait_until(lambda: self.site.api.get(path)["host"] == INTRUDER, 30, "its host in Nova")
        return mine

    def logs(self):
        return "".join(each.log() for each in [self.executor, *self.site.plane.conductors])

    def reply_queues(self, host):
        """Queues of the answers to a host; of None: to conductors."""
        prefix = f"reply_{host}:" if host else "reply_"
        wait_until(lambda: any(map(self._is_reply(prefix), self.queues())), 30, "answers' queues")
        return [name for name in self.queues() if self._is_reply(prefix)(name)]

    def _is_reply(self, prefix):
        return lambda name: name.startswith(prefix) and (":" in name) == (":" in prefix)


@pytest.fixture(scope="module")
def permitted(broker, libvirtd, tmp_path_factory):
    """Users with permissions; calls are not signed."""
    with Occupied(
        broker, libvirtd, tmp_path_factory.mktemp("permitted"), signed=False
    ) as occupied:
        yield occupied


@pytest.fixture(scope="module")
def signed(broker, libvirtd, tmp_path_factory):
    """Users with permissions, and signed calls; the exchange has another name than usual."""
    root = tmp_path_factory.mktemp("signed")
    with Occupied(broker, libvirtd, root, signed=True, exchange="calls") as occupied:
        yield occupied


@pytest.fixture(params=["signed", pytest.param("permitted", marks=pytest.mark.slow)])
def secured(request):
    return request.getfixturevalue(request.param)


def message(method, context=None, reply_to=None, **arguments):
    """A call as oslo.messaging sends it."""
    waiting = {} if reply_to is None else {"_msg_id": uuid.uuid4().hex, "_reply_q": reply_to}
    body = {
        "method": method,
        "args": arguments,
        "version": "1.0",
        "_unique_id": uuid.uuid4().hex,
        **{f"_context_{name}": value for name, value in (context or {}).items()},
        **waiting,
    }
    envelope = {"oslo.version": "2.0", "oslo.message": json.dumps(body)}
    return amqp.Message(
        json.dumps(envelope), content_type="application/json", content_encoding="utf-8"
    )


def push(instance_uuid, cpu=None, **allocation):
    pins = {} if cpu is None else {"vcpu_pinning": str(cpu)}
    desired = {"generation": 9, "allocation": pins | allocation, "requested_by": "intruder"}
    return {"instances": {instance_uuid: desired}}


def own_name():
    """A name that the intruder may give a queue or an exchange."""
    return f"reply_{INTRUDER}:{uuid.uuid4().hex}"


def report(instance_uuid, generation=1, status="failed"):
    words = dict.fromkeys(("message", "source", "drift"), "")
    times = {"drift_at": None, "changed_at": time.time()}
    parts = {"instance_uuid": instance_uuid, "generation": generation, "status": status}
    return {**parts, "reason": "forged", **words, **times}


def answer(channel, method, context=None, **arguments):
    """Call a conductor as the intruder; return the answer."""
    own = own_name()
    channel.queue_declare(own, durable=True, auto_delete=False)
    body = message(method, context, reply_to=own, **arguments)
    channel.basic_publish(body, "", "kongming-conductor")
    came = wait_until(lambda: channel.basic_get(own, no_ack=True), 30, f"an answer to {method}")
    return json.loads(json.loads(came.body)["oslo.message"])["result"]


def refused(secured, attempt, host=INTRUDER):
    """Return whether RabbitMQ refuses what a host's user attempts."""
    try:
        with secured.channel(host) as channel:
            attempt(channel)
            # An error of a publication comes with the next answer.
            channel.basic_qos(0, 1, False)
    except amqp.AccessRefused:
        return True
    return False


# All of it works with no more than these permissions.


def test_all_services_work_with_the_permissions_that_the_tool_writes(secured, cpus):
    guest = secured.placed(cpus[1])
    site = secured.site
    plan = site.api.request(
        "PUT",
        f"/v1/allocations/{guest.uuid}?dry_run=true",
        {"allocation": {"vcpu_pinning": str(cpus[0])}},
    )
    assert (plan.status, plan.body["outcome"], plan.body["host"]) == (200, "planned", HOST)

    def shown():
        return site.api.get(f"/v1/hosts/{HOST}")["snapshot"]

    wait_until(shown, 30, "the host's view")
    site.delete(guest.uuid)
    site.plane.wait_gone(guest.uuid)
    assert "is rejected" not in secured.logs()
    assert "ACCESS_REFUSED" not in secured.logs()


# It can't read what is others'.


def theirs(secured):
    """Queues of the other host, and of the conductors."""
    names = [
        f"kongming-executor.{HOST}",
        "kongming-conductor",
        "kongming-conductor.controller-1",
        *secured.reply_queues(HOST),
    ]
    assert set(names) <= set(secured.queues())
    return names


def test_a_host_can_not_read_purge_delete_or_bind_queues_of_others(secured, cpus):
    guest = secured.placed(cpus[1])
    # A dry run shows the host where the conductor waits for the answer.
    path = f"/v1/allocations/{guest.uuid}?dry_run=true"
    secured.site.api.request("PUT", path, {"allocation": {"vcpu_pinning": "0"}})
    for name in [*theirs(secured), *secured.reply_queues(None)]:
        for attempt in (
            lambda channel, name=name: channel.basic_get(name),
            lambda channel, name=name: channel.basic_consume(name),
            lambda channel, name=name: channel.queue_purge(name),
            lambda channel, name=name: channel.queue_delete(name),
            lambda channel, name=name: channel.queue_unbind(name, secured.exchange, name),
            lambda channel, name=name: channel.queue_bind(name, secured.exchange, "x"),
        ):
            assert refused(secured, attempt), name


@stories(
    "key",
    [
        f"kongming-executor.{HOST}",
        "kongming-conductor",
        "kongming-conductor.controller-1",
        "kongming-executor",
        "#",
        "*",
        "kongming-executor.#",
        "kongming-executor.*",
        "*.*",
    ],
    usual=3,
)
def test_a_host_can_not_have_copies_of_messages_for_others(secured, key):
    own = f"kongming-executor.{INTRUDER}"

    def to_queue(channel):
        channel.queue_declare(own, durable=True, auto_delete=False)
        channel.queue_bind(own, secured.exchange, key)

    def to_exchange(channel):
        exchange = own_name()
        channel.exchange_declare(exchange, "fanout", auto_delete=False)
        channel.exchange_bind(exchange, secured.exchange, key)

    assert refused(secured, to_queue)
    assert refused(secured, to_exchange)
    assert not refused(secured, lambda channel: channel.queue_bind(own, secured.exchange, own))


def test_a_host_can_not_listen_to_the_exchanges_of_the_broker(secured):
    own = f"kongming-executor.{INTRUDER}"
    for exchange in ("amq.topic", "amq.fanout", "amq.rabbitmq.trace"):
        assert refused(secured, lambda channel, of=exchange: channel.queue_bind(own, of, "#"))


def test_a_host_has_no_other_virtual_host(secured, broker):
    user = secured.user(INTRUDER)
    connection = amqp.Connection(f"127.0.0.1:{broker.port}", user, user, virtual_host="/")
    with pytest.raises(amqp.NotAllowed):
        connection.connect()


def test_a_host_can_not_send_to_another_one_in_the_ordinary_way(secured):
    for key in (
        f"kongming-executor.{HOST}",
        "kongming-executor",
        "kongming-conductor.controller-1",
    ):
        assert refused(
            secured,
            lambda channel, key=key: channel.basic_publish(
                amqp.Message("x"), secured.exchange, key
            ),
        )


# It can put messages into the queues of others, in roundabout ways.


def by_queue_name(channel, _secured, body, queue):
    channel.basic_publish(body, "", queue)


def by_an_exchange_of_its_own(channel, secured, body, queue):
    own = own_name()
    channel.exchange_declare(own, "fanout", auto_delete=False)
    channel.exchange_bind(secured.exchange, own, "")
    channel.basic_publish(body, own, queue)


def by_an_exchange_that_routes_nothing(channel, secured, body, queue):
    own = own_name()
    arguments = {"alternate-exchange": secured.exchange}
    channel.exchange_declare(own, "fanout", auto_delete=False, arguments=arguments)
    channel.basic_publish(body, own, queue)


def by_dead_letters(channel, _secured, body, queue):
    own = own_name()
    arguments = {
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": queue,
        "x-message-ttl": 0,
    }
    channel.queue_declare(own, durable=True, auto_delete=False, arguments=arguments)
    channel.basic_publish(body, "", own)


def by_carbon_copy(channel, secured, body, queue):
    copied = amqp.Message(body.body, **body.properties, application_headers={"CC": [queue]})
    channel.basic_publish(copied, secured.exchange, "kongming-conductor")


WAYS = [
    by_queue_name,
    by_an_exchange_of_its_own,
    by_an_exchange_that_routes_nothing,
    by_dead_letters,
    by_carbon_copy,
]


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_without_signatures_a_host_can_have_guests_of_others_placed(permitted, cpus, way):
    guest = permitted.placed(cpus[1])
    with permitted.channel() as channel:
        body = message("desired", **push(guest.uuid, cpus[0]))
        way(channel, permitted, body, f"kongming-executor.{HOST}")
        guest.wait_on(cpus[0])


@pytest.mark.slow
def test_no_sender_can_apply_a_request_that_the_guard_of_a_host_refuses(permitted, cpus):
    guest = permitted.placed(cpus[1])
    with permitted.channel() as channel:
        body = message("desired", **push(guest.uuid, cpus[0], numa_nodes="0"))
        by_queue_name(channel, permitted, body, f"kongming-executor.{HOST}")
        permitted.executor.wait_log(f"Instance {guest.uuid}: refused (node_not_allowed)")
    guest.wait_on(cpus[1])


@pytest.mark.slow
def test_without_signatures_a_host_can_speak_in_the_name_of_another(permitted, cpus):
    guest = permitted.placed(cpus[1])
    with permitted.channel() as channel:
        body = message("report", host=HOST, reports=[report(guest.uuid)])
        by_queue_name(channel, permitted, body, "kongming-conductor")
        shown = permitted.site.plane.wait_status(guest.uuid, "failed")
    assert (shown["reason"], shown["reported_by"]) == ("forged", HOST)


def test_a_host_can_not_report_instances_that_nova_has_on_another_host(secured, cpus):
    guest = secured.placed(cpus[1])
    mine = secured.intruders()
    reports = [report(guest.uuid), report(mine)]
    with secured.channel() as channel:
        call = own_call(secured, "report", host=INTRUDER, reports=reports)
        channel.basic_publish(call, secured.exchange, "kongming-conductor")
        # It may of its own, and both came in one message.
        shown = secured.site.plane.wait_status(mine, "failed")
    assert shown["reported_by"] == INTRUDER
    assert secured.site.api.get(f"/v1/allocations/{guest.uuid}")["status"] == "applied"


def test_a_host_does_not_learn_of_instances_that_nova_has_on_another_host(secured, cpus):
    guest, mine = secured.placed(cpus[1]), secured.intruders()
    answered = exchanged(secured, guest.uuid, mine)
    assert mine in answered["desired"]
    assert guest.uuid not in answered["desired"]
    assert answered["contested"] == [guest.uuid]


def exchanged(secured, *guests):
    """Return the answer to the intruder if it reports to have some guests."""
    arguments = {
        "host": INTRUDER,
        "executor": {"version": "1", "started_at": time.time(), "interval_s": 60.0},
        "complete": True,
        "guests": guests,
        "known": dict.fromkeys(guests[:1], 0),
        "reports": [],
    }
    context = (
        {SIGNATURE: own_signature(secured, "exchange", arguments)} if secured.signed else None
    )
    with secured.channel() as channel:
        return answer(channel, "exchange", context, **arguments)


def test_a_host_can_claim_instances_that_nova_does_not_know(secured):
    unknown = str(uuid.uuid4())
    secured.site.put(unknown, vcpu_pinning="0")
    wait_until(
        lambda: unknown in exchanged(secured, str(uuid.uuid4()), unknown)["desired"],
        60,
        "the intruder gets the desired allocation",
    )
    secured.site.nova.add(HOST, {}, instance_uuid=unknown)
    wait_until(
        lambda: unknown in exchanged(secured, unknown)["contested"], 60, "until Nova knows it"
    )


def test_only_without_signatures_a_host_can_call_conductors_as_the_api_does(secured, cpus):
    guest = secured.placed(cpus[1])
    arguments = {"instance_uuid": guest.uuid, "allocation": {"vcpu_pinning": str(cpus[0])}}
    with secured.channel() as channel:
        answered = answer(channel, "plan", **arguments)
        if not secured.signed:
            assert (answered["outcome"], answered["host"]) == ("planned", HOST)
            return
        assert answered["error"]["reason"] == "signature_invalid"
        context = {SIGNATURE: own_signature(secured, "plan", arguments)}
        answered = answer(channel, "plan", context, **arguments)
        assert answered["error"]["reason"] == "signature_invalid"


def own_call(secured, method, **arguments):
    """A call as the intruder's own service would send it."""
    if not secured.signed:
        return message(method, **arguments)
    return message(method, {SIGNATURE: own_signature(secured, method, arguments)}, **arguments)


def own_signature(signed, method, arguments):
    signer = Signer(keys.read(str(signed.key(INTRUDER)), INTRUDER), INTRUDER)
    return signer.sign(None, method, arguments).to_json()


def forged(signed, to, method, arguments):
    """Calls that an intruder can make up with what it knows: no signature, its own, and others."""
    own = Signer(keys.read(str(signed.key(INTRUDER)), INTRUDER), INTRUDER)
    claimed = keys.Keys(hosts={HOST: keys.read(str(signed.key(INTRUDER)), INTRUDER).of(INTRUDER)})
    master = keys.Keys([keys.new_master()])
    signatures = [
        None,
        own.sign(to, method, arguments),
        Signer(claimed, HOST).sign(to, method, arguments),
        Signer(master, None).sign(to, method, arguments),
    ]
    for signature in signatures:
        context = {} if signature is None else {SIGNATURE: signature.to_json()}
        yield message(method, context, **arguments)


def test_with_signatures_a_host_can_not_have_guests_of_others_placed(signed, cpus):
    guest = signed.placed(cpus[1])
    before = signed.executor.log().count("desired of")
    queue = f"kongming-executor.{HOST}"
    for way in WAYS:
        for body in forged(signed, HOST, "desired", push(guest.uuid, cpus[0])):
            attempt = refused(signed, lambda channel, w=way, b=body: w(channel, signed, b, queue))
            # RabbitMQ 4 refuses the carbon copy.
            assert attempt == (way is by_carbon_copy and is_strict())
    wait_until(lambda: signed.queues()[queue].ready == 0, 30, "all were taken")
    # A legitimate request afterwards is carried out, with the next generation but one.
    signed.site.put(guest.uuid, vcpu_pinning=f"{cpus[0]}-{cpus[1]}")
    applied = signed.site.plane.wait_status(guest.uuid, "applied")
    assert applied["generation"] == 2
    guest.wait_affinity({vcpu: [cpus[0], cpus[1]] for vcpu in guest.affinity()})
    # One line for all of them.
    assert before <= signed.executor.log().count("desired of") <= 1
    assert "(signature_invalid)" in signed.executor.log()


def test_with_signatures_a_host_can_not_speak_in_the_name_of_another(signed, cpus):
    guest = signed.placed(cpus[1])
    signed.site.put(guest.uuid, vcpu_pinning=str(cpus[0]))
    signed.site.plane.wait_status(guest.uuid, "applied")

    def shown():
        view = signed.site.api.get(f"/v1/hosts/{HOST}")["snapshot"]
        return [each["instance_uuid"] for each in view["guests"]]

    wait_until(lambda: guest.uuid in shown(), 30, "the host has shown its guest")
    about = {"version": "1", "started_at": time.time(), "interval_s": 60.0}
    exchange = {
        "executor": about,
        "complete": True,
        "guests": [guest.uuid],
        "known": {},
        "digest": "",
    }
    reports = {"reports": [report(guest.uuid, 2)]}
    view = {"snapshot": {"cells": [], "guests": []}, "digest": "0" * 64}
    with signed.channel() as channel:
        for method, arguments in (
            ("report", reports),
            ("exchange", exchange | reports),
            ("snapshot", view),
            ("changed", None),
        ):
            named = (
                {"instance_uuids": [guest.uuid]}
                if arguments is None
                else {"host": HOST, **arguments}
            )
            for body in forged(signed, None, method, named):
                by_queue_name(channel, signed, body, "kongming-conductor")
        wait_until(lambda: signed.queues()["kongming-conductor"].ready == 0, 30, "all were taken")
    assert guest.uuid in shown()
    allocation = signed.site.api.get(f"/v1/allocations/{guest.uuid}")
    assert (allocation["status"], allocation["reported_by"]) == ("applied", HOST)
    logged = "".join(each.log() for each in signed.site.plane.conductors)
    assert "Traceback" not in logged
    assert "(signature_invalid)" in logged


def test_with_signatures_a_repeated_call_is_refused(signed, cpus):
    guest = signed.placed(cpus[1])
    mine = signed.intruders()
    arguments = {"host": INTRUDER, "reports": [report(mine)]}
    signature = own_signature(signed, "report", arguments)
    with signed.channel() as channel:
        # To each conductor twice; what oslo.messaging knows copies by is not signed.
        for queue in ("kongming-conductor.controller-1", "kongming-conductor.controller-2") * 2:
            body = message("report", {SIGNATURE: signature}, **arguments)
            by_queue_name(channel, signed, body, queue)
        signed.site.plane.wait_status(mine, "failed")
    for conductor in signed.site.plane.conductors:
        conductor.wait_log("it was received before (replayed)")
    assert signed.site.api.get(f"/v1/allocations/{guest.uuid}")["status"] == "applied"


@pytest.mark.slow
def test_no_message_costs_more_than_its_length(secured, cpus):
    packed = zlib.compress(b'"' + bytes(2**29) + b'"')
    json_of = {"content_type": "application/json", "content_encoding": "utf-8"}
    costly = [
        amqp.Message(packed, application_headers={"compression": "application/x-gzip"}, **json_of),
        amqp.Message(packed, content_type="text/plain", content_encoding="zlib_codec"),
        amqp.Message("x" * 1_000_000, content_type="text/plain", content_encoding="punycode"),
        amqp.Message("[" + "[]," * 10**7 + "[]]", **json_of),
    ]
    services = [secured.executor, *secured.site.plane.conductors]
    pids = [each.process.pid for each in services]
    queues = [f"kongming-executor.{HOST}"]
    queues += [f"kongming-conductor.controller-{number}" for number in (1, 2)]
    with secured.channel() as channel:
        for queue in queues:
            for body in costly:
                channel.basic_publish(body, "", queue)
        wait_until(
            lambda: all(secured.queues()[queue].ready == 0 for queue in queues), 60, "all taken"
        )
    guest = secured.placed(cpus[1])
    secured.site.delete(guest.uuid)
    secured.site.plane.wait_gone(guest.uuid)
    assert [each.process.pid for each in services] == pids
    for pid in pids:
        peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        assert int(peak[1]) < 400 * 1024
    assert "is longer than" in secured.executor.log()


# What it can do to the bus itself.


def test_a_host_can_neither_delete_nor_replace_an_exchange(secured):
    # One in its place could hand all calls to a queue of the intruder's own.
    own = own_name()
    for attempt in (
        lambda channel: channel.exchange_delete(secured.exchange),
        lambda channel: channel.exchange_declare(secured.exchange, "topic", auto_delete=False),
        lambda channel: channel.exchange_declare(
            secured.exchange, "topic", arguments={"alternate-exchange": own}
        ),
        lambda channel: channel.exchange_declare(secured.exchange, "fanout"),
        lambda channel: channel.exchange_delete("kongming-conductor_fanout"),
    ):
        assert refused(secured, attempt)


def test_hosts_share_no_queue_that_one_could_block(secured):
    names = {name for name in secured.queues() if not name.startswith("reply_")}
    of_hosts = {name for name in names if name.startswith("kongming-executor")}
    assert of_hosts <= {f"kongming-executor.{HOST}", f"kongming-executor.{INTRUDER}"}
    for name in ("kongming-executor", "kongming-executor_fanout", "kongming-conductor"):
        assert refused(secured, lambda channel, of=name: channel.queue_declare(of))
        assert refused(secured, lambda channel, of=name: channel.exchange_declare(of, "fanout"))


def test_a_host_waits_for_an_exchange_that_it_may_not_declare(broker, libvirtd, tmp_path):
    secured = Secured(broker, tmp_path, signed=False)
    executor = ExecutorDaemon(
        tmp_path / HOST,
        transport_url=secured.url(HOST),
        connection_uri=libvirtd.uri,
        host=HOST,
        options=OFTEN,
    )
    with contextlib.ExitStack() as ending:
        ending.push(executor.__exit__)
        executor.start_soon()
        executor.wait_log("there is no exchange 'kongming', and Kongming does not declare")
        with secured.channel(None) as channel:
            channel.exchange_declare("kongming", "topic", auto_delete=False)
        executor.wait_ready()


def blocks(document):
    """The commands of a document that are for RabbitMQ, as they are to be typed."""
    text = (DOCUMENTS / document).read_text()
    for block in re.findall(r"code-block:: console\n\n((?: +.*\n|\n)+)", text):
        lines = textwrap.dedent(block).replace("\\\n", " ").splitlines()
        typed = [line[2:] for line in lines if line.startswith("# ")]
        if typed := [line for line in typed if re.search("rabbitmqctl|permissions", line)]:
            yield [line for line in typed if not line.startswith("less")]


def limit(broker, secured):
    """Type the commands that limit queues and connections, with other names."""
    (limits,) = [each for each in blocks("admin/rabbitmq.rst") if "max-connections" in str(each)]
    for line in limits:
        ours = line.replace("-p kongming", f"-p {secured.vhost}")
        broker.run(ours.replace("kongming-compute-1", secured.user(INTRUDER)))


@pytest.fixture
def node(tmp_path):
    """A RabbitMQ as it is after its installation."""
    with Broker(tmp_path / "node") as node:
        yield node


@pytest.mark.slow
def test_the_documented_commands_can_be_typed(node, tmp_path):
    # There is a queue to be deleted, and whoever follows one document has not followed another.
    with contextlib.closing(amqp.Connection(f"127.0.0.1:{node.port}")) as connection:
        connection.connect()
        for document in ("admin/rabbitmq.rst", "install/index.rst", "install/standalone.rst"):
            channel = connection.channel()
            channel.queue_declare("kongming.compute-1", durable=True, auto_delete=False)
            for line in itertools.chain.from_iterable(blocks(document)):
                for made in re.findall(r"rabbitmqctl add_((?:user|vhost) \S+)", line):
                    with contextlib.suppress(RuntimeError):
                        node.run(f"rabbitmqctl delete_{made}")
                node.type(line, tmp_path, answer="secret\n")


def test_the_documented_commands_are_those_of_the_tool():
    (documented,) = [
        each[1:] for each in blocks("admin/rabbitmq.rst") if "set_topic_permissions" in str(each)
    ]
    written = manage("broker", "permissions", "--trigger", "notification", "compute-1")
    assert [*map(shlex.split, documented)] == [*map(shlex.split, written.splitlines())]


def test_a_host_can_fill_queues_of_others_and_limits_bound_it(broker, tmp_path):
    secured = Secured(broker, tmp_path, signed=False)
    queue = f"kongming-executor.{HOST}"
    with secured.channel(HOST) as channel:
        channel.queue_declare(queue, durable=True, auto_delete=False)
    limit(broker, secured)
    most = 10_000
    with secured.channel() as channel:
        for _ in range(most + 50):
            channel.basic_publish(amqp.Message("x"), "", queue)
        wait_until(lambda: secured.queues()[queue].ready == most, 30, "the queue is full")
        # It can count them, if it knows the name.
        assert channel.queue_declare(queue, passive=True).message_count == most
        # RabbitMQ 4 takes no message of more than 16 MiB.
        for _ in range(6):
            channel.basic_publish(amqp.Message(b"x" * 15_000_000), "", queue)
        wait_until(lambda: secured.queues()[queue].ready == 3, 30, "it has as many bytes")
    user = secured.user(INTRUDER)
    broker.run(f"""rabbitmqctl set_user_limits {user} '{{"max-connections":2}}'""")
    with secured.channel(), secured.channel(), pytest.raises(amqp.NotAllowed), secured.channel():
        """A third connection does not come about."""
    with secured.channel() as channel:
        broker.run(f"rabbitmqctl delete_user {user}")
        with pytest.raises(amqp.ConnectionForced):
            wait_until(lambda: channel.queue_declare(queue, passive=True) is None, 30, "the end")


# The notification handler's user.


def test_the_user_of_a_notification_handler_receives_only_events_of_nova(
    broker, libvirtd, tmp_path, cloud, cpus
):
    vhost = f"nova-{next(_number)}"
    broker.add_vhost(vhost)
    user = f"listener-{HOST}"
    broker.add_foreign_user(user)
    commands = manage(
        *("broker", "permissions", "--trigger", "notification", "--vhost", vhost),
        *("--exchange", cloud.exchange, "--prefix", "listener", HOST),
    )
    for line in commands.splitlines():
        broker.run(line)
    daemon = cloud.daemon(
        transport_url=broker.transport_url(vhost, user),
        options=f"[notification_handler]\npool = kongming.{HOST}\n",
    )
    daemon.start_soon()
    # The exchange is Nova's to make.
    daemon.wait_log(f"there is no exchange '{cloud.exchange}', and Kongming does not declare")
    nova = amqp.Connection(f"127.0.0.1:{broker.port}", virtual_host=vhost)
    nova.connect()
    nova.channel().exchange_declare(cloud.exchange, "topic", auto_delete=False)
    nova.close()
    daemon.wait_ready()
    connection = amqp.Connection(f"127.0.0.1:{broker.port}", user, user, virtual_host=vhost)
    connection.connect()
    own = f"kongming.{HOST}"
    for attempt in (
        lambda channel: channel.queue_bind(own, cloud.exchange, "conductor"),
        lambda channel: channel.queue_bind(own, cloud.exchange, "#"),
        lambda channel: channel.queue_bind(own, cloud.exchange, "versioned_notifications.error"),
        lambda channel: channel.queue_declare("conductor", auto_delete=False),
        lambda channel: channel.basic_consume(f"kongming.{INTRUDER}"),
        lambda channel: channel.queue_bind(f"kongming.{INTRUDER}", cloud.exchange, "x"),
        lambda channel: channel.exchange_bind(cloud.exchange, own, ""),
        lambda channel: channel.queue_declare(f"kongming.{INTRUDER}", auto_delete=False),
        # One in its place could hand all of Nova's calls to this user's queue.
        lambda channel: channel.exchange_delete(cloud.exchange),
        lambda channel: channel.exchange_declare(cloud.exchange, "fanout"),
    ):
        with pytest.raises(amqp.AccessRefused):
            attempt(connection.channel())
    for exchange in (cloud.exchange, ""):
        channel = connection.channel()
        channel.basic_publish(amqp.Message("x"), exchange, "conductor")
        with pytest.raises(amqp.AccessRefused):
            channel.basic_qos(0, 1, False)
    # It may make its own queue again, but none whose dead letters go elsewhere.
    assert daemon.stop() == 0
    connection.channel().queue_delete(own)
    for elsewhere in ("", cloud.exchange):
        dead_letters = {"x-dead-letter-exchange": elsewhere}
        with pytest.raises(amqp.AccessRefused):
            connection.channel().queue_declare(own, auto_delete=False, arguments=dead_letters)
    connection.close()
