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

"""The store: what is on disk, and how damage is handled."""

from dataclasses import replace
import json
import sqlite3
import threading

import pytest

from kongming import exception
from kongming.allocation import metadata
from kongming.allocation.allocation import Allocation
from kongming.allocation.cpuset import CpuSet
from kongming.allocation.request import Request, Source
from kongming.allocation.statuses import Status
from kongming.executor.store import history
from kongming.executor.store.residence import Hint, Place
from kongming.executor.store.schema import MIGRATIONS
from kongming.executor.store.store import FILE_NAME, Store
from kongming.tests.cost import cost
from kongming.tests.unit.strategies import WORST

UUID = "5a6e9b1e-0000-4000-8000-000000000001"
OTHER = "5a6e9b1e-0000-4000-8000-000000000002"


def asking(value):
    return metadata.parse({"kongming-vcpu-pinning": value})


def request(requested, source=Source.METADATA, requested_by="somebody"):
    return Request(source, requested, requested_by, 1.5)


def test_a_request_survives_the_process(tmp_path):
    first = Store(tmp_path)
    assert first.request(UUID, request(asking("0:1;1:2-3")))
    first.close()
    record = Store(tmp_path).get(UUID)
    assert record.requested == asking("0:1;1:2-3")
    assert record.status is Status.PENDING


@pytest.mark.parametrize("text", WORST.values(), ids=WORST)
def test_the_cost_of_reading_a_record_is_bounded_by_its_length(tmp_path, text):
    requested = asking(text)
    first = Store(tmp_path)
    bound = {"lines": 3000 + 200 * len(text), "peak": 64_000 + 400 * len(text)}
    assert cost(lambda: first.request(UUID, request(requested))).within(**bound)
    first.report(first.get(UUID), Status.APPLIED, accepted=requested)
    first.close()
    again = Store(tmp_path)
    assert cost(again.records).within(**bound)
    assert cost(lambda: again.history(UUID)).within(**bound)
    assert again.get(UUID).accepted == requested
    again.close()
    kept = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert kept < 120_000


def test_a_record_of_an_older_version_is_read(tmp_path, store):
    store.request(UUID, request(asking("0:1")))
    store.close()
    for kept, expected in (
        (dict.fromkeys(map(str, range(500)), "0-8191"), {0: set(range(8192))}),
        ({"0": "1", "999999": "2"}, {0: {1}}),
        ({"0": "1", "0\n": "2"}, {0: {2}}),
    ):
        with sqlite3.connect(tmp_path / FILE_NAME) as db:
            db.execute("UPDATE instance SET requested = ?", (json.dumps({"vcpu_pinning": kept}),))
        again = Store(tmp_path)
        assert cost(again.records).within(
            lines=50 * len(str(kept)), peak=100 * len(str(kept)) + 64_000
        )
        assert again.get(UUID).requested.vcpu_pinning.resolve(CpuSet([0])) == expected
        again.close()


def test_requests_and_hints_are_synced_to_disk_and_outcomes_need_not_be(store):
    hint = Hint(Place.ELSEWHERE, "compute-2")
    for change, synced in (
        (lambda: store.request(UUID, request(asking("1"))), True),
        (lambda: store.report(store.get(UUID), Status.APPLIED), False),
        (lambda: store.request_pass(UUID), True),
        (lambda: store.purge(0.0), False),
        (lambda: store.hints.save(UUID, hint), True),
        (lambda: store.report(store.get(UUID), Status.FAILED), False),
        (lambda: store.hints.clear(), True),
        (lambda: store.purge(0.0), False),
        (lambda: store.withdraw(UUID, Source.METADATA, "somebody"), True),
        (lambda: store.purge(0.0), False),
        (lambda: store.forget(UUID, "by hand"), True),
        (lambda: store.purge(0.0), False),
        (lambda: store.release(UUID, "somebody"), True),
        (lambda: store.purge(0.0), False),
        (lambda: store.restore(UUID), True),
        (lambda: store.purge(0.0), False),
        (lambda: store.withdraw_unreadable(UUID, "somebody"), True),
    ):
        change()
        assert store._db.query("PRAGMA synchronous") == [(2 if synced else 1,)]


def test_a_repeated_request_has_no_effect(store):
    assert store.request(UUID, request(asking("1")))
    store.report(store.get(UUID), Status.APPLIED, accepted=asking("1"))
    before = store.get(UUID)
    assert not store.request(UUID, request(asking(" 1 ")))
    assert store.get(UUID) == before


def test_an_unreadable_request_leaves_the_former_in_force(store):
    store.request(UUID, request(asking("1")))
    store.report(store.get(UUID), Status.APPLIED, accepted=asking("1"))
    assert store.request(UUID, request(exception.RequestInvalid("bad")))
    assert not store.request(UUID, request(exception.RequestInvalid("bad")))
    record = store.get(UUID)
    assert record.requested is None
    assert record.accepted == asking("1")
    assert (record.status, record.reason) == (Status.REFUSED, "request_invalid")
    (kept,) = store.requests(UUID)
    assert (type(kept.requested), str(kept.requested)) == (exception.RequestInvalid, "bad")
    assert store.request(UUID, request(asking("1")))


def test_an_outcome_of_a_replaced_request_is_dropped(store):
    store.request(UUID, request(asking("1")))
    working_on = store.get(UUID)
    store.request(UUID, request(asking("2")))
    assert not store.report(working_on, Status.APPLIED, accepted=asking("1"))
    assert store.get(UUID).status is Status.PENDING
    assert [each.status for each in store.history(UUID)] == ["pending", "pending"]


def test_an_applied_request_is_known_even_if_it_was_replaced_meanwhile(store):
    store.request(UUID, request(asking("1")))
    working_on = store.get(UUID)
    store.request(UUID, request(exception.RequestInvalid("bad")))
    assert not store.report(working_on, Status.APPLIED, accepted=asking("1"))
    assert store.get(UUID).status is Status.REFUSED
    assert store.get(UUID).accepted == asking("1")


def test_a_withdrawn_request_is_not_in_force_when_the_next_one_is_refused(store):
    store.request(UUID, request(asking("1")))
    working_on = store.get(UUID)
    store.report(working_on, Status.APPLIED, accepted=asking("1"))
    store.request(UUID, request(Allocation()))
    assert store.get(UUID).accepted is None
    assert not store.report(working_on, Status.APPLIED, accepted=asking("1"))
    store.request(UUID, request(exception.RequestInvalid("bad")))
    assert store.get(UUID).accepted is None


def test_an_outcome_is_new_once(store):
    store.request(UUID, request(asking("1")))
    assert store.report(store.get(UUID), Status.REFUSED, exception.CpuOffline("CPU 1"))
    assert not store.report(store.get(UUID), Status.REFUSED, exception.CpuOffline("CPU 1"))
    assert store.report(store.get(UUID), Status.REFUSED, exception.CpuOffline("CPU 2"))


def test_only_an_instance_without_newer_requests_is_forgotten(store):
    store.request(UUID, request(Allocation()))
    working_on = store.get(UUID)
    store.request(UUID, request(asking("1")))
    assert not store.forget(UUID, "gone", generation=working_on.generation)
    assert store.has_record(UUID)
    assert store.forget(UUID, "gone")
    assert not store.has_record(UUID)
    assert store.get(UUID) is None
    assert not store.forget(UUID, "gone")


def test_held_instances_are_all_known_ones(tmp_path, store):
    store.request(UUID, request(asking("1")))
    store.request(OTHER, request(exception.RequestInvalid("bad")))
    assert store.instances() == {UUID, OTHER} == Store(tmp_path).instances()


def test_any_thread_may_use_it(store):
    def work(number):
        for turn in range(20):
            store.request(f"{number}", request(asking(str(turn))))
            store.report(store.get(f"{number}"), Status.APPLIED)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {store.get(f"{number}").requested for number in range(4)} == {asking("19")}


def test_a_damaged_file_is_a_clear_error(tmp_path):
    (tmp_path / FILE_NAME).write_bytes(b"garbage" * 1000)
    with pytest.raises(exception.StoreUnavailable, match=r"not a database; .*move it away"):
        Store(tmp_path)


def test_a_missing_directory_is_a_clear_error(tmp_path):
    with pytest.raises(exception.StoreUnavailable, match="directory is writable"):
        Store(tmp_path / "missing")


def test_a_newer_schema_is_not_changed(tmp_path):
    Store(tmp_path).close()
    with sqlite3.connect(tmp_path / FILE_NAME) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(exception.StoreUnavailable, match="newer Kongming"):
        Store(tmp_path)


def test_a_request_of_the_operator_wins(store):
    store.request(UUID, request(asking("1")))
    assert store.request(UUID, request(asking("2"), Source.OPERATOR))
    assert not store.request(UUID, request(asking("3")))
    assert store.get(UUID).requested == asking("2")
    assert store.get(UUID).source is Source.OPERATOR
    assert [r.source for r in store.requests(UUID)] == [Source.METADATA, Source.OPERATOR]
    assert store.withdraw(UUID, Source.OPERATOR, "me")
    assert not store.withdraw(UUID, Source.OPERATOR, "me")
    assert store.get(UUID).requested == asking("3")
    assert store.get(UUID).source is Source.METADATA


def test_an_instance_whose_requests_were_withdrawn_has_none(store):
    store.request(UUID, request(asking("2"), Source.OPERATOR))
    store.withdraw(UUID, Source.OPERATOR, "me")
    assert store.get(UUID).requested == Allocation()


def test_the_history_of_an_instance_has_an_end(store, monkeypatch):
    monkeypatch.setattr(history, "MAX_ENTRIES", 3)
    store.request(OTHER, request(asking("7")))
    for number in range(5):
        store.request(UUID, request(asking(str(number))))
    assert [str(each.requested.vcpu_pinning.every) for each in store.history(UUID)] == [
        "2",
        "3",
        "4",
    ]
    # Neither is the last entry lost that is still to be completed, nor one of another instance.
    store.report(store.get(UUID), Status.APPLIED, accepted=asking("4"))
    assert [each.status for each in store.history(UUID)] == ["pending", "pending", "applied"]
    assert len(store.history(OTHER)) == 1


def test_the_history_has_the_source_the_request_and_the_outcome(store):
    store.request(UUID, request(asking("1"), requested_by="user u1"))
    store.report(store.get(UUID), Status.APPLIED, accepted=asking("1"))
    store.report(store.get(UUID), Status.APPLIED, drift=exception.Repinned("vCPU 0 on 7"))
    store.request(UUID, request(asking("9")))
    store.report(store.get(UUID), Status.REFUSED, exception.CpuUnknown("CPU 9"))
    store.request(UUID, request(exception.RequestInvalid("bad")))
    store.forget(UUID, "has left")
    history = [
        (c.requested_by, c.requested, c.status, c.reason, c.message) for c in store.history(UUID)
    ]
    assert history == [
        ("user u1", asking("1"), "applied", "", ""),
        ("", asking("1"), "applied", "repinned", "vCPU 0 on 7"),
        ("somebody", asking("9"), "refused", "cpu_unknown", "CPU 9"),
        ("somebody", None, "refused", "request_invalid", "bad"),
        ("", None, "released", "", "has left"),
    ]
    store.purge(before=store.history(UUID)[-1].changed_at)
    assert [c.status for c in store.history(UUID)] == ["released"]


def test_a_request_of_the_api_is_listed_with_its_generation(store):
    requested = Request(Source.API, asking("1"), "somebody", 1.0, 7)
    assert store.request(UUID, requested)
    assert not store.request(UUID, replace(requested, generation=8))
    store.request(OTHER, request(asking("1")))
    assert store.requested_by(Source.API) == {UUID: (8, store.get(UUID))}
    assert store.requests(UUID)[0].generation == 8


def test_an_instance_whose_requests_were_withdrawn_is_releasing_until_it_is_absent(store, caplog):
    caplog.set_level("INFO")
    store.request(UUID, request(asking("1"), Source.API))
    assert store.returning() == set()
    store.withdraw(UUID, Source.API, "somebody")
    assert store.returning() == {UUID}
    store.report(store.get(UUID), Status.ABSENT, exception.GuestAbsent("gone"))
    assert store.returning() == set()
    store.purge(before=store.get(UUID).changed_at)
    assert store.has_record(UUID)
    assert "did not run again" not in caplog.text
    store.purge(before=store.get(UUID).changed_at + 1)
    assert not store.has_record(UUID)
    assert f"Forgotten, because they did not run again: {UUID}" in caplog.text


def test_the_last_drift_is_kept(store):
    store.request(UUID, request(asking("1")))
    assert store.get(UUID).drift_at is None
    store.report(store.get(UUID), Status.APPLIED, drift=exception.Repinned("vCPU 0 on 7"))
    assert not store.report(store.get(UUID), Status.APPLIED)
    record = store.get(UUID)
    assert record.drift == "vCPU 0 on 7"
    assert record.drift_at == record.changed_at


def test_a_request_of_another_process_is_found(tmp_path, store):
    other = Store(tmp_path, create=False)
    assert store.take_pending() == []
    store.request(UUID, request(asking("1")))
    assert store.take_pending() == []
    other.request(OTHER, request(asking("1"), Source.OPERATOR))
    assert set(store.take_pending()) == {UUID, OTHER}
    assert store.take_pending() == []
    assert store.has_record(OTHER)
    store.report(store.get(OTHER), Status.APPLIED)
    assert other.request_pass(OTHER)
    assert OTHER in store.take_pending()


def test_open_work_of_a_restored_database_is_found(tmp_path, store):
    store.request(UUID, request(asking("1")))
    backup = tmp_path / "backup"
    backup.mkdir()
    other = Store(backup)
    other.request(OTHER, request(asking("1")))
    other.close()
    for left in tmp_path.glob("allocations.sqlite-*"):
        left.unlink()
    (backup / "allocations.sqlite").replace(tmp_path / "allocations.sqlite")
    assert store.take_pending() == [OTHER]
    assert store.has_record(OTHER)
    assert not store.has_record(UUID)


def test_a_tool_makes_no_database(tmp_path):
    with pytest.raises(exception.StoreUnavailable, match="has a service of Kongming run"):
        Store(tmp_path, create=False)
    assert not (tmp_path / FILE_NAME).exists()


def test_a_database_of_an_older_version_is_migrated(tmp_path, monkeypatch):
    Store(tmp_path).request(UUID, request(asking("1")))
    newer = (*MIGRATIONS, ("UPDATE instance SET message = 'migrated'",))
    monkeypatch.setattr("kongming.executor.store.store.MIGRATIONS", newer)
    for _each in range(2):
        record = Store(tmp_path).get(UUID)
        assert (record.requested, record.message) == (asking("1"), "migrated")


def test_damage_to_an_open_file_is_logged_and_a_new_file_created_once_it_is_moved(tmp_path, store):
    store.request(UUID, request(asking("1")))
    for name in tmp_path.iterdir():
        name.write_bytes(b"garbage" * 1000)
    with pytest.raises(exception.StoreUnavailable, match="move it away"):
        store.request(OTHER, request(asking("1")))
    for name in tmp_path.iterdir():
        name.unlink()
    assert store.request(OTHER, request(asking("1")))
    assert store.instances() == {OTHER}


def test_a_file_that_was_moved_is_created_again_at_once(tmp_path, store):
    store.request(UUID, request(asking("1")))
    (tmp_path / FILE_NAME).rename(tmp_path / "damaged")
    assert store.request(OTHER, request(asking("1")))
    assert store.instances() == {OTHER}
    assert Store(tmp_path).instances() == {OTHER}


def test_a_request_that_could_not_be_stored_is_not_held(tmp_path, store):
    with sqlite3.connect(tmp_path / FILE_NAME) as db:
        db.execute(
            "CREATE TRIGGER full BEFORE INSERT ON history BEGIN SELECT raise(ABORT, 'full'); END"
        )
    with pytest.raises(exception.StoreUnavailable):
        store.request(UUID, request(asking("1")))
    assert not store.has_record(UUID)
    assert store.requests(UUID) == []


def test_an_outage_is_logged_once_until_it_is_over(tmp_path, store):
    def fail():
        with pytest.raises(exception.StoreUnavailable) as failure:
            store.request(UUID, request(asking("1")))
        return failure.value.outage

    trigger = "CREATE TRIGGER full BEFORE INSERT ON request BEGIN SELECT raise(ABORT, 'full'); END"
    with sqlite3.connect(tmp_path / FILE_NAME) as db:
        db.execute(trigger)
    assert fail().should_log()
    assert store.get(UUID) is None
    assert not fail().should_log()
    with sqlite3.connect(tmp_path / FILE_NAME) as db:
        db.execute("DROP TRIGGER full")
    assert store.request(OTHER, request(asking("1")))
    with sqlite3.connect(tmp_path / FILE_NAME) as db:
        db.execute(trigger)
    assert fail().should_log()
