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

"""Calls between services: what comes of them when the other side is not there, or odd."""

from concurrent.futures import ThreadPoolExecutor
import threading
import uuid

import pytest

from kongming import exception
from kongming.bus.subscription import Subscription
from kongming.cmd import launch
from kongming.rpc import calls, keys
from kongming.rpc.bus import CONDUCTOR, Bus, open_bus, subscription
from kongming.rpc.calls import Caller
from kongming.rpc.messages import Acknowledgement, Changed, PlanAnswer, Reports
from kongming.rpc.server import Method, Server
from kongming.rpc.signing import Signer
from kongming.tests.databases import instance, report
from kongming.tests.functional.cloud import wait_for
from kongming.tests.testbed.process import free_port, patience

MASTER = bytes(range(32))
OTHER = bytes(range(1, 33))
REPORTS = Reports("compute-1", (report(instance(), changed_at=1e9),))
CHANGED = Changed((instance(),))


def good(message):
    return PlanAnswer("planned", message=f"{len(message.instance_uuids)} instances")


def unable(_message):
    raise exception.DatabaseUnavailable("the database is unavailable")


def faulty(_message):
    raise ZeroDivisionError("a fault of ours")


METHODS = {
    "good": Method(Changed, good),
    "unable": Method(Changed, unable),
    "faulty": Method(Changed, faulty),
    "odd": Method(Changed, lambda _message: Acknowledgement()),
    "report": Method(Reports, lambda _message: Acknowledgement(), by_host=True),
}


def configured(tmp_path, url, options=""):
    path = tmp_path / "kongming.conf"
    path.write_text(f"[DEFAULT]\nstate_path = {tmp_path}\ntransport_url = {url}\n{options}")
    return launch.configure(["--config-file", str(path)])


@pytest.fixture
def transport(tmp_path):
    return open_bus(configured(tmp_path, f"fake:///{uuid.uuid4()}")).transport


@pytest.fixture
def serve(transport):
    """Serve the calls to a conductor; returns its side of the bus."""
    served = []

    def start(signer=None):
        listening = []
        bus = Bus(transport, signer)
        server = Server(METHODS, signer, bus.refusals)
        taking: Subscription = subscription(
            bus, CONDUCTOR, "here", server, lambda: listening.append(True), ""
        )
        taking.start()
        served.append(taking)
        wait_for(lambda: listening)
        return bus

    yield start
    for taking in served:
        taking.stop(5)


def caller_of(transport, signer=None):
    return Caller(Bus(transport, signer), CONDUCTOR, exception.ConductorUnresponsive, 10.0)


def controller(master=MASTER, **options):
    return Signer(keys.Keys([master]), None, **options)


def host(name="compute-1", master=MASTER, **options):
    derived = keys.Keys(hosts={name: [keys.derive(master, name)]})
    return Signer(derived, name, **options)


def test_a_call_returns_its_answer(serve, transport):
    serve()
    caller = caller_of(transport)
    assert caller.call("good", CHANGED, PlanAnswer).message == "1 instances"
    assert caller.call("good", Changed(()), PlanAnswer, "here").message == "0 instances"


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("unable", "the database is unavailable"),
        ("faulty", "a fault of Kongming .ZeroDivisionError"),
        ("odd", "outcome is missing"),
    ],
)
def test_an_invalid_answer_counts_as_unavailable_with_its_reason(serve, transport, method, reason):
    serve()
    with pytest.raises(exception.ConductorUnresponsive, match=reason):
        caller_of(transport).call(method, CHANGED, PlanAnswer)


def test_a_rejected_call_differs_from_a_missing_answer(serve, transport):
    bus = serve()
    with pytest.raises(exception.MessageInvalid, match="there is no such method"):
        caller_of(transport).call("more", CHANGED, Acknowledgement)
    assert bus.refusals.counts == {("other", "message_invalid"): 1}


def test_calls_and_answers_that_are_signed_are_believed(serve, transport):
    serve(controller())
    assert (
        caller_of(transport, host()).call("report", REPORTS, Acknowledgement) == Acknowledgement()
    )
    planned = caller_of(transport, controller()).call("good", CHANGED, PlanAnswer)
    assert planned.outcome == "planned"


@pytest.mark.parametrize(
    ("signer", "method", "message", "reason"),
    [
        (None, "report", REPORTS, "not signed"),
        (host(master=OTHER), "report", REPORTS, "is not that of compute-1"),
        (
            host("compute-2"),
            "report",
            REPORTS,
            "compute-2 signed a message that only compute-1 may send",
        ),
        (
            controller(),
            "report",
            REPORTS,
            "a controller signed a message that only compute-1 may send",
        ),
        (host(), "good", CHANGED, "compute-1 signed a message that only controllers may send"),
        (None, "good", CHANGED, "not signed"),
    ],
)
def test_a_call_that_does_not_prove_its_sender_is_refused(
    serve, transport, signer, method, message, reason
):
    bus = serve(controller())
    with pytest.raises(
        (exception.ConductorUnresponsive, exception.SignatureInvalid), match=reason
    ):
        caller_of(transport, signer).call(method, message, Acknowledgement)
    assert bus.refusals.counts == {(method, "signature_invalid"): 1}


def test_an_answer_that_is_not_signed_is_not_believed(serve, transport):
    serve()
    caller = caller_of(transport, host())
    with pytest.raises(exception.ConductorUnresponsive, match="answer is not signed"):
        caller.call("report", REPORTS, Acknowledgement)


def test_unsigned_calls_and_answers_count_while_signatures_are_not_required(serve, transport):
    serve(controller(required=False))
    assert caller_of(transport).call("report", REPORTS, Acknowledgement) == Acknowledgement()
    assert (
        caller_of(transport, host()).call("report", REPORTS, Acknowledgement) == Acknowledgement()
    )
    with pytest.raises(exception.ConductorUnresponsive, match="is not that of compute-1"):
        caller_of(transport, host(master=OTHER)).call("report", REPORTS, Acknowledgement)


def test_answers_that_are_not_signed_count_while_signatures_are_not_required(serve, transport):
    serve()
    caller = caller_of(transport, host(required=False))
    assert caller.call("report", REPORTS, Acknowledgement) == Acknowledgement()


def test_an_absent_receiver_is_reported_after_the_timeout(transport):
    caller = Caller(Bus(transport), CONDUCTOR, exception.HostUnresponsive, 0.1)
    with pytest.raises(exception.HostUnresponsive, match="on host nowhere did not answer"):
        caller.call("good", CHANGED, Acknowledgement, "nowhere")


def test_a_broker_that_is_away_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(calls, "OPEN_S", 0.1)
    conf = configured(tmp_path, f"rabbit://guest:sesame@127.0.0.1:{free_port()}/")
    caller = Caller(open_bus(conf), CONDUCTOR, exception.ConductorUnresponsive, 0.1)
    for _ in range(2):
        with pytest.raises(exception.ConductorUnresponsive, match="RabbitMQ can't be reached"):
            caller.call("good", CHANGED, Acknowledgement)
        with pytest.raises(exception.ConductorUnresponsive, match="can't be called") as raised:
            caller.cast("good", CHANGED)
    assert "sesame" not in str(raised.value)


class Stuck:
    """The driver's client while RabbitMQ takes no messages: nothing returns."""

    def __init__(self):
        self.calls = []
        self.free = threading.Event()

    def prepare(self, **_):
        return self

    def call(self, _context, method, **_):
        self.calls.append(method)
        assert self.free.wait(30 * patience())
        return Acknowledgement().to_json()


@pytest.fixture
def stuck(transport, monkeypatch):
    """A caller, and the client that it has; an answer is waited for at once or never."""
    monkeypatch.setattr(calls, "OPEN_S", 0.0)
    client = Stuck()
    monkeypatch.setattr(calls.oslo_messaging, "get_rpc_client", lambda *_, **__: client)
    yield Caller(Bus(transport), CONDUCTOR, exception.ConductorUnresponsive, 0.0), client
    client.free.set()


def test_a_broker_that_accepts_no_messages_is_not_waited_for(stuck):
    caller, client = stuck
    for _ in range(3):
        with pytest.raises(exception.ConductorUnresponsive, match="memory or disk alarm"):
            caller.call("good", CHANGED, Acknowledgement)
    # The others have not even tried.
    assert client.calls == ["good"]


def test_calls_resume_once_the_broker_accepts_messages_again(stuck, monkeypatch):
    caller, client = stuck
    with pytest.raises(exception.ConductorUnresponsive):
        caller.call("good", CHANGED, Acknowledgement)
    monkeypatch.setattr(calls, "OPEN_S", 30.0)
    client.free.set()
    wait_for(lambda: caller._stuck.done())
    assert caller.call("report", CHANGED, Acknowledgement) == Acknowledgement()
    assert client.calls == ["good", "report"]


def test_calls_that_were_under_way_before_wait_for_themselves(stuck, monkeypatch):
    caller, client = stuck
    monkeypatch.setattr(calls, "OPEN_S", 30.0)
    with ThreadPoolExecutor(4) as pool:
        under_way = [pool.submit(caller.call, "good", CHANGED, Acknowledgement) for _ in range(4)]
        wait_for(lambda: len(client.calls) == 4)
        client.free.set()
        assert [each.result(30) for each in under_way] == [Acknowledgement()] * 4


def test_a_wrong_url_is_reported(tmp_path):
    with pytest.raises(exception.ConfigInvalid, match="transport_url"):
        open_bus(configured(tmp_path, "carrier-pigeon://loft/"))


def test_a_key_file_is_read_for_the_program_that_uses_it(tmp_path):
    key_file = tmp_path / "rpc.key"
    key_file.write_text(f"# of the cloud\n\n{keys.written(MASTER)}\n")
    options = f"[rpc]\nkey_file = {key_file}\n"
    conf = configured(tmp_path, "fake://", options)
    assert open_bus(conf).signer is not None
    with pytest.raises(exception.ConfigInvalid, match="no compute host may hold"):
        open_bus(conf, "compute-1")
    key_file.write_text(f"{keys.written(keys.derive(MASTER, 'compute-1'), 'compute-1')}\n")
    assert open_bus(conf, "compute-1").signer is not None
    with pytest.raises(exception.ConfigInvalid, match="is the key of host compute-1"):
        open_bus(conf, "compute-2")
    with pytest.raises(exception.ConfigInvalid, match="need the master key"):
        open_bus(conf)
