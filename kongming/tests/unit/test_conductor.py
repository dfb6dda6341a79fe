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

"""How a conductor uses a host's reports: which host holds an instance, and who is notified."""

import threading
import time
from types import SimpleNamespace

import pytest

from kongming import exception
from kongming.conductor import claims as conductor_claims
from kongming.conductor import dry_runs
from kongming.conductor.claims import LAPSE_S, Disputes, HostClaims, NovaClaims
from kongming.conductor.dry_runs import DryRuns
from kongming.conductor.endpoint import Endpoint
from kongming.conductor.notifications import Notifications
from kongming.rpc.messages import (
    Changed,
    Exchange,
    ExecutorInfo,
    HostSnapshot,
    Plan,
    PlanAnswer,
    Plans,
    PlansAnswer,
    Refusal,
    Reports,
)
from kongming.tests.databases import instance, report
from kongming.tests.unit.entries import HERE, OTHER, THERE, UUID, entry


class Conductor:
    """An endpoint on entries in memory."""

    def __init__(self, *entries, nova=True):
        self.entries = {each.instance_uuid: each for each in entries}
        self.reported, self.heartbeats, self.views, self.looked_up, self.changed = (
            [],
            [],
            [],
            [],
            [],
        )
        self.digest, self.host, self.plan = "", HERE, PlanAnswer("planned", HERE)
        claims = NovaClaims(self.locate_soon) if nova else HostClaims(self, self)
        self.endpoint = Endpoint(self, self, self, self, claims, Notifications(None))
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
        return []

    def claim(self, host, uuids, lapsed):
        self.claimed.append((host, sorted(uuids), lapsed))
        return [uuid for uuid in uuids if self.entries[uuid].host in (None, *lapsed)]

    # Hosts.
    def heartbeat(self, name, **about):
        self.heartbeats.append((name, about["version"], about["started_at"], about["interval_s"]))
        return self.digest

    def keep_snapshot(self, name, view, digest, _now):
        self.views.append((name, view, digest))

    def named(self, names):
        return [each for each in self.hosts if each.name in names]

    # Delivery, and the executors.
    def locate_soon(self, uuids):
        self.looked_up += uuids

    def deliver(self, uuids):
        self.changed += uuids

    def host_of(self, _uuid):
        return self.host

    def exchange(self, *, host=HERE, guests=(), known=None, complete=True, digest="", left_out=()):
        sent = Exchange(
            host,
            ExecutorInfo("1", 5.0, 60.0),
            complete,
            guests,
            known or {},
            (),
            digest,
            left_out=left_out,
        )
        return self.endpoint.exchange(sent)


@pytest.mark.parametrize(
    ("there", "contested", "looked_up"),
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
def test_a_guest_on_the_wrong_host_is_contested_and_looked_up_in_nova(there, contested, looked_up):
    conductor = Conductor(there)
    answer = conductor.exchange(guests=(UUID, OTHER))
    assert answer.contested == ((UUID,) if contested else ())
    assert conductor.looked_up == ([UUID] if looked_up else [])


def test_a_complete_exchange_is_a_heartbeat_and_requests_a_snapshot_that_differs():
    conductor = Conductor(entry(HERE, uuid=OTHER))
    conductor.digest = "a"
    assert conductor.exchange(digest="b").send_snapshot is True
    assert conductor.exchange(digest="a").send_snapshot is False
    assert conductor.exchange(digest="").send_snapshot is False
    assert conductor.heartbeats == [(HERE, "1", 5.0, 60.0)] * 3
    answer = conductor.exchange(guests=(UUID,), complete=False, digest="b")
    assert (answer.send_snapshot, answer.desired, len(conductor.heartbeats)) == (False, {}, 3)


def test_refused_items_are_returned_to_the_host():
    refusal = Refusal("reports", UUID, "x")
    conductor = Conductor()
    assert conductor.exchange(left_out=(refusal,)).refused == (refusal,)
    reports = Reports(HERE, (report(UUID, changed_at=1e9),), left_out=(refusal,))
    assert conductor.endpoint.report(reports).refused == (refusal,)
    assert conductor.reported[-1] == (HERE, [(UUID, "applied")], True)
    shown = HostSnapshot(HERE, {"cells": []}, "d", left_out=(refusal,))
    assert conductor.endpoint.snapshot(shown).refused == (refusal,)
    assert conductor.views == [(HERE, {"cells": []}, "d")]


def test_the_methods_name_their_permitted_callers():
    methods = Conductor().endpoint.methods
    assert {name for name, method in methods.items() if method.by_host} == {
        "exchange",
        "report",
        "snapshot",
    }
    assert set(methods) == {"exchange", "report", "snapshot", "changed", "plan", "plan_all"}


def unresponsive(host, message):
    return PlanAnswer("unresponsive", host, "host_unresponsive", message)


class Executors:
    """Executors of hosts, of which some are of an older version, and some do not respond."""

    def __init__(self, host_timeout=10.0):
        self.host_timeout = host_timeout
        self.calls, self.answers = [], {}
        self._lock = threading.Lock()

    def plan(self, host, plan):
        return self._call("plan", host, PlanAnswer("planned", host, steps=()))

    def plan_all(self, host, plans):
        answer = PlansAnswer({uuid: PlanAnswer("planned", host) for uuid in plans.instances})
        return self._call("plan_all", host, answer)

    def _call(self, method, host, answer):
        with self._lock:
            self.calls.append((method, host))
        special = self.answers.get((method, host), answer)
        if callable(special):
            return special()
        if isinstance(special, Exception):
            raise special
        return special


def located(number, hosts):
    """Return a delivery for instances that are on some hosts in turn."""
    found = {instance(each): f"compute-{each % hosts}" for each in range(1, number + 1)}
    return found, SimpleNamespace(hosts_of=lambda _uuids: found)


def test_a_map_of_1000_instances_is_planned_with_one_call_to_each_host():
    hosts, delivery = located(1000, 10)
    executors = Executors()
    requested = Plans({uuid: {"vcpu_pinning": "1"} for uuid in hosts})
    plans = DryRuns(executors, delivery).plan_all(requested).plans
    assert {uuid: plan.host for uuid, plan in plans.items()} == hosts
    assert list(plans) == list(hosts)
    assert sorted(executors.calls) == [("plan_all", f"compute-{each}") for each in range(10)]


def test_a_host_without_an_answer_does_not_affect_the_plans_of_others(monkeypatch):
    hosts, delivery = located(4, 4)
    monkeypatch.setattr(dry_runs, "_READ_S", 0.1)
    executors, never = Executors(0.1), threading.Event()
    executors.answers = {
        ("plan_all", "compute-1"): exception.HostUnresponsive("it is down"),
        ("plan_all", "compute-2"): never.wait,
        ("plan_all", "compute-3"): exception.SignatureInvalid("another key"),
    }
    requested = Plans({uuid: {} for uuid in [*hosts, instance(9)]})
    plans = DryRuns(executors, delivery).plan_all(requested).plans
    never.set()
    assert [plans[instance(each)] for each in range(1, 5)] == [
        unresponsive("compute-1", "it is down"),
        unresponsive("compute-2", "host compute-2 gave no plans within 0.2 s"),
        unresponsive("compute-3", "host compute-3 rejects the request: another key"),
        PlanAnswer("planned", "compute-0"),
    ]
    assert (plans[instance(9)].outcome, plans[instance(9)].reason) == ("absent", "guest_absent")


def test_an_executor_of_an_older_version_plans_one_instance_at_a_time():
    hosts, delivery = located(3, 1)
    executors = Executors()
    executors.answers["plan_all", "compute-0"] = exception.MessageInvalid("no such method")
    first, second, third = hosts
    requested = Plans({first: {}, second: None, third: {}})
    plans = DryRuns(executors, delivery).plan_all(requested).plans
    assert [plan.outcome for plan in plans.values()] == ["planned", "failed", "planned"]
    assert "does not consider the other instances" in plans[first].warnings[0]
    assert "does not plan releases" in plans[second].message
    assert executors.calls == [("plan_all", "compute-0"), *[("plan", "compute-0")] * 2]
    late = DryRuns(executors, delivery)._one_by_one("compute-0", Plans({first: {}}), 0.0)
    assert late[first].outcome == "unresponsive"


def test_a_plan_that_the_answer_lacks_has_failed():
    _, delivery = located(1, 1)
    executors = Executors()
    executors.answers["plan_all", "compute-0"] = PlansAnswer({})
    plans = DryRuns(executors, delivery).plan_all(Plans({instance(1): {}})).plans
    assert plans[instance(1)].outcome == "failed"


def test_a_dry_run_returns_the_hosts_answer_or_the_reason_for_its_absence():
    conductor = Conductor()
    answers = [conductor.plan, exception.HostUnresponsive("no"), exception.MessageInvalid("odd")]

    def plan(_host, _question):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    planning = DryRuns(SimpleNamespace(plan=plan), conductor)
    question = Plan(UUID, {})
    assert planning.plan(question) == PlanAnswer("planned", HERE)
    assert planning.plan(question) == unresponsive(HERE, "no")
    assert "rejects the request: odd" in planning.plan(question).message
    conductor.host = None
    nowhere = planning.plan(question)
    assert (nowhere.outcome, nowhere.reason) == ("absent", "guest_absent")
    conductor.endpoint.changed(Changed((UUID,)))
    assert conductor.changed == [UUID]


def test_without_nova_an_unclaimed_instance_is_won_and_reported():
    conductor = Conductor(entry(), entry(THERE, uuid=OTHER), nova=False)
    conductor.hosts = [SimpleNamespace(name=THERE, heartbeat_at=time.time())]
    answer = conductor.exchange(guests=(UUID, OTHER, instance(3)))
    assert (list(answer.desired), answer.contested) == ([UUID], (OTHER,))
    assert conductor.claimed == [(HERE, [UUID, OTHER], set())]
    assert (conductor.looked_up, conductor.reported[0][2]) == ([], False)
    conductor = Conductor(entry(HERE), nova=False)
    conductor.exchange(guests=(UUID,))
    assert conductor.claimed == []


@pytest.mark.parametrize(
    ("age", "lapsed"), [(LAPSE_S - 5, False), (LAPSE_S + 5, True), (None, True)]
)
def test_without_nova_a_host_that_is_unresponsive_for_long_holds_no_instance(age, lapsed):
    conductor = Conductor(entry(THERE), nova=False)
    if age is not None:
        conductor.hosts = [SimpleNamespace(name=THERE, heartbeat_at=time.time() - age)]
    answer = conductor.exchange(guests=(UUID,))
    assert conductor.claimed == [(HERE, [UUID], {THERE} if lapsed else set())]
    assert (UUID in answer.desired) is lapsed


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(time, "monotonic", lambda: now.seconds)
    return now


def test_a_dispute_is_logged_once_when_it_lasts_and_again_after_an_hour(clock):
    disputes, logged = Disputes(), []
    for seconds in (1000.0, 1059.9, 1060.0, 1061.0, 4599.0, 4600.0, 4659.0, 4660.0):
        clock.seconds = seconds
        if disputes.note(HERE, [UUID]):
            logged.append(seconds)
    assert logged == [1060.0, 4660.0]


@pytest.mark.parametrize("nova", [True, False])
def test_a_claim_that_is_contradicted_for_long_is_logged_with_both_hosts(clock, caplog, nova):
    conductor = Conductor(entry(THERE), entry(HERE, uuid=OTHER), nova=nova)
    conductor.hosts = [SimpleNamespace(name=THERE, heartbeat_at=time.time())]
    for _ in range(3):
        conductor.exchange(guests=(UUID, OTHER))
        clock.seconds += 40
    (record,) = caplog.records
    message = record.getMessage()
    assert message.startswith(f"Instance {UUID}: host {HERE} reports it as running")
    assert f" host {THERE}, which" in message or f"on {THERE}:" in message
    assert ("nova.conf" in message) is nova


def test_disputes_of_different_hosts_and_instances_are_logged_separately(clock):
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
