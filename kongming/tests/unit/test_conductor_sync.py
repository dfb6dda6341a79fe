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

"""The sync of a host to the conductors: what it makes of what they answer."""

import logging
import math
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
from kongming.standalone import conductor_sync
from kongming.standalone.conductor_sync import ConductorSync
from kongming.standalone.endpoint import Endpoint
from kongming.tests.databases import instance

UUID, OTHER = instance(), instance(2)
DIGEST = "d" * 64


def report(uuid=UUID, status="applied", generation=1, changed_at=1e9):
    return Report(uuid, generation, status, "", "", "api", "", None, changed_at)


class Conductor:
    """Answers as it is told to, and keeps what it was told."""

    def __init__(self):
        self.answer = ExchangeAnswer({}, ())
        self.kept = Acknowledgement()
        self.exchanges, self.reports, self.snapshots = [], [], []

    def exchange(self, told):
        self.exchanges.append(told)
        return self._said(self.answer)

    def report(self, _host, told):
        self.reports.append(list(told))
        return self._said(self.kept)

    def send_snapshot(self, _host, _snapshot, digest):
        self.snapshots.append(digest)
        return self._said(self.kept)

    def _said(self, answer):
        if isinstance(answer, Exception):
            raise answer
        return answer


class Host:
    """What a host has, and what it is told."""

    def __init__(self):
        self.conductor = Conductor()
        self.told = {UUID: report()}
        self.learned, self.gone, self.confirmed_ = {}, [], []
        self.digest = DIGEST
        self.sync = ConductorSync(
            "compute-1",
            ExecutorInfo("1", 1e9, 60.0),
            self.conductor,
            self,
            guests=lambda: [UUID],
            view=lambda: ({"cells": []}, self.digest),
        )

    def reports(self):
        return dict(self.told)

    def known(self):
        return dict.fromkeys(self.told, 1)

    def learn(self, instances, _asked_at):
        self.learned |= instances

    def let_go(self, instance_uuids):
        self.gone += instance_uuids

    def confirmed(self, reports):
        self.confirmed_ += [each.instance_uuid for each in reports]

    def forget_metadata(self):
        """Nothing was asked by metadata."""

    def ask(self):
        self.sync.ask()
        return self.step()

    def step(self):
        return self.sync._loop.run_step()

    def change(self, **reports):
        self.told |= {UUID: report(**reports)}
        self.sync.note(UUID)
        return self.step()


@pytest.fixture
def host():
    return Host()


def lines(caplog):
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


def refusal(field="reports", key=UUID):
    return Refusal(field, key, "changed_at: 5 is not a time")


def test_a_report_that_is_refused_is_not_told_again_until_it_changes(host, caplog):
    host.told |= {OTHER: report(OTHER)}
    host.conductor.answer = ExchangeAnswer({}, (), refused=(refusal(),))
    for _ in range(3):
        assert host.ask() is None
    sent = [[each.instance_uuid for each in told.reports] for told in host.conductor.exchanges]
    assert sent == [[UUID, OTHER], [OTHER], [OTHER]]
    assert host.confirmed_ == [OTHER] * 3
    (line,) = lines(caplog)
    assert "1 instances" in line
    assert UUID in line
    host.conductor.answer = ExchangeAnswer({}, ())
    host.told[UUID] = report(changed_at=2e9)
    host.ask()
    assert len(host.conductor.exchanges[-1].reports) == 2


def test_a_report_that_was_refused_alone_is_told_again_when_it_changes(host):
    host.ask()
    host.conductor.kept = Acknowledgement((refusal(),))
    host.change(status="failed")
    host.change(status="failed")
    assert len(host.conductor.reports) == 1
    host.conductor.kept = Acknowledgement()
    host.change(status="refused")
    assert [each[0].status for each in host.conductor.reports] == ["failed", "refused"]
    assert host.confirmed_ == [UUID, UUID]


def test_a_report_that_is_as_it_was_when_refused_is_told_again_after_another_one(host):
    host.conductor.answer = ExchangeAnswer({}, (), refused=(refusal(),))
    host.ask()
    host.change(status="failed")
    host.change(status="applied")
    assert [each[0].status for each in host.conductor.reports] == ["failed", "applied"]


def test_a_guest_that_has_gone_before_it_was_asked_about_is_not(host):
    host.ask()
    host.sync.meet(OTHER)
    host.step()
    assert len(host.conductor.exchanges) == 1


def test_all_that_is_known_is_told_whether_it_runs_or_not(host):
    host.told |= {OTHER: report(OTHER)}
    host.ask()
    host.sync.meet(UUID)
    host.step()
    complete, partial = host.conductor.exchanges
    assert (set(complete.known), set(partial.known)) == ({UUID, OTHER}, {UUID})


def test_a_refused_report_is_forgotten_with_its_instance(host):
    host.conductor.answer = ExchangeAnswer({}, (), refused=(refusal(),))
    host.ask()
    del host.told[UUID]
    host.conductor.answer = ExchangeAnswer({}, ())
    host.ask()
    host.told[UUID] = report()
    host.ask()
    assert len(host.conductor.exchanges[-1].reports) == 1


@pytest.mark.parametrize(
    ("error", "said"),
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
def test_a_conductor_that_does_not_take_what_is_told_is_told_of_once(host, caplog, error, said):
    host.conductor.answer = error
    for _ in range(5):
        assert host.ask() > 0
    (line,) = lines(caplog)
    assert said in line
    assert not host.sync.is_available
    host.conductor.answer = ExchangeAnswer({UUID: Desired(2, None)}, (OTHER,))
    assert host.ask() is None
    assert (host.learned[UUID].generation, host.gone, host.sync.is_available) == (2, [OTHER], True)


@pytest.mark.parametrize(
    "error", [exception.ConductorUnresponsive("x"), exception.MessageInvalid("x")]
)
def test_what_was_not_taken_is_reported_again(host, error):
    host.ask()
    host.conductor.kept = error
    assert host.change(status="failed") > 0
    host.conductor.kept = Acknowledgement()
    assert host.step() is None
    assert len(host.conductor.reports) == 2
    assert host.confirmed_ == [UUID, UUID]


def test_a_snapshot_that_is_refused_is_not_shown_again_until_it_changes(host, caplog):
    host.conductor.answer = ExchangeAnswer({}, (), send_snapshot=True)
    host.conductor.kept = exception.MessageInvalid("snapshot: too long")
    for _ in range(3):
        assert host.ask() is None
    assert host.conductor.snapshots == [DIGEST]
    assert len(lines(caplog)) == 1
    host.digest = "e" * 64
    host.ask()
    assert host.conductor.snapshots == [DIGEST, "e" * 64]


def test_a_snapshot_whose_parts_are_left_out_is_told_of(host, caplog):
    host.conductor.answer = ExchangeAnswer({}, (), send_snapshot=True)
    host.conductor.kept = Acknowledgement(
        (refusal("snapshot", ".guests[0]"), refusal("snapshot", ".cells"))
    )
    host.ask()
    (line,) = lines(caplog)
    assert "ignores 2 parts of this host's snapshot, among them .guests[0]" in line


def test_a_snapshot_is_shown_when_it_changes(host, monkeypatch):
    host.ask()
    host.change(status="failed")
    host.digest = "e" * 64
    host.step()
    assert host.conductor.snapshots == []
    later = time.monotonic() + 10
    monkeypatch.setattr(time, "monotonic", lambda: later)
    host.step()
    assert host.conductor.snapshots == ["e" * 64]


def test_a_conductor_is_asked_again_soon_about_what_is_contested(host, monkeypatch):
    # Whole seconds: sums and differences of others are rounded.
    now = float(math.ceil(time.monotonic()))
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr("kongming.runtime.timer.random_between", lambda _low, high: high)
    host.conductor.answer = ExchangeAnswer({}, (), contested=(UUID,))
    host.sync.ask()
    asked_after = []
    for _ in range(7):
        before = now
        while host.step() is None and len(host.conductor.exchanges) <= len(asked_after):
            now += 0.5
        asked_after.append(now - before)
    assert asked_after[1:] == [1, 2, 4, 8, 16, conductor_sync._CONTEST_MAX_S]
    host.conductor.answer = ExchangeAnswer({}, ())
    host.ask()
    assert not host.sync._all.is_due(60.0)
    # The next contest begins anew.
    host.conductor.answer = ExchangeAnswer({}, (), contested=(UUID,))
    host.ask()
    now += 1
    assert host.sync._all.is_due(60.0)


def test_a_snapshot_that_can_not_be_seen_now_is_not_shown(host):
    host.sync._view = lambda: None
    host.conductor.answer = ExchangeAnswer({}, (), send_snapshot=True)
    host.ask()
    host.sync._show()
    assert (host.conductor.exchanges[0].digest, host.conductor.snapshots) == ("", [])


def test_a_guest_that_is_met_is_asked_about_and_again_while_it_is_contested(host, monkeypatch):
    host.ask()
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    host.conductor.answer = ExchangeAnswer({}, (), contested=(UUID,))
    host.sync.meet(UUID)
    host.step()
    assert (host.conductor.exchanges[-1].complete, host.conductor.exchanges[-1].reports) == (
        False,
        (),
    )
    assert not host.sync._all.is_due(60.0)
    now += 1.1
    assert host.sync._all.is_due(60.0)


class Settled:
    """A sync; keeps within how many seconds a conductor is to be asked."""

    is_settled = True

    def __init__(self):
        self.seconds = []

    def ask(self, seconds=0.0):
        self.seconds.append(seconds)


@pytest.mark.parametrize(
    ("error", "left_out", "asked"),
    [
        (None, (), []),
        (None, (refusal("instances"),), [5.0]),
        (exception.StoreUnavailable("full"), (), [0.0]),
    ],
)
def test_what_can_not_be_taken_of_a_push_is_asked_for(error, left_out, asked):
    def push(instances):
        if error:
            raise error
        taken.update(instances)

    taken, sync = {}, Settled()
    endpoint = Endpoint("compute-1", None, SimpleNamespace(push=push), sync)
    told = endpoint.methods["desired"].message({UUID: Desired(2, None)}, left_out=left_out)
    endpoint.push(told)
    assert sync.seconds == asked
    assert (UUID in taken) is (error is None)


def test_until_a_conductor_has_answered_a_push_is_but_a_reason_to_ask(host):
    taken = {}
    endpoint = Endpoint("compute-1", None, SimpleNamespace(push=taken.update), host.sync)

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
    # Calls were not heard for a while: what waited is old again, until it is asked anew.
    host.sync.listening()
    push(3)
    assert taken == {UUID: Desired(2, None)}
    assert host.sync._all.is_due(60.0)
    host.step()
    push(4)
    assert taken == {UUID: Desired(4, None)}


def test_an_answer_to_what_was_asked_before_calls_were_heard_settles_nothing(host):
    def heard_meanwhile(told):
        host.sync.listening()
        return real(told)

    real = host.conductor.exchange
    host.conductor.exchange = heard_meanwhile
    host.ask()
    assert not host.sync.is_settled
    # And what is to be asked is not forgotten with the answer.
    assert host.sync._all.is_due(60.0)
    host.conductor.exchange = real
    host.step()
    assert host.sync.is_settled


def test_when_calls_are_heard_again_not_all_hosts_ask_at_once(host, monkeypatch):
    asked = []
    monkeypatch.setattr(host.sync, "ask", asked.append)
    for _ in range(3):
        host.sync.listening()
    assert asked == [0.0, 5.0, 5.0]


def test_what_is_due_soon_is_not_put_off(host):
    host.sync.ask()
    host.sync.ask(1e6)
    assert host.sync._all.is_due(60.0)
