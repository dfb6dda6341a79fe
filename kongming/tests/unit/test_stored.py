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

"""Any content of a database is read: a bad row is reported as such, the others are there."""

from contextlib import closing
import json
import math
import re
import sqlite3

import pytest
import sqlalchemy

from kongming import exception
from kongming.allocation import metadata, stored
from kongming.allocation.allocation import Allocation
from kongming.allocation.request import Request, Source
from kongming.allocation.statuses import Status
from kongming.allocation.stored import Unreadable
from kongming.db import models
from kongming.db.allocations import Allocations
from kongming.executor.store.store import FILE_NAME, Store
from kongming.notification.pending_lookups import ALL, PendingLookups
from kongming.notification.pending_lookups import FILE_NAME as LOOKUPS
from kongming.tests.databases import BY, instance, report
from kongming.tests.unit.stored_texts import DEEP, NIGHT, TEXTS

GOOD, BAD, THIRD, UNKNOWN = map(instance, range(1, 5))


@pytest.mark.parametrize(("text", "why"), TEXTS.values(), ids=TEXTS)
def test_an_unreadable_value_has_a_reason(text, why):
    found = stored.load(text)
    assert isinstance(found, Unreadable)
    assert found.text == text
    assert found
    assert re.search(why, found.why)


@pytest.mark.parametrize("odd", [{"timezone": "America/Nowhere"}, {"timezone": "localtime"}])
def test_rules_for_requests_do_not_apply_to_records(odd):
    kept = {"windows": [{**NIGHT, **odd}]}
    assert stored.load(json.dumps(kept)).to_json() == kept


@pytest.mark.parametrize(("text", "why"), TEXTS.values(), ids=TEXTS)
def test_an_unreadable_value_is_shown_as_a_small_json_object(text, why):
    given = stored.load(text).to_json()
    assert isinstance(given, dict)
    written = json.dumps(given, allow_nan=False)
    assert len(written) < 1200
    try:
        understood = json.loads(text)
    except (ValueError, RecursionError):
        understood = None
    if isinstance(understood, dict) and "llc" in text:
        assert given == understood
    if "nested" in why or "[[[" in text:
        assert given.keys() == {"unreadable"}


@pytest.mark.parametrize("kept", [b"{}", 5, 1.5])
def test_a_value_that_is_no_text_is_unreadable(kept):
    assert "not as text" in stored.load(kept).why


def test_an_accepted_value_is_read_unchanged():
    document = {"vcpu_pinning": {"0": "1"}, "cpu_shares": 200, "windows": [NIGHT]}
    found = stored.load(json.dumps(document))
    assert isinstance(found, Allocation)
    assert stored.understand(document) == stored.readable(found) == found
    assert stored.load('{"cpu_shares": 2e2}') == Allocation(cpu_shares=200)
    assert stored.load("{}") == Allocation()
    assert stored.load(None) is None
    assert stored.readable(Unreadable("x", "y")) is None


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 1e300, -1.0, "soon", b"", None])
def test_an_invalid_time_becomes_the_default(value):
    assert stored.moment(value, 7.0) == 7.0
    assert stored.maybe_moment(value) is None


def test_other_values_must_be_of_their_type():
    assert stored.moment(5) == 5.0
    assert stored.maybe_moment(0.0) == 0.0
    assert stored.moment(253_402_300_799) == 253_402_300_799.0
    assert stored.moment(253_402_300_800, 1.0) == 1.0
    assert (stored.integer(3), stored.integer("x"), stored.integer(1.5)) == (3, 0, 0)
    assert (stored.text("a"), stored.text(None), stored.text(b"\xff")) == ("a", "", r"b'\xff'")
    assert stored.is_instance(GOOD)
    for other in (GOOD.upper(), GOOD + "\n", "x", None, 5, "1" * 36):
        assert not stored.is_instance(other)


def asking(value):
    return metadata.parse({"kongming-vcpu-pinning": value})


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path)
    for uuid in (GOOD, BAD, THIRD):
        store.request(uuid, Request(Source.METADATA, asking("1"), "somebody", 1.5))
        store.report(store.get(uuid), Status.APPLIED, accepted=asking("1"))
    yield store
    store.close()


def edit(tmp_path, statement, *values, file=FILE_NAME):
    with closing(sqlite3.connect(tmp_path / file)) as db, db:
        db.execute(statement, values)


def others_are_read(store):
    assert {record.instance_uuid for record in store.records()} >= {GOOD, THIRD}
    for uuid in (GOOD, THIRD):
        record = store.get(uuid)
        assert (record.requested, record.accepted, record.status) == (
            asking("1"),
            asking("1"),
            "applied",
        )
        assert store.requests(uuid)
        assert store.history(uuid)
    assert {GOOD, THIRD} <= store.instances()


class TestStore:
    def test_one_bad_text_leaves_the_others(self, tmp_path, store):
        for text, _ in TEXTS.values():
            for table in ("instance", "request", "history"):
                edit(
                    tmp_path,
                    f"UPDATE {table} SET requested = ? WHERE instance_uuid = ?",
                    text,
                    BAD,
                )
            edit(tmp_path, "UPDATE instance SET accepted = ? WHERE instance_uuid = ?", text, BAD)
            for opened in (store, Store(tmp_path, create=False)):
                others_are_read(opened)
                record = opened.get(BAD)
                assert isinstance(record.requested, Unreadable), text
                assert isinstance(record.accepted, Unreadable), text
                (request,) = opened.requests(BAD)
                assert isinstance(request.requested, exception.StoredInvalid), text
                assert all(isinstance(each.requested, Unreadable) for each in opened.history(BAD))

    @pytest.mark.parametrize(
        ("column", "value"),
        [
            ("status", "unheard of"),
            ("status", b"\xff"),
            ("source", "flavor"),
            ("source", 5),
            ("reason", b"\xff\xfe"),
            ("message", 1.5),
            ("message", b"\xff"),
            ("changed_at", "soon"),
            ("changed_at", math.inf),
            ("changed_at", -1e300),
            ("drift_at", math.inf),
            ("drift_at", b"x"),
            ("drift", 5),
            ("generation", "x"),
            ("requested", b"{}"),
            ("accepted", 7),
        ],
    )
    def test_one_bad_value_leaves_the_others(self, tmp_path, store, column, value):
        edit(tmp_path, f"UPDATE instance SET {column} = ? WHERE instance_uuid = ?", value, BAD)
        others_are_read(store)
        record = store.get(BAD)
        assert record.status in (Status.APPLIED, Status.PENDING)
        assert isinstance(record.message, str)
        assert 0 <= record.changed_at < 1e11
        assert set(store.requested_by(Source.METADATA)) == {GOOD, BAD, THIRD}
        # It heals by being worked on.
        assert store.request(BAD, Request(Source.METADATA, asking("2"), "", 2.0))
        assert store.report(store.get(BAD), Status.APPLIED, accepted=asking("2"))
        healed = store.get(BAD)
        assert (healed.requested, healed.status, healed.source) == (
            asking("2"),
            "applied",
            "metadata",
        )

    def test_a_text_that_is_not_utf_8_leaves_the_others(self, tmp_path, store):
        for table, column in (
            ("instance", "message"),
            ("request", "requested_by"),
            ("history", "requested"),
        ):
            edit(
                tmp_path,
                f"UPDATE {table} SET {column} = CAST(x'7b22ff22' AS TEXT) WHERE instance_uuid = ?",
                BAD,
            )
        others_are_read(store)
        assert store.get(BAD).message == '{"\\xff"'
        assert store.requests(BAD)[0].requested_by == '{"\\xff"'
        assert isinstance(store.history(BAD)[0].requested, Unreadable)

    def test_history_keeps_an_unreadable_value_unchanged(self, tmp_path, store):
        text = '{"vcpu_pinning": "0", "of a newer version": 1}'
        edit(tmp_path, "UPDATE instance SET requested = ? WHERE instance_uuid = ?", text, BAD)
        for words in ("once", "again"):
            store.report(store.get(BAD), Status.REFUSED, exception.StoredInvalid(words))
        with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db:
            newest = "SELECT requested FROM history WHERE instance_uuid = ? ORDER BY id DESC"
            assert db.execute(newest, (BAD,)).fetchone() == (text,)

    @pytest.mark.parametrize(
        ("column", "value"),
        [
            ("source", "flavor"),
            ("requested_at", "soon"),
            ("generation", "x"),
            ("requested_by", b"\xff"),
        ],
    )
    def test_one_bad_request_leaves_the_others(self, tmp_path, store, column, value):
        edit(tmp_path, f"UPDATE request SET {column} = ? WHERE instance_uuid = ?", value, BAD)
        others_are_read(store)
        assert len(store.requests(BAD)) == 1
        assert store.request(BAD, Request(Source.OPERATOR, asking("2"), "me", 2.0))
        assert store.get(BAD).requested == asking("2")
        assert store.withdraw(BAD, Source.OPERATOR, "me")
        assert store.get(BAD).requested == asking("1")

    def test_a_source_of_a_newer_version_has_precedence(self, tmp_path, store):
        edit(tmp_path, "UPDATE request SET source = 'flavor' WHERE instance_uuid = ?", BAD)
        assert store.request(BAD, Request(Source.METADATA, asking("2"), "", 2.0))
        assert [each.source for each in store.requests(BAD)] == ["flavor", "metadata"]
        assert store.get(BAD).requested == asking("2")
        store.withdraw(BAD, Source.METADATA, "me")
        assert (store.get(BAD).requested, store.get(BAD).source) == (asking("1"), "flavor")

    def test_a_row_that_no_instance_can_have_is_named_and_deleted_by_the_command(
        self, tmp_path, store, caplog
    ):
        edit(tmp_path, "UPDATE instance SET instance_uuid = ? WHERE instance_uuid = ?", "x\n", BAD)
        assert store.take_pending() == []
        assert store.instances() == {GOOD, THIRD}
        assert set(store.requested_by(Source.METADATA)) == {GOOD, THIRD}
        with closing(Store(tmp_path)) as again:
            assert again.instances() == {GOOD, THIRD}
            assert r"'x\n'" in caplog.text
            assert again.returning() == set()
            assert again.withdraw_unreadable("x\n", "me")
            assert not again.withdraw_unreadable("x\n", "me")
            others_are_read(again)

    def test_an_unreadable_value_is_overwritten_by_the_next_request(self, tmp_path, store):
        edit(tmp_path, "UPDATE instance SET requested = ? WHERE instance_uuid = ?", DEEP, BAD)
        edit(tmp_path, "UPDATE request SET requested = ? WHERE instance_uuid = ?", DEEP, BAD)
        assert store.request(BAD, Request(Source.METADATA, asking("1"), "", 2.0))
        assert store.get(BAD).requested == asking("1")

    def test_an_unreadable_value_is_kept_in_the_history(self, tmp_path, store):
        edit(
            tmp_path, "UPDATE instance SET requested = '{\"llc\": 1}' WHERE instance_uuid = ?", BAD
        )
        store.report(store.get(BAD), Status.REFUSED, exception.StoredInvalid("bad"))
        last = store.history(BAD)[-1]
        assert (last.requested.text, last.reason) == ('{"llc": 1}', "stored_invalid")

    def test_a_row_is_restored_from_the_requests(self, tmp_path, store):
        edit(tmp_path, "UPDATE instance SET requested = '[' WHERE instance_uuid = ?", BAD)
        assert store.restore(BAD)
        assert store.get(BAD).requested == asking("1")
        assert store.get(BAD).status is Status.PENDING
        assert not store.restore(BAD)

    def test_a_row_is_not_restored_from_an_unreadable_one(self, tmp_path, store):
        edit(tmp_path, "UPDATE instance SET requested = '[' WHERE instance_uuid = ?", BAD)
        edit(tmp_path, "UPDATE request SET requested = '[' WHERE instance_uuid = ?", BAD)
        assert not store.restore(BAD)

    def test_a_readable_row_is_not_restored(self, tmp_path, store):
        edit(tmp_path, "UPDATE instance SET requested = '{}' WHERE instance_uuid = ?", BAD)
        assert not store.restore(BAD)

    @pytest.mark.parametrize("also", ["instance", "request"])
    def test_deleting_leaves_the_other_requests_in_force(self, tmp_path, store, also):
        store.request(BAD, Request(Source.OPERATOR, asking("2"), "me", 2.0))
        edit(tmp_path, "UPDATE request SET requested = '[' WHERE source = 'operator'")
        if also == "instance":
            edit(tmp_path, "UPDATE instance SET requested = '[' WHERE instance_uuid = ?", BAD)
        assert store.withdraw_unreadable(BAD, "me")
        assert store.get(BAD).requested == asking("1")
        assert [each.source for each in store.requests(BAD)] == ["metadata"]
        assert not store.withdraw_unreadable(BAD, "me")

    @pytest.mark.parametrize("damaged", ["a request", "the instance"])
    def test_deleting_reports_its_result_even_if_no_other_request_is_in_force(
        self, tmp_path, store, damaged
    ):
        store.request(BAD, Request(Source.OPERATOR, asking("2"), "me", 2.0))
        if damaged == "a request":
            edit(
                tmp_path,
                "UPDATE request SET requested = '['"
                " WHERE source = 'metadata' AND instance_uuid = ?",
                BAD,
            )
        else:
            edit(tmp_path, "UPDATE instance SET requested = '[' WHERE instance_uuid = ?", BAD)
        assert store.withdraw_unreadable(BAD, "me") is True
        assert store.get(BAD).requested == asking("2")

    def test_deleting_leaves_readable_values(self, tmp_path, store):
        edit(tmp_path, "UPDATE instance SET requested = '{}' WHERE instance_uuid = ?", BAD)
        assert store.withdraw_unreadable(BAD, "me") is False
        assert store.get(BAD).requested == Allocation()

    def test_deleting_creates_no_row_of_an_unknown_instance(self, store):
        assert store.withdraw_unreadable(UNKNOWN, "me") is False
        assert store.get(UNKNOWN) is None

    def test_deleting_the_only_request_returns_the_guest(self, tmp_path, store):
        for table in ("instance", "request"):
            edit(tmp_path, f"UPDATE {table} SET requested = '[' WHERE instance_uuid = ?", BAD)
        assert store.withdraw_unreadable(BAD, "me")
        assert store.get(BAD).requested == Allocation()
        assert store.history(BAD)[-1].requested_by == "deleted as unreadable by me"

    def test_a_lone_surrogate_is_kept_as_its_escape(self, store):
        store.request(BAD, Request(Source.METADATA, asking("2"), "user \udc80", 2.0))
        assert store.requests(BAD)[0].requested_by == r"user \udc80"
        store.report(
            store.get(BAD),
            Status.FAILED,
            exception.StepFailed("x\udc80"),
            drift=exception.Repinned("y\udc81"),
        )
        assert (store.get(BAD).message, store.get(BAD).drift) == (r"x\udc80", r"y\udc81")


class TestPendingLookups:
    @pytest.mark.parametrize("about", ["x", "../flavors", "", 5, b"\xff", GOOD.upper(), "All"])
    def test_an_invalid_instance_id_is_named_and_forgotten(self, tmp_path, caplog, about):
        PendingLookups(tmp_path).close()
        for each in (about, GOOD, ALL):
            edit(tmp_path, "INSERT INTO lookup VALUES (?)", each, file=LOOKUPS)
        with PendingLookups(tmp_path) as lookups:
            assert set(lookups.pending()) == {GOOD, ALL}
            assert len(lookups) == 2
        assert caplog.text.count("WARNING") == 1
        with PendingLookups(tmp_path) as again:
            assert set(again.pending()) == {GOOD, ALL}
        assert caplog.text.count("WARNING") == 1

    def test_a_text_that_is_not_utf_8_leaves_the_others(self, tmp_path):
        PendingLookups(tmp_path).close()
        edit(tmp_path, "INSERT INTO lookup VALUES (CAST(x'ff' AS TEXT))", file=LOOKUPS)
        edit(tmp_path, "INSERT INTO lookup VALUES (?)", GOOD, file=LOOKUPS)
        with PendingLookups(tmp_path) as lookups:
            assert set(lookups.pending()) == {GOOD}


@pytest.fixture
def allocations(db):
    allocations = Allocations(db)
    for uuid in (GOOD, BAD, THIRD):
        allocations.put(uuid, Allocation(cpu_shares=5), generation=None, **BY)
    allocations.report("here", [report(BAD, 1)], 5.0)
    return allocations


def set_row(db, table, **values):
    with db.writer() as session:
        session.execute(
            sqlalchemy.update(table).where(table.c.instance_uuid == BAD).values(values)
        )


class TestDatabase:
    def test_one_bad_text_leaves_the_others(self, db, allocations):
        for text, _ in TEXTS.values():
            set_row(db, models.ALLOCATION, requested=text)
            set_row(db, models.HISTORY, requested=text)
            found = {entry.instance_uuid: entry for entry in allocations.list()}
            assert found.keys() == {GOOD, BAD, THIRD}
            assert found[GOOD].allocation == Allocation(cpu_shares=5)
            assert isinstance(found[BAD].allocation, Unreadable), text
            assert found[BAD].status == "applied"
            assert isinstance(allocations.history(BAD)[0].allocation, Unreadable)

    @pytest.mark.parametrize("text", [DEEP, '{"cpu_shares": 1e400}', '{"llc": "0"}'])
    def test_a_bad_text_is_overwritten_also_by_a_map_and_deleted(self, db, allocations, text):
        set_row(db, models.ALLOCATION, requested=text)
        entry, created = allocations.put(BAD, Allocation(cpu_shares=6), generation=1, **BY)
        assert (entry.generation, created) == (2, False)
        set_row(db, models.ALLOCATION, requested=text)
        requested = {BAD: Allocation(cpu_shares=7)}
        assert allocations.put_map("m", requested, generation=None, **BY)[2] == [BAD]
        set_row(db, models.ALLOCATION, requested=text)
        assert allocations.delete(BAD, generation=None, **BY).status == "releasing"

    def test_one_bad_number_leaves_the_others(self, db, allocations):
        for table, column, value in (
            (models.OUTCOME, "drift_at", 1e300),
            (models.OUTCOME, "drift_at", math.inf),
            (models.OUTCOME, "reported_at", -1e300),
            (models.OUTCOME, "changed_at", math.inf),
            (models.OUTCOME, "status", "unheard of"),
            (models.ALLOCATION, "created_at", 1e300),
            (models.ALLOCATION, "updated_at", math.inf),
            (models.HISTORY, "requested_at", 1e300),
            (models.HISTORY, "changed_at", math.inf),
        ):
            set_row(db, table, **{column: value})
            assert len(allocations.list()) == 3
            entry = allocations.get(BAD)
            for moment in (entry.created_at, entry.updated_at, entry.outcome.reported_at):
                assert 0 <= moment < 1e11
            assert entry.outcome.drift_at is None
            assert 0 <= allocations.history(BAD)[0].requested_at < 1e11

    def test_wrong_types_leave_the_others(self, db, allocations):
        # Only SQLite takes them.
        with db.writer() as session:
            for statement in (
                "allocation SET generation = 'x', requested_by = CAST(x'ff' AS TEXT)",
                "outcome SET message = x'ff', drift_at = 'soon'",
            ):
                where = f"WHERE instance_uuid = '{BAD}'"
                session.execute(sqlalchemy.text(f"UPDATE {statement} {where}"))
        assert len(allocations.list()) == 3
        entry = allocations.get(BAD)
        assert (entry.generation, entry.requested_by) == (0, r"\xff")
        entry, _ = allocations.put(BAD, Allocation(cpu_shares=6), generation=None, **BY)
        assert entry.generation == 1
        assert allocations.delete(BAD, generation=None, **BY) is not None
