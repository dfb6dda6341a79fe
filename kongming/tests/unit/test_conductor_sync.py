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

"""The exchange of a host with conductors: answers, errors, and what is sent again."""

import logging
import time
from types import SimpleNamespace

import pytest

from kongming import exception
from kongming.rpc.messages import (
    Acknowledgement,
    Desired,
    ExchangeAnswer,
    ExecutorInfo,
    Refusal,
    Report,
)
from kongming.standalone.conductor_sync import ConductorSync
from kongming.standalone.endpoint import Endpoint
from kongming.tests.databases import instance

UUID, OTHER = instance(), instance(2)
DIGEST = "d" * 64


def report(uuid=UUID, status="applied", generation=1, changed_at=1e9):
    return Report(uuid, generation, status, "", "", "api", "", None, changed_at)


class Conductor:
    """A conductor with given answers, which records its calls."""

    def __init__(self):
        self.answer = ExchangeAnswer({}, ())
        self.acknowledgement = Acknowledgement()
        self.exchanges, self.reports, self.snapshots = [], [], []

    def exchange(self, message):
        self.exchanges.append(message)
        return self._answer(self.answer)

    def report(self, _host, message):
        self.reports.append(list(message))
        return self._answer(self.acknowledgement)

    def send_snapshot(self, _host, _snapshot, digest):
        self.snapshots.append(digest)
        return self._answer(self.acknowledgement)

    def _answer(self, answer):
        if isinstance(answer, Exception):
            raise answer
        return answer


class Host:
    """A host with given reports, which records what it gets."""

    def __init__(self):
        self.conductor = Conductor()
        self.present = {UUID: report()}
        self.accepted, self.forgotten, self.acknowledged = {}, [], []
        self.digest = DIGEST
        self.sync = ConductorSync(
            "compute-1",
            ExecutorInfo("1", 1e9, 60.0),
            self.conductor,
            self,
            guests=lambda: [UUID],
            snapshot=lambda: ({"cells": []}, self.digest),
        )

    def reports(self):
        return dict(self.present)

    def generations(self):
        return dict.fromkeys(self.present, 1)

    def accept_answer(self, instances, _began_at):
        self.accepted |= instances

    def forget(self, instance_uuids):
        self.forgotten += instance_uuids

    def acknowledge(self, reports):
        self.acknowledged += [each.instance_uuid for each in reports]

    def withdraw_metadata(self):
        """Nothing is requested by metadata."""

    def exchange(self):
        self.sync.request()
        return self.step()

    def step(self):
        return self.sync._loop.run_step()

    def change(self, **reports):
        self.present |= {UUID: report(**reports)}
        self.sync.report(UUID)
        return self.step()


@pytest.fixture
def host():
    return Host()


def lines(caplog):
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


def refusal(field="reports", key=UUID):
    return Refusal(field, key, "changed_at: 5 is not a time")


def test_a_refused_report_is_sent_again_only_when_it_changes(host, caplog):
    host.present |= {OTHER: report(OTHER)}
    host.conductor.answer = ExchangeAnswer({}, (), refused=(refusal(),))
    for _ in range(3):
        assert host.exchange() is None
    sent = [
        [each.instance_uuid for each in exchange.reports] for exchange in host.conductor.exchanges
    ]
    assert sent == [[UUID, OTHER], [OTHER], [OTHER]]
    assert host.acknowledged == [OTHER] * 3
    (line,) = lines(caplog)
    assert "1 instances" in line
    assert UUID in line
    host.conductor.answer = ExchangeAnswer({}, ())
    host.present[UUID] = report(changed_at=2e9)
    host.exchange()
    assert len(host.conductor.exchanges[-1].reports) == 2


def test_a_report_that_was_refused_alone_is_sent_again_when_it_changes(host):
    host.exchange()
    host.conductor.acknowledgement = Acknowledgement((refusal(),))
    host.change(status="failed")
    host.change(status="failed")
    assert len(host.conductor.reports) == 1
    host.conductor.acknowledgement = Acknowledgement()
    host.change(status="refused")
    assert [each[0].status for each in host.conductor.reports] == ["failed", "refused"]
    assert host.acknowledged == [UUID, UUID]


def test_a_refused_report_is_sent_again_after_another_one(host):
    host.conductor.answer = ExchangeAnswer({}, (), refused=(refusal(),))
    host.exchange()
    host.change(status="failed")
    host.change(status="applied")
    assert [each[0].status for each in host.conductor.reports] == ["failed", "applied"]


def test_no_request_is_made_for_an_unknown_guest_that_has_stopped(host):
    host.exchange()
    host.sync.request_for(OTHER)
    host.step()
    assert len(host.conductor.exchanges) == 1


def test_a_complete_exchange_has_the_generations_of_all_instances(host):
    host.present |= {OTHER: report(OTHER)}
    host.exchange()
    host.sync.request_for(UUID)
    host.step()
    complete, partial = host.conductor.exchanges
    assert (set(complete.known), set(partial.known)) == ({UUID, OTHER}, {UUID})


def test_a_refused_report_is_forgotten_with_its_instance(host):
    host.conductor.answer = ExchangeAnswer({}, (), refused=(refusal(),))
    host.exchange()
    del host.present[UUID]
    host.conductor.answer = ExchangeAnswer({}, ())
    host.exchange()
    host.present[UUID] = report()
    host.exchange()
    assert len(host.conductor.exchanges[-1].reports) == 1


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            exception.ConductorUnresponsive("nobody"),
            "No conductor is responding (nobody); keeping current placements",
        ),
        (
            exception.MessageInvalid("host: no"),
            "rejects the messages of this host (message_invalid)",
        ),
        (
            exception.SignatureInvalid("clocks"),
            "rejects the messages of this host (signature_invalid)",
        ),
    ],
)
def test_a_conductor_that_fails_or_refuses_is_logged_once(host, caplog, error, expected):
    host.conductor.answer = error
    for _ in range(5):
        assert host.exchange() > 0
    (line,) = lines(caplog)
    assert expected in line
    assert not host.sync.is_available
    host.conductor.answer = ExchangeAnswer({UUID: Desired(2, None)}, (OTHER,))
    assert host.exchange() is None
    assert (host.accepted[UUID].generation, host.forgotten, host.sync.is_available) == (
        2,
        [OTHER],
        True,
    )


@pytest.mark.parametrize(
    "error", [exception.ConductorUnresponsive("x"), exception.MessageInvalid("x")]
)
def test_a_report_without_an_acknowledgement_is_sent_again(host, error):
    host.exchange()
    host.conductor.acknowledgement = error
    assert host.change(status="failed") > 0
    host.conductor.acknowledgement = Acknowledgement()
    assert host.step() is None
    assert len(host.conductor.reports) == 2
    assert host.acknowledged == [UUID, UUID]


def test_a_refused_snapshot_is_sent_again_only_when_it_changes(host, caplog):
    host.conductor.answer = ExchangeAnswer({}, (), send_snapshot=True)
    host.conductor.acknowledgement = exception.MessageInvalid("snapshot: too long")
    for _ in range(3):
        assert host.exchange() is None
    assert host.conductor.snapshots == [DIGEST]
    assert len(lines(caplog)) == 1
    host.digest = "e" * 64
    host.exchange()
    assert host.conductor.snapshots == [DIGEST, "e" * 64]


def test_the_parts_of_a_snapshot_that_a_conductor_ignores_are_logged(host, caplog):
    host.conductor.answer = ExchangeAnswer({}, (), send_snapshot=True)
    host.conductor.acknowledgement = Acknowledgement(
        (refusal("snapshot", ".guests[0]"), refusal("snapshot", ".cells"))
    )
    host.exchange()
    (line,) = lines(caplog)
    assert "ignores 2 parts of this host's snapshot, among them .guests[0]" in line


def test_a_snapshot_is_sent_when_it_changes(host, monkeypatch):
    host.exchange()
    host.change(status="failed")
    host.digest = "e" * 64
    host.step()
    assert host.conductor.snapshots == []
    later = time.monotonic() + 10
    monkeypatch.setattr(time, "monotonic", lambda: later)
    host.step()
    assert host.conductor.snapshots == ["e" * 64]


def test_a_snapshot_that_is_unavailable_is_not_sent(host):
    host.sync._snapshot = lambda: None
    host.conductor.answer = ExchangeAnswer({}, (), send_snapshot=True)
    host.exchange()
    host.sync._send_changed_snapshot()
    assert (host.conductor.exchanges[0].digest, host.conductor.snapshots) == ("", [])


def test_a_contested_unknown_guest_leads_to_a_complete_exchange(host, monkeypatch):
    host.exchange()
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    host.conductor.answer = ExchangeAnswer({}, (), contested=(UUID,))
    host.sync.request_for(UUID)
    host.step()
    assert (host.conductor.exchanges[-1].complete, host.conductor.exchanges[-1].reports) == (
        False,
        (),
    )
    assert not host.sync._schedule.is_due(60.0)
    now += 1.1
    assert host.sync._schedule.is_due(60.0)


class Settled:
    """A settled sync that records requests."""

    is_settled = True

    def __init__(self):
        self.seconds = []

    def request(self, seconds=0.0):
        self.seconds.append(seconds)


@pytest.mark.parametrize(
    ("error", "left_out", "requests"),
    [
        (None, (), []),
        (None, (refusal("instances"),), [5.0]),
        (exception.StoreUnavailable("full"), (), [0.0]),
    ],
)
def test_a_push_that_can_not_be_stored_leads_to_a_request(error, left_out, requests):
    def push(instances):
        if error:
            raise error
        taken.update(instances)

    taken, sync = {}, Settled()
    endpoint = Endpoint("compute-1", None, SimpleNamespace(accept_push=push), sync)
    message = endpoint.methods["desired"].message({UUID: Desired(2, None)}, left_out=left_out)
    endpoint.push(message)
    assert sync.seconds == requests
    assert (UUID in taken) is (error is None)


def test_until_a_conductor_has_answered_a_push_only_leads_to_a_request(host):
    taken = {}
    endpoint = Endpoint("compute-1", None, SimpleNamespace(accept_push=taken.update), host.sync)

    def push(generation):
        endpoint.push(endpoint.methods["desired"].message({UUID: Desired(generation, None)}))

    host.sync.listening()
    host.conductor.answer = exception.ConductorUnresponsive("none answers")
    host.step()
    push(1)
    assert not taken
    host.conductor.answer = ExchangeAnswer({}, ())
    assert host.step() is None
    assert len(host.conductor.exchanges) == 2
    push(2)
    assert taken == {UUID: Desired(2, None)}
    # After an outage, waiting pushes may be old again.
    host.sync.listening()
    push(3)
    assert taken == {UUID: Desired(2, None)}
    assert host.sync._schedule.is_due(60.0)
    host.step()
    push(4)
    assert taken == {UUID: Desired(4, None)}


def test_an_exchange_that_began_before_calls_were_received_settles_no_request(host):
    def listening_meanwhile(message):
        host.sync.listening()
        return real(message)

    real = host.conductor.exchange
    host.conductor.exchange = listening_meanwhile
    host.exchange()
    assert not host.sync.is_settled
    # And the request is not lost.
    assert host.sync._schedule.is_due(60.0)
    host.conductor.exchange = real
    host.step()
    assert host.sync.is_settled


STORE = exception.StoreUnavailable("disk full")


@pytest.mark.parametrize(
    ("error", "pause", "logged"),
    [
        (exception.HypervisorUnavailable("down"), False, []),
        (exception.LibvirtForbids("read-only"), False, []),
        (
            STORE,
            True,
            [
                "Can't request desired allocations from a conductor: disk full; it will be",
            ],
        ),
        (ValueError("odd"), True, ["A fault of Kongming in the exchange with conductors: odd"]),
    ],
)
def test_an_error_of_the_host_itself_delays_the_exchange(host, caplog, error, pause, logged):
    def fail():
        raise error

    host.sync._guests = fail
    assert bool(host.exchange()) is pause
    found = lines(caplog)
    assert len(found) == len(logged)
    assert all(line.startswith(text) for line, text in zip(found, logged, strict=True))
    # No conductor is to blame, and the exchange is still due.
    assert host.sync.is_available
    assert host.sync._schedule.is_due(60.0)
    assert not host.conductor.exchanges


@pytest.mark.parametrize("name", ["accept_answer", "forget", "withdraw_metadata"])
def test_an_answer_that_can_not_be_stored_is_requested_again(host, monkeypatch, name):
    def fail(*_):
        raise STORE

    monkeypatch.setattr(host, name, fail, raising=True)
    assert host.exchange() > 0
    assert not host.sync.is_settled
    monkeypatch.undo()
    assert host.step() is None
    assert len(host.conductor.exchanges) == 2


def test_outcomes_that_can_not_be_read_are_reported_later(host, monkeypatch):
    def fail():
        raise STORE

    host.exchange()
    monkeypatch.setattr(host, "reports", fail)
    assert host.change(status="failed") > 0
    monkeypatch.undo()
    assert host.step() is None
    assert [each[0].status for each in host.conductor.reports] == ["failed"]


def test_a_step_without_a_call_does_not_end_an_outage(host):
    host.exchange()
    host.conductor.acknowledgement = exception.ConductorUnresponsive("x")
    host.change(status="failed")
    host.present = {UUID: report()}
    assert host.step() is None
    assert not host.sync.is_available
