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

"""What a conductor makes of a host's word: who holds an instance, and who is told what."""

import time
from types import SimpleNamespace

import pytest

from kongming import exception
from kongming.conductor import claims as conductor_claims
from kongming.conductor.claims import LAPSE_S, Claims, Disputes
from kongming.conductor.endpoint import Endpoint
from kongming.db.values import Entry, Outcome
from kongming.rpc.messages import (
    About,
    Changed,
    Exchange,
    Plan,
    PlanAnswer,
    Refusal,
    Reports,
    Show,
    Wanted,
)
from kongming.tests.databases import asking, instance, report

UUID, OTHER = instance(), instance(2)
HERE, THERE = "here", "there"


def entry(host=None, reporter=None, *, project=None, wanted=True, generation=2, uuid=UUID):
    outcome = None
    if reporter is not None:
        outcome = Outcome(reporter, generation, "absent", "", "", "", "", None, 1.0, 1.0)
    allocation = asking(1) if wanted else None
    return Entry(uuid, allocation, generation, project, host, None, "mano", 1.0, 1.0, outcome)


class Conductor:
    """An endpoint on entries in memory."""

    def __init__(self, *entries, nova=True):
        self.entries = {each.instance_uuid: each for each in entries}
        self.reported, self.seen, self.views, self.asked, self.changed = [], [], [], [], []
        self.digest, self.host, self.plan = "", HERE, PlanAnswer("planned", HERE)
        self.endpoint = Endpoint(self, self, self, self, None if nova else Claims(self, self))
        self.claimed, self.hosts = [], []

    # Allocations.
    def desired(self, uuids):
        return {uuid: self.entries[uuid] for uuid in uuids if uuid in self.entries}

    def desired_on(self, host):
        named = self.entries.values()
        return {
            each.instance_uuid: each
            for each in named
            if host == each.host or (each.outcome and each.outcome.host == host)
        }

    def report(self, host, reports, _now, *, nova):
        self.reported.append((host, [(each.instance_uuid, each.status) for each in reports], nova))

    def claim(self, host, uuids, lapsed):
        self.claimed.append((host, sorted(uuids), lapsed))
        return [uuid for uuid in uuids if self.entries[uuid].host in (None, *lapsed)]

    # Hosts.
    def heartbeat(self, name, **about):
        self.seen.append((name, about["version"], about["started_at"], about["interval_s"]))
        return self.digest

    def keep_snapshot(self, name, view, digest, _now):
        self.views.append((name, view, digest))

    def named(self, names):
        return [each for each in self.hosts if each.name in names]

    # Care, and the executors.
    def ask_nova(self, uuids):
        self.asked += uuids

    def take(self, uuids):
        self.changed += uuids

    def host_of(self, _uuid):
        return self.host

    def exchange(self, *, host=HERE, guests=(), known=None, complete=True, digest="", unfit=()):
        told = Exchange(
            host, About("1", 5.0, 60.0), complete, guests, known or {}, (), digest, unfit=unfit
        )
        return self.endpoint.exchange(told)


@pytest.mark.parametrize(
    ("there", "guests", "known", "told"),
    [
        # The holder is told what it does not know.
        (entry(HERE), (UUID,), {}, True),
        (entry(HERE), (), {}, True),
        (entry(HERE), (UUID,), {UUID: 1}, True),
        (entry(HERE), (UUID,), {UUID: 2}, False),
        (entry(HERE, wanted=False), (UUID,), {UUID: 1}, True),
        (entry(HERE, wanted=False), (UUID,), {}, False),
        # Who had it last, while it is nowhere, if it still has to do with it.
        (entry(None, HERE), (), {}, True),
        (entry(None, HERE, project="p"), (UUID,), {}, True),
        (entry(None, HERE, project="p"), (), {}, False),
        # Nobody else is, whatever it says.
        (entry(THERE), (UUID,), {}, False),
        (entry(THERE), (UUID,), {UUID: 1}, False),
        (entry(THERE, HERE), (UUID,), {UUID: 1}, False),
        (entry(None, THERE), (UUID,), {}, False),
        (entry(), (UUID,), {}, False),
        (entry(None, "", project="p"), (UUID,), {}, False),
        # What Nova does not know is told to who runs it.
        (entry(None, ""), (UUID,), {}, True),
        (entry(None, ""), (), {UUID: 1}, False),
    ],
)
def test_only_the_holder_is_told_what_is_wanted(there, guests, known, told):
    answer = Conductor(there).exchange(guests=guests, known=known)
    assert (UUID in answer.wanted) is told
    if told:
        asked = there.allocation.to_json() if there.allocation else None
        assert answer.wanted[UUID] == Wanted(2, asked, "mano")


@pytest.mark.parametrize(
    ("there", "contested", "asked"),
    [
        (entry(HERE), False, False),
        (entry(THERE), True, True),
        (entry(THERE, HERE), True, True),
        (entry(), True, True),
        (entry(None, HERE), False, True),
        (entry(None, THERE), True, True),
        (entry(None, ""), False, True),
        (entry(None, "", project="p"), True, True),
    ],
)
def test_what_runs_where_it_should_not_is_contested_and_nova_is_asked(there, contested, asked):
    conductor = Conductor(there)
    answer = conductor.exchange(guests=(UUID, OTHER))
    assert answer.contested == ((UUID,) if contested else ())
    assert conductor.asked == ([UUID] if asked else [])


@pytest.mark.parametrize(
    ("there", "guests", "elsewhere", "unknown"),
    [
        ([entry(THERE)], (), True, False),
        ([entry(THERE)], (UUID,), False, False),
        ([entry(HERE)], (), False, False),
        ([entry()], (), False, False),
        ([entry(None, None, project="p")], (), True, False),
        ([], (), True, False),
        ([], (UUID,), False, True),
    ],
)
def test_what_is_known_and_gone_is_let_go(there, guests, elsewhere, unknown):
    answer = Conductor(*there).exchange(guests=guests, known={UUID: 2})
    assert answer.elsewhere == ((UUID,) if elsewhere else ())
    assert answer.wanted == ({UUID: Wanted(0, None)} if unknown else {})


@pytest.mark.parametrize(
    ("there", "known", "released"),
    [
        (entry(HERE, wanted=False), {}, True),
        (entry(HERE, wanted=False), {UUID: 1}, False),
        (entry(HERE), {}, False),
        (entry(None, HERE, wanted=False), {}, True),
        (entry(THERE, wanted=False), {}, False),
        (entry(THERE, HERE, wanted=False), {}, False),
        (entry(wanted=False), {}, False),
    ],
)
def test_what_the_holder_knows_nothing_of_is_released(there, known, released):
    conductor = Conductor(there)
    conductor.exchange(guests=(UUID,), known=known)
    assert conductor.reported == [(HERE, [(UUID, "released")] if released else [], True)]


def test_a_complete_exchange_is_a_heartbeat_and_asks_for_the_view_if_it_is_another():
    conductor = Conductor(entry(HERE, uuid=OTHER))
    conductor.digest = "a"
    assert conductor.exchange(digest="b").show is True
    assert conductor.exchange(digest="a").show is False
    assert conductor.exchange(digest="").show is False
    assert conductor.seen == [(HERE, "1", 5.0, 60.0)] * 3
    answer = conductor.exchange(guests=(UUID,), complete=False, digest="b")
    assert (answer.show, answer.wanted, len(conductor.seen)) == (False, {}, 3)


def test_what_was_not_taken_goes_back():
    refusal = Refusal("reports", UUID, "x")
    conductor = Conductor()
    assert conductor.exchange(unfit=(refusal,)).refused == (refusal,)
    told = Reports(HERE, (report(UUID, changed_at=1e9),), unfit=(refusal,))
    assert conductor.endpoint.report(told).refused == (refusal,)
    assert conductor.reported[-1] == (HERE, [(UUID, "applied")], True)
    shown = Show(HERE, {"cells": []}, "d", unfit=(refusal,))
    assert conductor.endpoint.show(shown).refused == (refusal,)
    assert conductor.views == [(HERE, {"cells": []}, "d")]


def test_the_methods_say_who_may_call_them():
    methods = Conductor().endpoint.methods
    assert {name for name, method in methods.items() if method.by_host} == {
        "exchange",
        "report",
        "show",
    }
    assert set(methods) == {"exchange", "report", "show", "changed", "plan"}


def test_a_dry_run_is_the_hosts_answer_or_says_why_there_is_none():
    conductor = Conductor()
    said = [conductor.plan, exception.HostSilent("no"), exception.MessageInvalid("odd")]

    def plan(_host, _question):
        answer = said.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    conductor.endpoint._executors = SimpleNamespace(plan=plan)
    question = Plan(UUID, {})
    assert conductor.endpoint.plan(question) == PlanAnswer("planned", HERE)
    assert conductor.endpoint.plan(question) == PlanAnswer("silent", message="no")
    assert "rejects the request: odd" in conductor.endpoint.plan(question).message
    conductor.host = None
    nowhere = conductor.endpoint.plan(question)
    assert (nowhere.outcome, nowhere.reason) == ("absent", "guest_absent")
    conductor.endpoint.changed(Changed((UUID,)))
    assert conductor.changed == [UUID]


def test_without_nova_what_no_host_has_is_won_and_told():
    conductor = Conductor(entry(), entry(THERE, uuid=OTHER), nova=False)
    conductor.hosts = [SimpleNamespace(name=THERE, heartbeat_at=time.time())]
    answer = conductor.exchange(guests=(UUID, OTHER, instance(3)))
    assert (list(answer.wanted), answer.contested) == ([UUID], (OTHER,))
    assert conductor.claimed == [(HERE, [UUID, OTHER], set())]
    assert (conductor.asked, conductor.reported[0][2]) == ([], False)
    conductor = Conductor(entry(HERE), nova=False)
    conductor.exchange(guests=(UUID,))
    assert conductor.claimed == []


@pytest.mark.parametrize(
    ("age", "lapsed"), [(LAPSE_S - 5, False), (LAPSE_S + 5, True), (None, True)]
)
def test_without_nova_a_host_that_is_not_heard_of_for_long_has_nothing(age, lapsed):
    conductor = Conductor(entry(THERE), nova=False)
    if age is not None:
        conductor.hosts = [SimpleNamespace(name=THERE, heartbeat_at=time.time() - age)]
    answer = conductor.exchange(guests=(UUID,))
    assert conductor.claimed == [(HERE, [UUID], {THERE} if lapsed else set())]
    assert (UUID in answer.wanted) is lapsed


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(time, "monotonic", lambda: now.seconds)
    return now


def test_a_dispute_is_told_once_when_it_lasts_and_again_after_an_hour(clock):
    disputes, told = Disputes(), []
    for seconds in (1000.0, 1059.9, 1060.0, 1061.0, 4599.0, 4600.0, 4659.0, 4660.0):
        clock.seconds = seconds
        if disputes.note(HERE, [UUID]):
            told.append(seconds)
    assert told == [1060.0, 4660.0]


@pytest.mark.parametrize("nova", [True, False])
def test_a_claim_that_is_contradicted_for_long_is_told_with_both_hosts(clock, caplog, nova):
    conductor = Conductor(entry(THERE), entry(HERE, uuid=OTHER), nova=nova)
    conductor.hosts = [SimpleNamespace(name=THERE, heartbeat_at=time.time())]
    for _ in range(3):
        conductor.exchange(guests=(UUID, OTHER))
        clock.seconds += 40
    (record,) = caplog.records
    said = record.getMessage()
    assert said.startswith(f"Instance {UUID}: host {HERE} reports it as running")
    assert f" host {THERE}, which" in said or f"on {THERE}:" in said
    assert ("nova.conf" in said) is nova


def test_disputes_of_different_hosts_and_instances_are_told_apart(clock):
    disputes = Disputes()
    disputes.note(HERE, [UUID])
    clock.seconds += 60
    disputes.note(HERE, [OTHER])
    assert disputes.note(THERE, [UUID]) == []
    assert disputes.note(HERE, [OTHER, UUID]) == [UUID]


def test_the_disputes_that_are_remembered_have_an_end(clock, monkeypatch):
    monkeypatch.setattr(conductor_claims, "_REMEMBERED_MAX", 2)
    disputes = Disputes()
    disputes.note(HERE, [instance(number) for number in range(5)])
    assert len(disputes._claims) == 2
    clock.seconds += 60
    assert disputes.note(HERE, [instance(number) for number in range(5)]) == [
        instance(0),
        instance(1),
    ]
