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

"""The Python client, against the real API; the test reports what hosts would."""

from dataclasses import replace
import functools
import json
import time

from openstack import exceptions
from openstack.config import OpenStackConfig
from openstack.connection import Connection
import pytest

from kongming import exception
from kongming.client import (
    BadRequest,
    Conflict,
    Fault,
    NotFound,
    OutcomeUnknown,
    Replaced,
    add_to,
    proxy,
    waiting,
)
from kongming.client.waiting import Waiter
from kongming.tests.api import Api
from kongming.tests.connections import api_at
from kongming.tests.databases import asking, instance, report
from kongming.tests.testbed.scripted_api import How, Odd, ScriptedApi

PIN, OTHER = {"vcpu_pinning": "1"}, {"vcpu_pinning": "2"}
ELSE = {"generation": None, "requested_by": "somebody else", "request_id": "req-2"}


@pytest.fixture
def server(tmp_path):
    with ScriptedApi(Api(tmp_path, "max_limit = 2\n")) as server:
        yield server


@pytest.fixture
def allocations(server):
    """What is requested, in the database."""
    return server.api.allocations


@pytest.fixture
def api(server):
    return api_at(server.url)


@pytest.fixture
def report_status(allocations):
    """Have a host report the outcome of an instance."""

    def report_status(number, generation=1, status="applied", **more):
        each = replace(report(instance(number), generation, status), **more)
        allocations.report("compute1", [each], time.time())

    return report_status


class Steps:
    """What happens while a method waits: one step at each change of the progress.

    :ivar lines: the progress.
    """

    def __init__(self, *steps):
        self.lines, self._steps = [], list(steps)

    def __call__(self, line):
        self.lines.append(line)
        if self._steps:
            self._steps.pop(0)()


def test_an_allocation_from_set_to_unset(api, report_status):
    accepted = api.set_allocation(instance(1), PIN, generation=0)
    assert (accepted.generation, accepted.status, accepted.allocation) == (1, "pending", PIN)
    steps = Steps(lambda: report_status(1))
    found = api.wait_for_allocation(accepted, report=steps)
    assert (found.status, found.reported_by, found.is_in_force) == ("applied", "compute1", True)
    assert steps.lines == ["0 of 1 applied (1 pending)", "1 of 1 applied"]
    assert api.get_allocation(found).status == "applied"
    released = api.unset_allocation(found, generation=1)
    assert (released.status, released.generation) == ("releasing", 2)
    steps = Steps(lambda: report_status(1, 2, "released"))
    api.wait_for_release(released, report=steps)
    assert steps.lines == ["0 of 1 released", "1 of 1 released"]
    with pytest.raises(NotFound) as raised:
        api.get_allocation(found)
    assert raised.value.code == "allocation_unknown"
    history = list(api.history(found))
    assert [(each.generation, each.status) for each in history][-1] == (2, "released")
    assert history[0].requested_by
    assert len(list(api.history(found, limit=1))) == 1


def test_a_release_without_a_host_is_complete_at_once(api):
    api.set_allocation(instance(1), PIN)
    assert api.unset_allocation(instance(1)) is None
    api.wait_for_release(None)


def test_a_map_from_apply_to_delete(api, report_status):
    accepted = api.apply_allocation_map("blue", {instance(1): PIN, instance(2): PIN}, generation=0)
    assert (accepted.generation, accepted.instances) == (1, 2)

    def carry_out():
        report_status(1)
        report_status(2, status="refused", reason="cpu_offline", message="CPU 1 is offline")

    found = api.wait_for_map(accepted, report=Steps(carry_out))
    assert found.counts == {"applied": 1, "refused": 1}
    (refused,) = [each for each in found.allocations if not each.is_in_force]
    assert (refused.id, refused.reported_by, refused.reason) == (
        instance(2),
        "compute1",
        "cpu_offline",
    )

    accepted = api.apply_allocation_map(found, {instance(1): OTHER}, generation=found.generation)
    assert (accepted.generation, list(accepted.dropped)) == (2, [instance(2)])
    steps = Steps(lambda: report_status(1, 2), lambda: report_status(2, 2, "released"))
    found = api.wait_for_map(accepted, report=steps)
    assert steps.lines[1:] == [
        "1 of 1 applied, 0 of 1 released", "1 of 1 applied, 1 of 1 released"
    ]  # fmt: skip
    assert found.requested == {instance(1): OTHER}

    assert [each.name for each in api.allocation_maps()] == ["blue"]
    again = api.get_allocation_map("blue")
    assert (again.counts, again.requested) == ({"applied": 1}, {instance(1): OTHER})
    for each in (again, *api.allocation_maps()):
        assert api.wait_for_map(each).counts == {"applied": 1}

    deleted = api.delete_allocation_map(again, generation=2)
    assert (deleted.deleting, deleted.generation) == (True, 3)
    api.wait_for_release(deleted, report=Steps(lambda: report_status(1, 3, "released")))
    api.wait_for_release(deleted)
    with pytest.raises(NotFound) as raised:
        api.get_allocation_map("blue")
    assert raised.value.code == "map_unknown"


def test_an_instance_whose_server_is_deleted_has_left_its_map(api, allocations, report_status):
    accepted = api.apply_allocation_map("blue", {instance(1): PIN, instance(2): PIN})

    def end():
        report_status(1)
        allocations.forget([instance(2)], time.time())

    found = api.wait_for_map(accepted, report=Steps(end))
    assert found.counts == {"applied": 1, "gone": 1}


def test_pages_are_followed_and_filters_apply(api, report_status):
    api.apply_allocation_map("blue", {instance(number): PIN for number in (1, 2, 3)})
    api.set_allocation(instance(4), PIN)
    report_status(1)
    everything = [instance(number) for number in (1, 2, 3, 4)]
    assert [each.id for each in api.allocations()] == sorted(everything)
    assert [each.id for each in api.allocations(limit=3)] == sorted(everything)[:3]
    assert [
        each.id for each in api.allocations(project_id="0f2b9b9e3d1c4c4e8f3a7d5b6c1e2f30")
    ] == []
    assert [each.id for each in api.allocations(host="compute1")] == [instance(1)]
    assert len(list(api.allocations(map="blue", status="pending"))) == 2
    with pytest.raises(BadRequest):
        list(api.allocations(status="soon"))


def test_hosts_have_snapshots(server, api):
    assert list(api.hosts()) == []
    with pytest.raises(NotFound) as raised:
        api.get_host("compute1")
    assert raised.value.code == "host_unknown"
    now = time.time()
    server.api.hosts.heartbeat("compute1", started_at=now, version="1", interval_s=60, now=now)
    server.api.hosts.keep_snapshot("compute1", {"cells": []}, "digest", now)
    (host,) = api.hosts()
    assert (host.name, host.state, host.snapshot) == ("compute1", "up", None)
    assert api.get_host(host).snapshot["cells"] == []


def test_a_dry_run(server, api):
    outcome = {"host": "compute1", "outcome": "planned", "reason": "", "message": ""}
    step = {"target": "vCPU 0", "from": "0-3", "to": "1"}
    server.api.conductor.answer = {**outcome, "warnings": ["shared"], "steps": [step]}
    plan = api.plan(instance(1), PIN)
    assert (plan.outcome, plan.host, plan.warnings) == ("planned", "compute1", ["shared"])
    assert plan.steps == [step]
    server.api.conductor.answer = exception.HostUnresponsive("it does not respond")
    with pytest.raises(Fault) as raised:
        api.plan(instance(1), PIN)
    assert (raised.value.code, raised.value.passing) == ("host_unresponsive", True)


def test_a_dry_run_of_a_map(server, api):
    api.apply_allocation_map("blue", {instance(3): PIN})
    planned = {"host": "compute1", "outcome": "planned", "reason": "", "message": ""}
    planned |= {"warnings": [], "steps": []}
    refused = {**planned, "outcome": "refused", "reason": "cpu_unknown", "message": "CPU 99"}
    server.api.conductor.answer = planned | {instance(2): refused}
    found = api.plan_allocation_map("blue", {instance(1): PIN, instance(2): OTHER}, generation=1)
    assert (found.name, found.counts) == ("blue", {"planned": 2, "refused": 1})
    assert [(plan.instance_uuid, plan.outcome, plan.reason) for plan in found.plans] == [
        (instance(1), "planned", ""),
        (instance(2), "refused", "cpu_unknown"),
        (instance(3), "planned", ""),
    ]
    assert api.get_allocation_map("blue").generation == 1
    with pytest.raises(Conflict):
        api.plan_allocation_map("blue", {instance(1): PIN}, generation=5)


def test_the_schema_is_that_of_allocations(api):
    assert "vcpu_pinning" in api.schema()["properties"]


def test_another_generation_is_a_conflict(api):
    api.set_allocation(instance(1), PIN)
    for change in (
        api.set_allocation,
        lambda *_, **more: api.unset_allocation(instance(1), **more),
    ):
        with pytest.raises(exceptions.ConflictException) as raised:
            change(instance(1), OTHER, generation=5)
        assert raised.value.code == "generation_conflict"
    with pytest.raises(Conflict):
        api.apply_allocation_map("blue", {instance(2): PIN}, generation=5)
    with pytest.raises(BadRequest) as invalid:
        api.set_allocation(instance(1), {"cpu_shares": 0})
    assert invalid.value.code == "request_invalid"


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_name_that_is_no_segment_of_a_path_is_refused(api, name):
    with pytest.raises(exceptions.InvalidRequest):
        api.get_host(name)
    with pytest.raises(exceptions.InvalidRequest):
        api.get_allocation(name)


def test_the_microversion_is_sent(server):
    with pytest.raises(Fault) as raised:
        list(api_at(server.url, kongming_api_version="1.999").hosts())
    assert raised.value.code == "version_unsupported"
    assert list(api_at(f"{server.url}/v1/", kongming_api_version="1").hosts()) == []


def test_an_answer_of_a_cache_would_be_old(server, tmp_path):
    lab = {"auth_type": "none", "kongming_endpoint_override": server.url}
    cache = {"class": "dogpile.cache.memory", "expiration": {"kongming.allocation": 60}}
    path = tmp_path / "clouds.yaml"
    path.write_text(json.dumps({"cache": cache, "clouds": {"lab": lab}}))
    config = OpenStackConfig(config_files=[str(path)], load_envvars=False)
    connection = Connection(config=config.get_one("lab"))
    assert connection.cache_enabled
    api, first = api_at(server.url), add_to(connection)
    first.set_allocation(instance(1), PIN)
    assert first.get_allocation(instance(1)).generation == 1
    api.set_allocation(instance(1), OTHER)
    assert first.get_allocation(instance(1)).generation == 2


@pytest.mark.parametrize(
    "odd", [Odd(how=How.CUT, after=True), Odd(504, after=True), Odd(200, after=True)], ids=str
)
def test_a_lost_answer_is_found_out(server, api, odd):
    changes = {
        "PUT": lambda: api.apply_allocation_map("blue", {instance(1): PIN}),
        "DELETE": lambda: api.delete_allocation_map("blue"),
    }
    for method, change in changes.items():
        with server.scripted(lambda sent, *_, method=method: odd if sent == method else None):
            answer = change()
        assert answer is None or answer.generation == 1


def test_an_unknown_outcome_is_reported(server, api):
    with (
        server.scripted(lambda method, *_: Odd(504) if method == "PUT" else None),
        pytest.raises(
            OutcomeUnknown, match="it is not known whether the map blue was or"
        ) as raised,
    ):
        api.apply_allocation_map("blue", {instance(1): PIN})
    assert raised.value.outcome_unknown
    with server.scripted(lambda *_: Odd(404)), pytest.raises(Fault) as page:
        api.get_allocation(instance(1))
    assert not isinstance(page.value, exceptions.NotFoundException)


def test_an_api_that_is_away_is_reported_in_one_line():
    with pytest.raises(
        Fault, match="^Kongming's API can't be reached: connection refused$"
    ) as raised:
        api_at("http://127.0.0.1:9").get_host("x")
    assert not raised.value.outcome_unknown


def test_waiting_ends_with_another_request(api, allocations, monkeypatch):
    # The API waits for an outcome, not for another request.
    monkeypatch.setattr(proxy, "Waiter", functools.partial(Waiter, long_poll_s=0))
    accepted = api.set_allocation(instance(1), PIN)
    other = Steps(lambda: allocations.put(instance(1), asking("3"), **ELSE))
    with pytest.raises(Replaced, match="replaced: somebody else requested generation 2: vcpu-"):
        api.wait_for_allocation(accepted, report=other)
    accepted = api.apply_allocation_map("blue", {instance(2): PIN})
    with pytest.raises(Replaced, match="by generation 2; 1 changed; instance"):
        api.wait_for_map(
            accepted,
            report=Steps(lambda: allocations.put_map("blue", {instance(2): asking("3")}, **ELSE)),
        )
    allocations.claim("compute1", [instance(2)], ())
    deleted = api.delete_allocation_map("blue")
    allocations.put_map("blue", {instance(2): asking("3")}, **ELSE)
    with pytest.raises(Replaced, match="the deletion of the map blue was replaced"):
        api.wait_for_release(deleted)


def test_the_api_is_asked_to_wait_after_the_first_poll(server, api, report_status):
    accepted = api.set_allocation(instance(1), PIN)

    def script(_method, path, _number):
        if "wait_s" in path:
            report_status(1)

    with server.scripted(script):
        assert api.wait_for_allocation(accepted, timeout=60).status == "applied"
    path = f"/v1/allocations/{instance(1)}"
    (_, first), (_, second) = server.requests
    assert first == path
    assert second.startswith(f"{path}?wait_s=")


def test_an_api_that_can_not_wait_is_polled(server, api, report_status):
    accepted = api.set_allocation(instance(1), PIN)

    def script(_method, path, number):
        if number == 3:
            report_status(1)
        return Odd(400) if "wait_s" in path else None

    with server.scripted(script):
        assert api.wait_for_allocation(accepted).status == "applied"
    assert ["wait_s" in path for _, path in server.requests] == [False, True, False]


def test_waiting_ends_in_time(api):
    accepted = api.set_allocation(instance(1), PIN)
    with pytest.raises(
        exceptions.ResourceTimeout, match=r"not carried out within 0 s: 0 of 1 app"
    ):
        api.wait_for_allocation(accepted, timeout=0)


def test_waiting_survives_odd_answers_and_ends_with_a_lasting_error(server, api, report_status):
    accepted = api.set_allocation(instance(1), PIN)

    def script(_method, _path, number):
        if number == 3:
            report_status(1)
        return (Odd(502), Odd(how=How.CUT), None)[min(number, 3) - 1]

    with server.scripted(script):
        assert api.wait_for_allocation(accepted).status == "applied"
    report_status(1, status="pending")
    denied = Odd(
        403,
        body=b'{"errors": [{"code": "forbidden", "detail": "no"}]}',
        headers={"Content-Type": "application/json"},
    )
    with server.scripted(lambda *_: denied), pytest.raises(exceptions.ForbiddenException):
        api.wait_for_allocation(accepted)


def test_an_absent_guest_gets_the_time_that_the_caller_gives(api, report_status):
    accepted = api.set_allocation(instance(1), PIN)
    report_status(1, status="absent")
    assert api.wait_for_allocation(accepted, patience=0).status == "absent"
    steps = Steps(lambda: report_status(1))
    assert api.wait_for_allocation(accepted, patience=60, report=steps).status == "applied"


def test_a_response_that_comes_too_slowly_is_cut_off(server, api, monkeypatch):
    monkeypatch.setattr(waiting, "_FIRST_POLL_S", 0.1)
    accepted = api.set_allocation(instance(1), PIN)
    unresponsive = Odd(how=How.SILENT)
    with server.scripted(lambda *_: unresponsive), pytest.raises(exceptions.ResourceTimeout):
        api.wait_for_allocation(accepted, timeout=0)
    monkeypatch.setattr(proxy, "_SETTLE_S", 0.1)
    with (
        server.scripted(lambda method, *_: Odd(504) if method == "PUT" else unresponsive),
        pytest.raises(OutcomeUnknown),
    ):
        api.set_allocation(instance(1), OTHER)
