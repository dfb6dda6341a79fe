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

"""What a conductor believes of what comes over the bus, and what odd rows do to those who read.

A database, a conductor's calls and the API, without a broker: messages are handed over as they
would come.
"""

import functools
import json
import logging
import shutil
import time
from types import SimpleNamespace

import falcon.testing
import pytest
from sqlalchemy import text

from kongming import exception
from kongming.api.application import make_application
from kongming.conductor import claims as conductor_claims
from kongming.conductor.claims import HostClaims, NovaClaims
from kongming.conductor.delivery import Delivery
from kongming.conductor.endpoint import Endpoint
from kongming.conductor.metrics import ConductorCollector
from kongming.conductor.notifications import Notifications
from kongming.conductor.nova_sync import NovaSync
from kongming.conductor.pusher import Pusher
from kongming.conf.api import NOAUTH
from kongming.db.allocations import Allocations
from kongming.db.database import Database
from kongming.db.hosts import Hosts
from kongming.db.leases import Leases
from kongming.db.values import Location
from kongming.nova.polling import PollIntervals
from kongming.rpc.messages import PlanAnswer, PlansAnswer
from kongming.rpc.refusals import Refusals
from kongming.rpc.server import Server
from kongming.tests.databases import BY, asking, configuration, database, instance
from kongming.tests.hosts import guest as occupant
from kongming.tests.hosts import host as topology
from kongming.tests.testbed.nova_api import PROJECT

UUID = instance()
VIEW: dict[str, object] = {
    "cells": [],
    "unassigned_cpus": [],
    "guests": [],
    "rules": {},
    "violations": [],
}


class Bus:
    """The side of the bus on which the hosts are: keeps what is pushed to them."""

    def __init__(self):
        self.pushed = []

    def push(self, host, instances):
        self.pushed.append((host, {uuid: each.generation for uuid, each in instances.items()}))
        return True

    host_timeout = 10.0

    def plan(self, host, _question):
        return PlanAnswer("planned", host)

    def plan_all(self, host, plans):
        return PlansAnswer(dict.fromkeys(plans.instances, PlanAnswer("planned", host)))

    def changed(self, _instance_uuids):
        """Take the hints of the API to conductors."""


class Nova:
    """What Nova's API shows of servers: their hosts."""

    def __init__(self):
        self.hosts = {}
        self.queries = []

    def server(self, instance_uuid, deleted=False):
        self.queries.append(instance_uuid)
        if instance_uuid not in self.hosts:
            return None
        return SimpleNamespace(
            instance_uuid=instance_uuid,
            host=self.hosts[instance_uuid],
            project_id=PROJECT,
            deleted=False,
        )

    def servers(self, **_filters):
        return [self.server(instance_uuid) for instance_uuid in self.hosts]


NO_NOTIFICATIONS = Notifications(None)


class Conductor:
    """A conductor that is called as the bus would call it."""

    def __init__(self, path, nova=None):
        url = f"sqlite:///{path}"
        self.database = Database(configuration(url))
        self.allocations, self.hosts = Allocations(self.database), Hosts(self.database)
        self.bus, self.refusals = Bus(), Refusals()
        self.pusher = Pusher(self.allocations, self.hosts, self.bus)
        self.delivery = Delivery(
            "here",
            self.allocations,
            Leases(self.database),
            self.pusher,
            None if nova is None else NovaSync(nova, self.allocations),
            PollIntervals(3600.0, 3600.0),
            NO_NOTIFICATIONS,
            self.hosts,
        )
        claims = (
            HostClaims(self.allocations, self.hosts)
            if nova is None
            else NovaClaims(self.delivery.locate_soon)
        )
        endpoint = Endpoint(
            self.allocations, self.hosts, self.bus, self.delivery, claims, NO_NOTIFICATIONS
        )
        self._server = Server(endpoint.methods, None, self.refusals)
        self._url = url

    @functools.cached_property
    def _http(self):
        conf = configuration(self._url)
        conf.set_override("auth_strategy", NOAUTH, group="api")
        app = make_application(conf, self.database, self.bus)
        return falcon.testing.TestClient(
            lambda environ, answer: app(environ, answer), headers={"Host": "localhost"}
        )

    def call(self, method, **arguments):
        sent = json.loads(json.dumps({"method": method, "args": arguments, "version": "1.0"}))
        return self._server.dispatch(SimpleNamespace(message=sent, ctxt={}))

    def exchange(self, host, *, guests=(), known=None, reports=(), complete=True, digest=""):
        return self.call(
            "exchange",
            host=host,
            executor={"version": "1", "started_at": 1e9, "interval_s": 60.0},
            complete=complete,
            guests=list(guests),
            known=known or {},
            reports=list(reports),
            digest=digest,
        )

    def put(self, number=1, cpus="0"):
        self.allocations.put(instance(number), asking(cpus), generation=None, **BY)

    def get(self, path):
        answer = self._http.simulate_get(path, remote_addr="127.0.0.1")
        assert answer.status_code == 200, answer.text
        return answer.json

    def status(self, number=1):
        return self.allocations.get(instance(number)).status

    def sql(self, statement, **values):
        with self.database.writer() as session:
            session.execute(text(statement), values)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """A database with its tables and nothing else."""
    path = tmp_path_factory.mktemp("tables") / "kongming.sqlite"
    database(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def path(tmp_path, tables):
    return shutil.copy(tables, tmp_path / "kongming.sqlite")


@pytest.fixture
def conductor(path):
    return Conductor(path)


@pytest.fixture
def nova():
    return Nova()


@pytest.fixture
def nova_conductor(path, nova):
    return Conductor(path, nova)


def report(number=1, generation=1, status="applied", **more):
    defaults = {
        "instance_uuid": instance(number),
        "generation": generation,
        "status": status,
        **dict.fromkeys(("reason", "message", "source", "drift"), ""),
        "drift_at": None,
        "changed_at": time.time(),
    }
    return defaults | more


def lines(caplog):
    ours = (each for each in caplog.records if each.name.startswith("kongming"))
    return [each for each in ours if each.levelno >= logging.WARNING]


# A bad report of one host does not harm what is shown of others.


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("drift_at", 1e300),
        ("drift_at", -1e300),
        ("drift_at", float("nan")),
        ("changed_at", float("inf")),
        ("changed_at", 1e12),
        ("generation", 2**70),
        ("status", "broken"),
        ("reason", "x" * 1000),
        ("message", {"a": 1}),
    ],
)
@pytest.mark.parametrize("call", ["exchange", "report"])
def test_a_bad_report_is_refused_alone_logged_and_counted(conductor, caplog, call, field, value):
    conductor.put(1)
    conductor.put(2)
    for number in (1, 2):
        conductor.exchange("compute-1", guests=[instance(number)], complete=False)
    reports = [report(1, **{field: value}), report(2)]
    answer = (
        conductor.exchange("compute-1", guests=[instance(1), instance(2)], reports=reports)
        if call == "exchange"
        else conductor.call("report", host="compute-1", reports=reports)
    )
    (refusal,) = answer["refused"]
    assert (refusal["field"], refusal["key"]) == ("reports", instance(1))
    assert field in refusal["message"]
    statuses = {
        each["instance_uuid"]: each["status"]
        for each in conductor.get("/v1/allocations")["allocations"]
    }
    assert statuses == {instance(1): "pending", instance(2): "applied"}
    assert conductor.refusals.counts == {(call, "message_invalid"): 1}
    (line,) = lines(caplog)
    assert instance(1) in line.getMessage()
    assert line.exc_info is None


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"host": "compute-1"},
        {"host": None, "executor": None, "guests": None},
        {"host": "compute-1", "executor": {}, "guests": [[[[]]]], "known": 1, "reports": {}},
        {"host": "compute-1", "extra": 1, "guests": ["x"] * 100_000},
        {"host": "compute-1\x1b[2J", "executor": {"version": "1"}},
    ],
)
def test_invalid_calls_are_answered_with_an_error_and_one_line(conductor, caplog, arguments):
    for method in ("exchange", "report", "snapshot", "changed", "plan", "nothing", "__init__"):
        answer = conductor.call(method, **arguments)
        assert answer["error"]["reason"] == "message_invalid"
        assert answer["error"]["message"].isprintable()
    assert len(lines(caplog)) == 6
    for line in lines(caplog):
        assert line.exc_info is None
        assert line.getMessage().isprintable()


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"method": None},
        {"method": ["exchange"], "args": {}},
        {"method": "exchange"},
        {"method": "exchange", "args": None},
        {"method": "exchange", "args": [1]},
        {"method": "exchange", "args": {}, "version": "2.0"},
        {"method": "exchange", "args": {}, "version": 5},
        {"method": "exchange", "args": {}, "namespace": "x"},
    ],
)
def test_an_unknown_call_is_answered_with_an_error(conductor, message):
    incoming = SimpleNamespace(message=message, ctxt=None)
    assert conductor._server.dispatch(incoming)["error"]["reason"] == "message_invalid"


def test_more_than_a_host_can_have_is_refused(conductor):
    many = {instance(number): 1 for number in range(20_001)}
    assert "20001 items are more" in conductor.exchange("c", known=many)["error"]["message"]
    many = [instance(number) for number in range(10_001)]
    assert "10001 items are more" in conductor.exchange("c", guests=many)["error"]["message"]
    assert "error" not in conductor.exchange("c", guests=many[1:], known=dict.fromkeys(many, 1))


def test_a_view_with_bad_parts_is_kept_without_them(conductor):
    view = {"guests": [{}, occupant(1, "0:1").to_json()], "cells": 5, "later": [1]}
    conductor.exchange("compute-1", digest="a" * 64)
    answer = conductor.call("snapshot", host="compute-1", snapshot=view, digest="a" * 64)
    assert [each["key"] for each in answer["refused"]] == [".cells", ".guests[0]"]
    found = conductor.get("/v1/hosts/compute-1")
    assert [each["name"] for each in found["snapshot"]["guests"]] == ["instance-00000001"]
    assert (found["guests"], found["snapshot"]["cells"], found["snapshot"]["later"]) == (
        1,
        [],
        [1],
    )
    # It is not requested again.
    assert conductor.exchange("compute-1", digest="a" * 64)["send_snapshot"] is False


# What is in the database already.


def odd_rows(conductor):
    """Put into the database what earlier versions took from hosts."""
    for number in (1, 2):
        conductor.put(number)
        conductor.exchange("compute-1", guests=[instance(number)], reports=[report(number)])
    conductor.exchange("compute-2", guests=[])
    conductor.sql(
        "UPDATE outcome SET drift = 'x', drift_at = 1e300, changed_at = -1e300,"
        " reported_at = 9e999 WHERE instance_uuid = :uuid",
        uuid=UUID,
    )
    conductor.sql(
        "UPDATE history SET changed_at = 1e300, requested_at = -9e999 WHERE instance_uuid = :uuid",
        uuid=UUID,
    )
    conductor.sql(
        "UPDATE host SET snapshot = :view, started_at = 1e300, interval_s = 9e999,"
        " snapshot_at = -1e300 WHERE name = 'compute-2'",
        view='{"guests": [{}, {"instance_uuid": 5}, 7], "cells": null, "x": 1e400}',
    )


def test_invalid_rows_are_shown_in_part_and_others_as_before(conductor):
    odd_rows(conductor)
    first, second = conductor.get("/v1/allocations")["allocations"]
    assert (first["status"], second["status"]) == ("applied", "applied")
    assert first["last_drift_at"] is None
    assert (second["last_drift_at"], second["reported_by"]) == (None, "compute-1")
    assert conductor.get(f"/v1/allocations/{UUID}")["last_drift"] == "x"
    assert conductor.get(f"/v1/allocations/{UUID}/history")["history"]
    assert conductor.get("/v1/allocation-maps")["allocation_maps"] == []
    assert [each["name"] for each in conductor.get("/v1/hosts")["hosts"]] == [
        "compute-1",
        "compute-2",
    ]
    found = conductor.get("/v1/hosts/compute-2")
    assert found["snapshot"]["x"] is None
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    "view", ["{", "[]", "5", "null", '{"guests": 5}', '{"guests": {"a": 1}}', "[" * 5000]
)
def test_an_unreadable_snapshot_stops_no_request(conductor, view):
    odd_rows(conductor)
    conductor.sql("UPDATE host SET snapshot = :view WHERE name = 'compute-2'", view=view)
    conductor.get("/v1/hosts/compute-2")
    conductor.put(3)
    conductor.exchange("compute-1", digest="a" * 64)
    shown = VIEW | {"guests": [{**occupant(1).to_json(), "instance_uuid": instance(3)}]}
    conductor.call("snapshot", host="compute-1", snapshot=shown, digest="a" * 64)
    conductor.call("changed", instance_uuids=[instance(2), instance(3)])
    # One is known to be there, the other is in the snapshot.
    assert conductor.bus.pushed == [
        ("compute-1", {instance(2): 1}),
        ("compute-1", {instance(3): 1}),
    ]


def test_odd_rows_do_not_stop_the_metrics(conductor):
    odd_rows(conductor)
    calls = SimpleNamespace(connected=True)
    families = ConductorCollector(
        calls,
        SimpleNamespace(dropped=7),
        conductor.refusals,
        conductor.delivery,
        conductor.allocations,
        conductor.hosts,
    ).collect()
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }
    assert samples["kongming_database_available",] == 1
    assert samples["kongming_allocations", "applied"] == 2
    assert samples["kongming_pushes_dropped_total",] == 7
    assert samples["kongming_hosts", "up"] + samples["kongming_hosts", "unresponsive"] == 2


# Whose word counts: by Nova's.


def placed(conductor, nova, host="compute-1"):
    """Have an allocation for an instance that Nova has on a host."""
    nova.hosts[UUID] = host
    conductor.put()
    conductor.call("changed", instance_uuids=[UUID])
    assert conductor.allocations.get(UUID).host == host


def test_a_host_that_claims_an_instance_of_another_host_gets_no_allocation(nova_conductor, nova):
    placed(nova_conductor, nova)
    answer = nova_conductor.exchange("intruder", guests=[UUID], reports=[report(status="failed")])
    assert (answer["desired"], answer["contested"]) == ({}, [UUID])
    # Neither by knowing it, nor by speaking of it first.
    for known in (0, 1, 7):
        answer = nova_conductor.exchange("intruder", guests=[UUID], known={UUID: known})
        assert answer["desired"] == {}
    nova_conductor.call("report", host="intruder", reports=[report(status="failed")])
    shown = nova_conductor.get(f"/v1/allocations/{UUID}")
    assert (shown["status"], shown["reported_by"]) == ("pending", None)
    answer = nova_conductor.exchange("compute-1", guests=[UUID])
    assert answer["desired"][UUID]["allocation"] == {"vcpu_pinning": "0"}
    nova_conductor.exchange("compute-1", guests=[UUID], known={UUID: 1}, reports=[report()])
    nova_conductor.exchange(
        "intruder", guests=[UUID], known={UUID: 1}, reports=[report(status="failed")]
    )
    shown = nova_conductor.get(f"/v1/allocations/{UUID}")
    assert (shown["status"], shown["reported_by"]) == ("applied", "compute-1")


def test_a_host_without_the_instance_in_nova_can_not_confirm_its_release(nova_conductor, nova):
    placed(nova_conductor, nova)
    nova_conductor.allocations.delete(UUID, generation=None, **BY)
    released = report(generation=2, status="released")
    nova_conductor.exchange("intruder", guests=[UUID], reports=[released])
    # Nor by knowing nothing of it.
    nova_conductor.exchange("intruder", guests=[UUID])
    nova_conductor.call("report", host="intruder", reports=[released])
    assert nova_conductor.status() == "releasing"
    nova_conductor.exchange("compute-1", guests=[UUID], known={UUID: 2}, reports=[released])
    assert nova_conductor.allocations.get(UUID) is None


def test_nova_is_queried_again_about_claimed_instances(nova_conductor, nova):
    placed(nova_conductor, nova)
    queries = len(nova.queries)
    nova_conductor.exchange("compute-2", guests=[UUID])
    nova.hosts[UUID] = "compute-2"
    nova_conductor.delivery._loop.run_step()
    assert len(nova.queries) > queries
    assert nova_conductor.allocations.get(UUID).host == "compute-2"
    assert UUID in nova_conductor.exchange("compute-2", guests=[UUID])["desired"]
    # The host that it has left reports nothing of it any more, and keeps nothing.
    assert nova_conductor.exchange("compute-1", known={UUID: 1})["elsewhere"] == [UUID]


def test_both_hosts_of_a_live_migration_keep_their_placement_until_nova_decides(
    nova_conductor, nova
):
    placed(nova_conductor, nova)
    nova_conductor.exchange("compute-1", guests=[UUID], known={UUID: 1}, reports=[report()])
    # It runs at both ends for a moment, and then at the second one only.
    assert nova_conductor.exchange("compute-2", guests=[UUID])["contested"] == [UUID]
    source = nova_conductor.exchange("compute-1", guests=[UUID], known={UUID: 1})
    assert (source["desired"], source["elsewhere"]) == ({}, [])
    nova_conductor.exchange("compute-1", known={UUID: 1}, reports=[report(status="absent")])
    nova.hosts[UUID] = "compute-2"
    nova_conductor.exchange("compute-2", guests=[UUID])
    nova_conductor.delivery._loop.run_step()
    nova_conductor.exchange("compute-2", guests=[UUID], known={UUID: 1}, reports=[report()])
    shown = nova_conductor.get(f"/v1/allocations/{UUID}")
    assert (shown["status"], shown["host"], shown["reported_by"]) == (
        "applied",
        *["compute-2"] * 2,
    )


def test_an_instance_without_a_host_in_nova_belongs_to_its_last_host(nova_conductor, nova):
    placed(nova_conductor, nova)
    nova_conductor.exchange("compute-1", guests=[UUID], known={UUID: 1}, reports=[report()])
    nova.hosts[UUID] = None
    nova_conductor.delivery.locate_soon([UUID])
    nova_conductor.delivery._loop.run_step()
    nova_conductor.allocations.delete(UUID, generation=None, **BY)
    nova_conductor.exchange("intruder")
    nova_conductor.exchange("intruder", guests=[UUID])
    assert nova_conductor.status() == "releasing"
    nova_conductor.exchange("compute-1")
    assert nova_conductor.allocations.get(UUID) is None


def test_a_push_and_a_dry_run_go_to_the_host_that_has_the_instance_only(nova_conductor, nova):
    placed(nova_conductor, nova)
    for host in ("compute-1", "compute-2", "intruder"):
        nova_conductor.exchange(host)
    nova_conductor.exchange("compute-1", guests=[UUID], known={UUID: 1}, reports=[report()])
    nova.hosts[UUID] = "compute-2"
    nova_conductor.delivery.locate_soon([UUID])
    nova_conductor.delivery._loop.run_step()
    nova_conductor.bus.pushed.clear()
    nova_conductor.put(cpus="1")
    nova_conductor.call("changed", instance_uuids=[UUID])
    assert nova_conductor.bus.pushed == [("compute-2", {UUID: 2})]
    plan = nova_conductor.call("plan", instance_uuid=UUID, allocation={"vcpu_pinning": "0"})
    assert plan["host"] == "compute-2"
    # Nova is queried for the others, for many of them at once.
    for many in (3, 30):
        numbers = range(2, many)
        nova.hosts |= {instance(number): "compute-3" for number in numbers}
        instances = dict.fromkeys(map(instance, (1, *numbers, 99)))
        plans = nova_conductor.call("plan_all", instances=instances)["plans"]
        hosts = [plans[uuid]["host"] for uuid in instances]
        assert hosts == ["compute-2", *["compute-3"] * len(numbers), None]
        assert plans[instance(99)]["outcome"] == "absent"


def test_without_nova_no_host_gets_an_instance_that_it_did_not_have(
    nova_conductor, nova, monkeypatch
):
    conductor = nova_conductor
    placed(conductor, nova)

    def unavailable(*_arguments, **_named):
        raise exception.NovaUnavailable("no answer")

    monkeypatch.setattr(nova, "server", unavailable)
    monkeypatch.setattr(nova, "servers", unavailable)
    conductor.put(2)
    for host in ("compute-1", "intruder"):
        answer = conductor.exchange(host, guests=[UUID, instance(2)], reports=[report(2)])
        assert instance(2) not in answer["desired"]
    # The host that is known goes on.
    assert UUID in conductor.exchange("compute-1", guests=[UUID])["desired"]
    assert conductor.status(2) == "pending"


def test_an_instance_unknown_to_nova_belongs_to_the_first_host_until_nova_knows_it(
    nova_conductor, nova
):
    nova_conductor.put()
    # Before Nova was queried it is nobody's.
    assert nova_conductor.exchange("compute-1", guests=[UUID])["contested"] == [UUID]
    nova_conductor.call("changed", instance_uuids=[UUID])
    assert nova_conductor.status() == "absent"
    # Who does not run it has nothing to read.
    assert nova_conductor.exchange("compute-2", known={UUID: 0})["desired"] == {}
    answer = nova_conductor.exchange("compute-1", guests=[UUID], complete=False)
    assert (list(answer["desired"]), answer["contested"]) == ([UUID], [])
    nova_conductor.call("report", host="compute-1", reports=[report()])
    assert nova_conductor.status() == "applied"
    answer = nova_conductor.exchange("compute-2", guests=[UUID], reports=[report(status="failed")])
    assert (answer["desired"], answer["contested"]) == ({}, [UUID])
    assert nova_conductor.status() == "applied"
    nova.hosts[UUID] = "compute-2"
    nova_conductor.exchange("compute-2", guests=[UUID])
    nova_conductor.delivery._loop.run_step()
    assert UUID in nova_conductor.exchange("compute-2", guests=[UUID])["desired"]


# Whose word counts without Nova: the first one's.


def test_without_nova_the_first_host_that_claims_an_instance_has_it(conductor):
    conductor.put()
    assert UUID in conductor.exchange("compute-1", guests=[UUID])["desired"]
    conductor.exchange("compute-1", guests=[UUID], known={UUID: 1}, reports=[report()])
    answer = conductor.exchange("intruder", guests=[UUID], reports=[report(status="failed")])
    assert (answer["desired"], answer["contested"]) == ({}, [UUID])
    conductor.call("report", host="intruder", reports=[report(status="failed")])
    shown = conductor.get(f"/v1/allocations/{UUID}")
    assert (shown["status"], shown["host"]) == ("applied", "compute-1")
    conductor.allocations.delete(UUID, generation=None, **BY)
    conductor.exchange(
        "intruder", guests=[UUID], reports=[report(generation=2, status="released")]
    )
    conductor.exchange("intruder", guests=[UUID])
    assert conductor.status() == "releasing"


def test_without_nova_a_claim_passes_on_when_the_instance_has_left(conductor):
    conductor.put()
    conductor.exchange("compute-1", guests=[UUID])
    conductor.exchange("compute-1", guests=[UUID], known={UUID: 1}, reports=[report()])
    conductor.call("report", host="compute-1", reports=[report(status="absent")])
    answer = conductor.exchange("compute-2", guests=[UUID], complete=False)
    assert (list(answer["desired"]), answer["contested"]) == ([UUID], [])
    assert conductor.exchange("compute-1", known={UUID: 1})["elsewhere"] == [UUID]


@pytest.mark.parametrize(("seconds", "passes"), [(595, False), (605, True)])
def test_without_nova_a_claim_passes_on_when_its_host_is_unresponsive_for_long(
    conductor, monkeypatch, seconds, passes
):
    conductor.put()
    conductor.exchange("compute-1", guests=[UUID])
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + seconds)
    answer = conductor.exchange("compute-2", guests=[UUID])
    assert (UUID in answer["desired"]) is passes


def test_without_nova_a_claim_of_a_host_that_was_forgotten_passes_on(conductor):
    conductor.put()
    conductor.exchange("compute-1", guests=[UUID])
    conductor.hosts.forget("compute-1")
    assert UUID in conductor.exchange("compute-2", guests=[UUID])["desired"]


def test_a_lasting_conflict_is_logged_once_with_both_hosts_and_the_remedy(
    conductor, monkeypatch, caplog
):
    conductor.put()
    conductor.put(2)
    both = [UUID, instance(2)]
    conductor.exchange("compute-1", guests=both)
    now = time.monotonic()
    for seconds in (0, 10, 59):
        monkeypatch.setattr(time, "monotonic", lambda seconds=seconds: now + seconds)
        conductor.exchange("compute-2", guests=both)
    assert lines(caplog) == []
    for seconds in (61, 90, 3000):
        monkeypatch.setattr(time, "monotonic", lambda seconds=seconds: now + seconds)
        conductor.exchange("compute-2", guests=both)
    logged = [line.getMessage() for line in lines(caplog)]
    assert [uuid in line for uuid, line in zip(both, logged, strict=True)] == [True, True]
    assert "compute-1" in logged[0]
    assert "compute-2" in logged[0]
    assert "find out on which host it runs" in logged[0]


def test_a_host_name_unknown_to_nova_is_logged_once(nova_conductor, nova, monkeypatch, caplog):
    placed(nova_conductor, nova)
    now = time.monotonic()
    for seconds in (0, 59, 61, 90):
        monkeypatch.setattr(time, "monotonic", lambda seconds=seconds: now + seconds)
        nova_conductor.exchange("compute-1.example.org", guests=[UUID])
        assert len(lines(caplog)) == (seconds > 60)
    logged = lines(caplog)[0].getMessage()
    assert f"Instance {UUID}: host compute-1.example.org reports it" in logged
    assert "Nova has it on compute-1:" in logged
    assert "compare [DEFAULT] host in kongming.conf" in logged


def test_conflicts_that_are_remembered_have_an_end(conductor, monkeypatch):
    monkeypatch.setattr(conductor_claims, "_REMEMBERED_MAX", 3)
    for number in range(6):
        conductor.put(number)
    everything = [instance(number) for number in range(6)]
    conductor.exchange("compute-1", guests=everything)
    conductor.exchange("compute-2", guests=everything)
    assert len(conductor.exchange("compute-2", guests=everything)["contested"]) == 6
    claims = conductor._server._methods["exchange"].work.__self__._claims
    assert len(claims._disputes._claims) == 3


def test_without_nova_guests_that_two_hosts_show_have_no_host_until_one_claims_them(conductor):
    conductor.put()
    conductor.put(2)
    for host, shown in (("compute-1", (1, 2)), ("compute-2", (2,))):
        conductor.exchange(host, digest="a" * 64)
        guests = [{**occupant(1).to_json(), "instance_uuid": instance(number)} for number in shown]
        view = VIEW | {"guests": guests}
        conductor.call("snapshot", host=host, snapshot=view, digest="a" * 64)
    conductor.call("changed", instance_uuids=[instance(1), instance(2)])
    assert conductor.bus.pushed == [("compute-1", {instance(1): 1})]
    assert conductor.status(2) == "absent"


def test_instances_without_requests_are_not_logged(conductor):
    answer = conductor.exchange("intruder", guests=[instance(9)], known={instance(8): 3})
    assert (answer["desired"], answer["elsewhere"]) == ({}, [instance(8)])
    # So is an instance of another host.
    conductor.put(8)
    conductor.allocations.locate({instance(8): Location(None, "compute-1")})
    assert conductor.exchange("intruder", known={instance(8): 3})["elsewhere"] == [instance(8)]


def test_a_view_of_a_real_host_is_kept_whole(conductor):
    view = VIEW | topology(2, 2, 2).to_json()
    conductor.exchange("compute-1", digest="a" * 64)
    conductor.call("snapshot", host="compute-1", snapshot=view, digest="a" * 64)
    assert conductor.get("/v1/hosts/compute-1")["snapshot"]["cells"] == view["cells"]
