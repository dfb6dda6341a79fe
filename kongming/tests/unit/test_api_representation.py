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

"""What the API shows of what the database holds."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from kongming.allocation import json_schema
from kongming.allocation.allocation import Allocation
from kongming.allocation.statuses import Status
from kongming.allocation.windows import Window
from kongming.api import representation
from kongming.db.values import Change, Entry, Host, Map, Outcome

NOW = datetime(2026, 11, 24, 14, 0, tzinfo=UTC).timestamp()
OUTCOME = Outcome(
    instance_uuid="5a6e9b1e-0000-4000-8000-000000000001",
    host="compute-1",
    generation=2,
    status=Status.DRIFTED,
    reason="repinned",
    message="vCPU 0 was on 7",
    source="api",
    drift="vCPU 0 was on 7",
    drift_at=NOW - 10,
    unobserved="emulator pin can't be observed: hidepid",
    changed_at=NOW - 10,
    reported_at=NOW - 9,
)
ENTRY = Entry(
    instance_uuid="5a6e9b1e-0000-4000-8000-000000000001",
    allocation=json_schema.read({"vcpu_pinning": "5-6"}),
    generation=2,
    project_id="project",
    host="compute-1",
    map_name="blue",
    requested_by="user mano",
    created_at=NOW - 100.4,
    updated_at=NOW - 50,
    outcome=OUTCOME,
)
HOST = Host(
    name="compute-1",
    heartbeat_at=NOW - 4,
    started_at=NOW - 1000,
    version="1.0.0",
    interval_s=10.0,
    snapshot={"guests": []},
    snapshot_digest="digest",
    snapshot_at=NOW - 4,
    guests=3,
    violations=1,
)


def show(entry=ENTRY, *hosts, now=NOW, **changes):
    return representation.allocation(
        replace(entry, **changes), {host.name: host for host in hosts or [HOST]}, now
    )


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (None, None),
        (0, "1970-01-01T00:00:00.000Z"),
        (NOW, "2026-11-24T14:00:00.000Z"),
        (NOW + 0.9999, "2026-11-24T14:00:00.999Z"),
        (-1.5, "1969-12-31T23:59:58.500Z"),
    ],
)
def test_moments(moment, text):
    assert representation.written(moment) == text


def test_an_allocation():
    assert show() == {
        "instance_uuid": "5a6e9b1e-0000-4000-8000-000000000001",
        "generation": 2,
        "project_id": "project",
        "host": "compute-1",
        "map": "blue",
        "allocation": {"vcpu_pinning": "5-6"},
        "status": "drifted",
        "reason": "repinned",
        "message": "vCPU 0 was on 7",
        "source": "api",
        "last_drift": "vCPU 0 was on 7",
        "last_drift_at": "2026-11-24T13:59:50.000Z",
        "unobserved": "emulator pin can't be observed: hidepid",
        "reported_by": "compute-1",
        "reported_at": "2026-11-24T13:59:56.000Z",
        "report_age_s": 4.0,
        "host_state": "up",
        "created_at": "2026-11-24T13:58:19.600Z",
        "updated_at": "2026-11-24T13:59:10.000Z",
    }


def test_the_outcome_of_another_generation_is_hidden_and_its_drift_is_shown():
    for generation in (1, 3):
        shown = show(generation=generation)
        assert (shown["status"], shown["reason"], shown["message"]) == ("pending", "", "")
        assert shown["source"] is None
        assert shown["last_drift"] == OUTCOME.drift
        assert shown["reported_by"] == "compute-1"


def test_an_allocation_without_a_report_is_pending():
    shown = show(outcome=None)
    assert (shown["status"], shown["last_drift"]) == ("pending", "")
    for name in ("source", "last_drift_at", "unobserved", "reported_by", "reported_at"):
        assert shown[name] is None
    assert shown["report_age_s"] is None
    assert shown["host_state"] == "up"


def test_an_allocation_in_release_is_shown_as_releasing():
    shown = show(allocation=None)
    assert (shown["status"], shown["allocation"]) == ("releasing", None)
    entry = replace(ENTRY, allocation=None)
    assert representation.with_window({}, entry, NOW) == {"window": None, "next_change": None}


def test_an_instance_without_a_host_is_shown_as_the_conductor_reported_it():
    outcome = replace(OUTCOME, host="", status="absent", source="")
    shown = show(host=None, outcome=outcome)
    assert (shown["status"], shown["host"], shown["host_state"]) == ("absent", None, "unknown")
    assert (shown["reported_by"], shown["source"]) == (None, None)
    assert shown["reported_at"] == "2026-11-24T13:59:51.000Z"


def test_an_available_host_confirms_its_report():
    assert show(ENTRY, replace(HOST, heartbeat_at=NOW - 1))["report_age_s"] == 1.0
    # Not one that has been unresponsive since.
    assert show(ENTRY, replace(HOST, heartbeat_at=NOW - 60))["report_age_s"] == 9.0


def test_the_host_that_reported_is_named_wherever_the_instance_is():
    there = replace(HOST, name="compute-2", heartbeat_at=NOW - 600)
    shown = show(ENTRY, HOST, there, host="compute-2")
    assert (shown["reported_by"], shown["host"]) == ("compute-1", "compute-2")
    assert shown["host_state"] == "up"
    assert show(ENTRY, there)["host_state"] == "unknown"


@pytest.mark.parametrize(
    ("ago", "state"),
    [(0, "up"), (30, "up"), (30.1, "unresponsive"), (9e6, "unresponsive"), (-5, "up")],
)
def test_a_host_is_unresponsive_after_three_times_its_interval(ago, state):
    host = replace(HOST, heartbeat_at=NOW - ago)
    assert representation.host(host, NOW)["state"] == state
    assert show(ENTRY, host)["host_state"] == state
    # Another machine's clock may be ahead.
    assert representation.host(host, NOW)["heartbeat_age_s"] == max(0.0, ago)


@pytest.mark.parametrize(
    ("hour", "window", "following"),
    [
        (14, None, "2026-11-24T22:00:00.000Z"),
        (22, "night", "2026-11-25T06:00:00.000Z"),
        (29, "night", "2026-11-25T06:00:00.000Z"),
        (30, None, "2026-11-25T22:00:00.000Z"),
    ],
)
def test_windows(hour, window, following):
    night = {"name": "night", "start": "0 22 * * *", "duration_s": 28800, "vcpu_pinning": "0"}
    entry = replace(ENTRY, allocation=json_schema.read({"vcpu_pinning": "5", "windows": [night]}))
    row = show(entry)
    assert row["allocation"]["windows"] == [{**night, "timezone": "UTC"}]
    assert representation.with_window(row, entry, NOW + (hour - 14) * 3600) == {
        **row,
        "window": window,
        "next_change": following,
    }


def test_a_row_of_a_list_evaluates_no_window(monkeypatch):
    for method in ("is_in_force", "next_change", "check"):
        monkeypatch.setattr(Window, method, None)
    when = {"start": "0 0 * * *", "duration_s": 86400, "timezone": "UTC"}
    windows = [{"name": f"w{number}", **when} for number in range(32)]
    shown = show(replace(ENTRY, allocation=Allocation.from_json({"windows": windows})))
    assert shown["allocation"] == {"windows": windows}
    assert "window" not in shown
    assert "next_change" not in shown


def test_a_window_in_a_zone_that_this_machine_lacks_is_shown():
    night = {"name": "night", "start": "0 22 * * *", "duration_s": 60, "timezone": "Mars/Olympus"}
    entry = replace(ENTRY, allocation=Allocation.from_json({"windows": [night]}))
    row = show(entry)
    assert row["allocation"]["windows"] == [night]
    shown = representation.with_window(row, entry, NOW)
    assert (shown["window"], shown["next_change"]) == (None, None)


def test_a_change():
    change = Change(
        id=7,
        instance_uuid=ENTRY.instance_uuid,
        generation=2,
        allocation=ENTRY.allocation,
        map_name="blue",
        requested_by="user mano",
        request_id="req-1",
        requested_at=NOW,
        status="applied",
        reason="",
        message="",
        host="compute-1",
        changed_at=NOW + 1,
    )
    assert representation.change(change) == {
        "id": 7,
        "generation": 2,
        "allocation": {"vcpu_pinning": "5-6"},
        "map": "blue",
        "requested_by": "user mano",
        "request_id": "req-1",
        "requested_at": "2026-11-24T14:00:00.000Z",
        "status": "applied",
        "reason": "",
        "message": "",
        "host": "compute-1",
        "changed_at": "2026-11-24T14:00:01.000Z",
    }
    shown = representation.change(replace(change, allocation=None, host=""))
    assert (shown["allocation"], shown["host"]) == (None, None)


def test_a_map():
    found = Map("blue", 3, True, NOW, NOW + 1, 4)
    assert representation.allocation_map(found) == {
        "name": "blue",
        "generation": 3,
        "deleting": True,
        "instances": 4,
        "created_at": "2026-11-24T14:00:00.000Z",
        "updated_at": "2026-11-24T14:00:01.000Z",
    }


def test_a_host():
    assert representation.host(HOST, NOW) == {
        "name": "compute-1",
        "state": "up",
        "heartbeat_at": "2026-11-24T13:59:56.000Z",
        "heartbeat_age_s": 4.0,
        "started_at": "2026-11-24T13:43:20.000Z",
        "version": "1.0.0",
        "guests": 3,
        "violations": 1,
    }


def test_counts():
    entries = [ENTRY, ENTRY, replace(ENTRY, outcome=None), replace(ENTRY, allocation=None)]
    assert representation.counts(entries) == {"drifted": 2, "pending": 1, "releasing": 1}
    assert representation.counts([]) == {}


def test_details_of_the_cloud_are_left_out_for_tenants():
    shown = {"host": "compute-1", "reported_by": "compute-1", "message": "guest x", "status": "a"}
    assert representation.without_hosts(shown | {"unobserved": "hidepid"}) == {
        "host": None,
        "unobserved": None,
        "reported_by": None,
        "message": "",
        "status": "a",
    }
