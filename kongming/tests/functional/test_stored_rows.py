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

"""Rows that are not understood: services go on, others are served, each bad one is named.

The test driver has 8 CPUs, of which 0, 2 and 4 are online.
"""

from contextlib import closing
import json
import logging
import os
import re
import sqlite3
import subprocess
import uuid

import libvirt
import pytest
from sqlalchemy import update

from kongming.allocation import metadata
from kongming.allocation.request import Request, Source
from kongming.api import representation
from kongming.conductor.service import ConductorService
from kongming.db import models
from kongming.executor.store.store import FILE_NAME, Store
from kongming.hypervisor.connection import run_event_loop
from kongming.osc import columns
from kongming.standalone.service import ExecutorService
from kongming.tests.api import Api
from kongming.tests.databases import instance, report
from kongming.tests.functional.cloud import EVERYWHERE, URI, Cloud, pins, wait_for
from kongming.tests.functional.site import Site
from kongming.tests.unit.stored_texts import TEXTS

KEY = "kongming-vcpu-pinning"
PATHS = {uuid: f"/v1/allocations/{uuid}" for uuid in map(instance, range(1, 4))}
GOOD, BAD, THIRD = PATHS
NEWER = '{"vcpu_pinning": "2", "llc": "0"}'
DEEP = TEXTS["nested 3000 deep"][0]


def damage(state_path, instance_uuid, text, *tables):
    with closing(sqlite3.connect(state_path / FILE_NAME)) as db, db:
        for table in tables or ("instance", "request", "history"):
            db.execute(
                f"UPDATE {table} SET requested = ? WHERE instance_uuid = ?", (text, instance_uuid)
            )


@pytest.fixture
def cloud(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    run_event_loop()
    cloud = Cloud(tmp_path, libvirt.open(URI))
    yield cloud
    cloud.stop()
    for domain in cloud.domains:
        domain.destroy()


def warnings(caplog, instance_uuid):
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING and instance_uuid in record.getMessage()
    ]


def placed(cloud, cpu):
    guest = cloud.guest()
    cloud.publish(guest, **{KEY: cpu})
    wait_for(lambda: pins(guest) == [{int(cpu)}] * 4)
    cloud.settled()
    return guest


@pytest.mark.parametrize(
    "text", [DEEP, '{"cpu_shares": 1e400}', '{"vcpu_pinning": "2", "llc": 1}']
)
def test_a_service_starts_over_an_unreadable_row(cloud, tmp_path, caplog, text):
    cloud.start()
    bad, good = placed(cloud, "2"), placed(cloud, "4")
    cloud.stop()
    damage(tmp_path / "state", bad.UUIDString(), text)
    caplog.clear()
    cloud.start()
    wait_for(lambda: cloud.record(bad).status == "refused")
    assert cloud.record(bad).reason == "stored_invalid"
    # It keeps what was accepted, and so does the other one.
    assert pins(bad) == [{2}] * 4
    cloud.publish(good, "instance.update", **{KEY: "0"})
    wait_for(lambda: pins(good) == [{0}] * 4)
    (line,) = warnings(caplog, bad.UUIDString())
    assert "refused (stored_invalid): the stored request can't be read" in line
    assert f"delete it by 'kongming-manage allocation unset {bad.UUIDString()}'" in line
    # The next request is carried out.
    cloud.publish(bad, "instance.update", **{KEY: "0"})
    wait_for(lambda: pins(bad) == [{0}] * 4)
    cloud.settled()
    assert cloud.record(bad).status == "applied"
    assert len(warnings(caplog, bad.UUIDString())) == 1
    assert cloud.record(good).status == "applied"


def test_an_accepted_request_may_be_unreadable_too(cloud, tmp_path, caplog):
    cloud.start()
    bad, good = placed(cloud, "2"), placed(cloud, "4")
    cloud.stop()
    damage(tmp_path / "state", bad.UUIDString(), "[")
    with closing(sqlite3.connect(tmp_path / "state" / FILE_NAME)) as db, db:
        db.execute(
            "UPDATE instance SET accepted = '[' WHERE instance_uuid = ?", (bad.UUIDString(),)
        )
    cloud.start()
    wait_for(lambda: cloud.record(bad).status == "refused")
    assert pins(bad) == [{2}] * 4
    assert cloud.record(good).status == "applied"
    cloud.publish(bad, "instance.update")
    wait_for(lambda: pins(bad) == [EVERYWHERE] * 4)


def test_readable_requests_restore_an_unreadable_row(cloud, tmp_path, caplog):
    cloud.start()
    bad = placed(cloud, "2")
    cloud.stop()
    damage(tmp_path / "state", bad.UUIDString(), DEEP, "instance")
    caplog.clear()
    cloud.start()
    wait_for(lambda: warnings(caplog, bad.UUIDString()))
    (line,) = warnings(caplog, bad.UUIDString())
    wait_for(lambda: cloud.record(bad).status == "applied")
    assert "can't be read (" in line
    assert line.endswith("is restored from the request")


def test_a_guest_that_does_not_run_has_its_row_named_too(cloud, tmp_path, caplog):
    cloud.start()
    gone = str(uuid.uuid4())
    store = cloud.service._executor._store
    store.request(gone, Request(Source.METADATA, metadata.parse({KEY: "2"}), "", 1.0))
    cloud.stop()
    damage(tmp_path / "state", gone, "[")
    cloud.start()
    wait_for(lambda: warnings(caplog, gone))
    assert "stored_invalid" in warnings(caplog, gone)[0]


class Host:
    """A host whose service does not run, and kongming-manage there."""

    def __init__(self, root, command):
        self._command = command
        self.state = root / "state"
        self.state.mkdir()
        self._conf = root / "kongming.conf"
        self._conf.write_text(
            f"[DEFAULT]\nstate_path = {self.state}\n[libvirt]\nconnection_uri = {URI}\n"
        )
        with closing(Store(self.state)) as store:
            for each in (GOOD, BAD, THIRD):
                two = metadata.parse({KEY: "2"})
                store.request(each, Request(Source.METADATA, two, "nova", 1.0))

    def run(self, *arguments):
        ended = subprocess.run(
            [*self._command, "--config-file", self._conf, *arguments],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONIOENCODING": "utf-8"},
        )
        assert "Traceback" not in ended.stderr
        return ended.returncode, ended.stdout, ended.stderr


@pytest.fixture
def host(tmp_path, kongming_manage):
    return Host(tmp_path, kongming_manage)


class TestManage:
    def test_a_list_shows_all_rows_and_names_the_unreadable_one(self, host):
        damage(host.state, BAD, DEEP)
        status, listed, errors = host.run("allocation", "list", "-f", "json")
        assert status == 0
        assert [(row["instance_uuid"], row["requested"]) for row in json.loads(listed)] == [
            (GOOD, {"vcpu_pinning": "2"}),
            (BAD, None),
            (THIRD, {"vcpu_pinning": "2"}),
        ]
        (line,) = errors.splitlines()
        assert f"instance {BAD}: its stored request can't be read" in line
        assert "'allocation set' replaces it, 'allocation unset' deletes it" in line

    def test_an_unreadable_row_is_shown_as_far_as_it_is_known(self, host):
        damage(host.state, BAD, '{"llc": 1}')
        status, shown, errors = host.run("allocation", "show", BAD)
        assert status == 0
        assert "(can't be read)" in shown
        assert "this version does not know its field 'llc'" in errors
        status, shown, _ = host.run("allocation", "history", BAD)
        assert (status, shown.count("(can't be read)")) == (0, 1)
        for command in ("plan", "preview"):
            status, _, errors = host.run("allocation", command, BAD)
            assert status == 1
            assert "this version does not know its field 'llc'" in errors

    def test_an_unreadable_row_is_overwritten_and_released(self, host):
        damage(host.state, BAD, DEEP)
        change = ("--wait", "0", BAD)
        status, shown, _ = host.run(
            "allocation", "set", "--vcpu-pinning", "4", *change, "-f", "json"
        )
        assert (status, json.loads(shown)["requested"]) == (0, {"vcpu_pinning": "4"})
        # First the operator's request, then the one that can't be read.
        assert host.run("allocation", "unset", *change)[0] == 0
        with closing(Store(host.state)) as store:
            assert [each.source for each in store.requests(BAD)] == ["metadata"]
        assert host.run("allocation", "unset", *change)[0] == 0
        with closing(Store(host.state)) as store:
            assert store.requests(BAD) == []
            assert store.requests(GOOD)
        status, _, errors = host.run("allocation", "unset", "--wait", "0", GOOD)
        assert (status, "has no operator's request" in errors) == (1, True)

    def test_a_row_that_no_instance_can_have_is_shown_and_deleted(self, host):
        with closing(sqlite3.connect(host.state / FILE_NAME)) as db, db:
            db.execute(
                "UPDATE instance SET instance_uuid = ? WHERE instance_uuid = ?", ("x\n", BAD)
            )
        status, listed, errors = host.run("allocation", "list")
        assert status == 0
        assert r"| x\n " in listed
        assert r"'x\n' is not an instance UUID: 'allocation unset' deletes" in errors
        assert host.run("allocation", "unset", "--wait", "0", "x\n")[0] == 0
        assert r"x\n" not in host.run("allocation", "list")[1]
        assert host.run("allocation", "unset", "--wait", "0", "x\n")[0] == 1


@pytest.fixture
def api(tmp_path):
    api = Api(tmp_path)
    for path in PATHS.values():
        api.put(path, {"allocation": {"vcpu_pinning": "2"}})
    return api


def damage_database(api, **values):
    table = models.ALLOCATION
    with api.database.writer() as session:
        session.execute(update(table).where(table.c.instance_uuid == BAD).values(values))


class TestApi:
    def test_one_unreadable_row_is_named_and_the_others_are_listed(self, api):
        for text, why in TEXTS.values():
            damage_database(api, requested=text)
            listed = api.get("/v1/allocations")["allocations"]
            assert [each["instance_uuid"] for each in listed] == [GOOD, BAD, THIRD]
            assert listed[0]["allocation"] == {"vcpu_pinning": "2"}
            shown = api.get(PATHS[BAD])
            assert (shown["allocation"], shown["status"]) == (None, "pending")
            assert shown["reason"] == "stored_invalid"
            assert re.search(why, shown["message"])
            assert "PUT replaces it, DELETE releases the instance" in shown["message"]
            assert shown["window"] is None
            allocation = columns.of_fields(shown)["allocation"]
            assert allocation.human_readable() == "(can't be read)"

    def test_an_unreadable_allocation_is_replaced_and_released(self, api):
        damage_database(api, requested=DEEP)
        changed = api.put(PATHS[BAD], {"allocation": {"vcpu_pinning": "4"}, "generation": 1})
        assert (changed["generation"], changed["reason"]) == (2, "")
        damage_database(api, requested=DEEP)
        # Some host has it: the row stays until that has released it.
        api.allocations.report("compute-1", [report(BAD, 2, status="failed")], 5.0)
        answer = api.request("DELETE", PATHS[BAD])
        assert (answer.status, answer.body["status"]) == (202, "releasing")
        assert columns.of_fields(answer.body)["allocation"].human_readable() == "(its baseline)"

    def test_the_report_of_the_host_about_an_unreadable_row_is_shown_too(self, api):
        damage_database(api, requested='{"llc": "0"}')
        refusal = report(BAD, 1, status="refused", reason="request_invalid", message="no llc here")
        api.allocations.report("compute-1", [refusal], 5.0)
        shown = api.get(PATHS[BAD])
        assert (shown["status"], shown["reason"]) == ("refused", "request_invalid")
        assert shown["message"].startswith("no llc here; the stored allocation can't be read (")
        (listed,) = api.get("/v1/allocations?status=refused")["allocations"]
        assert listed["message"] == shown["message"]

    def test_a_tenant_reads_the_code_alone(self, api):
        damage_database(api, requested="[")
        shown = representation.without_hosts(api.get(PATHS[BAD]))
        assert (shown["reason"], shown["message"]) == ("stored_invalid", "")

    def test_a_map_with_invalid_times_is_listed(self, api):
        api.put("/v1/allocation-maps/m", {"allocations": {BAD: {"vcpu_pinning": "2"}}})
        api.put("/v1/allocation-maps/n", {"allocations": {}})
        with api.database.writer() as session:
            table = models.ALLOCATION_MAP
            session.execute(
                update(table).where(table.c.name == "m").values(created_at=1e300, updated_at=-5.0)
            )
        listed = api.get("/v1/allocation-maps")["allocation_maps"]
        assert [each["name"] for each in listed] == ["m", "n"]
        assert api.get("/v1/allocation-maps/m")["counts"] == {"pending": 1}

    def test_an_instance_of_a_missing_map_is_replaced_and_released(self, api):
        for change in ("PUT", "DELETE"):
            damage_database(api, map_name="gone", requested='{"vcpu_pinning": "2"}')
            body = {"allocation": {"vcpu_pinning": "4"}} if change == "PUT" else None
            assert api.request(change, PATHS[BAD], body).status in (200, 204)
        api.put("/v1/allocation-maps/gone", {"allocations": {BAD: {"vcpu_pinning": "2"}}})

    def test_a_window_in_an_unknown_zone_stops_no_request(self, api):
        window = {"name": "w", "start": "0 0 * * *", "duration_s": 60, "vcpu_pinning": "4"}
        text = json.dumps({"vcpu_pinning": "2", "windows": [{**window, "timezone": "A/B"}]})
        damage_database(api, requested=text)
        with api.database.writer() as session:
            session.execute(update(models.HISTORY).values(requested=text))
        listed = api.get("/v1/allocations")["allocations"]
        assert [each["instance_uuid"] for each in listed] == [GOOD, BAD, THIRD]
        assert api.get(PATHS[BAD])["allocation"]["windows"][0]["timezone"] == "A/B"
        assert api.get(f"{PATHS[BAD]}/history")["history"]
        assert api.put(PATHS[BAD], {"allocation": {"vcpu_pinning": "4"}})["generation"] == 2

    def test_maps_and_histories_contain_the_unknown_zone(self, api):
        allocations = {each: {"vcpu_pinning": "2"} for each in PATHS}
        api.put("/v1/allocation-maps/m", {"allocations": allocations})
        damage_database(api, requested=DEEP)
        with api.database.writer() as session:
            session.execute(update(models.HISTORY).values(requested=DEEP, changed_at=1e300))
        shown = api.get("/v1/allocation-maps/m")
        assert shown["counts"] == {"pending": 3}
        assert [each["reason"] for each in shown["allocations"]] == ["", "stored_invalid", ""]
        (entry,) = api.get(f"{PATHS[BAD]}/history")["history"]
        assert entry["allocation"] is None
        api.put("/v1/allocation-maps/m", {"allocations": allocations})
        assert api.get(PATHS[BAD])["allocation"] == {"vcpu_pinning": "2"}
        assert api.request("DELETE", "/v1/allocation-maps/m").status == 204


@pytest.mark.parametrize(
    "text", ['{"vcpu_pinning": "2", "llc": "0"}', DEEP, '{"cpu_shares": 1e400}']
)
def test_the_host_receives_the_unknown_zone_and_decides(tmp_path, connection, text):
    site = Site(tmp_path, connection)
    site.start(ConductorService, ExecutorService)
    try:
        guest, other = site.guest(), site.guest()
        for each in (guest, other):
            site.put(each, "2")
            site.wait(each, "applied")
        with site.allocations._database.writer() as session:
            table = models.ALLOCATION
            session.execute(
                update(table)
                .where(table.c.instance_uuid == guest)
                .values(requested=text, generation=table.c.generation + 1)
            )
        site.put(other, "4")
        site.wait(other, "applied")
        site.wait(guest, "refused")
        assert site.allocations.get(guest).outcome.reason == "request_invalid"
        assert site.pins(guest) == [{2}] * 2
        site.put(guest, "4")
        site.wait(guest, "applied")
        assert site.pins(guest) == [{4}] * 2
    finally:
        site.stop()
        for domain in site.domains:
            domain.destroy()


def test_an_older_client_shows_unknown_values_unchanged():
    answer = {"allocation": {"vcpu_pinning": "2", "llc": "0\x1b"}, "created_at": "x"}
    shown = columns.of_fields(answer)["allocation"].human_readable()
    assert json.loads(shown) == answer["allocation"]
