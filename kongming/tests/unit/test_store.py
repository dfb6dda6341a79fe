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

"""The store: what is on disk, and what comes of damage."""

import sqlite3
import threading

import pytest

from kongming import exception, metadata
from kongming.allocation import Allocation
from kongming.executor.store import FILE_NAME, Status, Store

UUID = "5a6e9b1e-0000-4000-8000-000000000001"
OTHER = "5a6e9b1e-0000-4000-8000-000000000002"


def asking(value):
    return metadata.parse({"kongming-vcpu-pinning": value})


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path)
    yield store
    store.close()


def test_what_is_asked_outlives_the_process(tmp_path):
    first = Store(tmp_path)
    assert first.ask(UUID, asking("0:1;1:2-3"))
    first.close()
    record = Store(tmp_path).get(UUID)
    assert record.asked == asking("0:1;1:2-3")
    assert record.status is Status.PENDING


def test_asking_the_same_again_changes_nothing(store):
    assert store.ask(UUID, asking("1"))
    store.report(store.get(UUID), Status.APPLIED, accepted=asking("1"))
    before = store.get(UUID)
    assert not store.ask(UUID, asking(" 1 "))
    assert store.get(UUID) == before


def test_a_request_that_cannot_be_read_leaves_what_is_in_force(store):
    store.ask(UUID, asking("1"))
    store.report(store.get(UUID), Status.APPLIED, accepted=asking("1"))
    assert store.refuse(UUID, exception.RequestInvalid("bad"))
    assert not store.refuse(UUID, exception.RequestInvalid("bad"))
    record = store.get(UUID)
    assert record.asked is None
    assert record.accepted == asking("1")
    assert (record.status, record.reason) == (Status.REFUSED, "request_invalid")
    assert store.ask(UUID, asking("1"))


def test_an_outcome_for_what_is_no_longer_asked_is_dropped(store):
    store.ask(UUID, asking("1"))
    working_on = store.get(UUID)
    store.ask(UUID, asking("2"))
    assert not store.report(working_on, Status.APPLIED, accepted=asking("1"))
    assert store.get(UUID).status is Status.PENDING
    assert store.get(UUID).accepted is None


def test_an_outcome_is_new_once(store):
    store.ask(UUID, asking("1"))
    assert store.report(store.get(UUID), Status.REFUSED, exception.CpuOffline("CPU 1"))
    assert not store.report(store.get(UUID), Status.REFUSED, exception.CpuOffline("CPU 1"))
    assert store.report(store.get(UUID), Status.REFUSED, exception.CpuOffline("CPU 2"))


def test_only_what_nobody_asked_for_since_is_forgotten(store):
    store.ask(UUID, Allocation())
    working_on = store.get(UUID)
    store.ask(UUID, asking("1"))
    assert not store.forget(UUID, generation=working_on.generation)
    assert store.holds(UUID)
    assert store.forget(UUID)
    assert not store.holds(UUID)
    assert store.get(UUID) is None
    assert not store.forget(UUID)


def test_held_are_all_instances_that_anything_is_known_of(tmp_path, store):
    store.ask(UUID, asking("1"))
    store.refuse(OTHER, exception.RequestInvalid("bad"))
    assert store.held() == {UUID, OTHER} == Store(tmp_path).held()


def test_any_thread_may_use_it(store):
    def work(number):
        for turn in range(20):
            store.ask(f"{number}", asking(str(turn)))
            store.report(store.get(f"{number}"), Status.APPLIED)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {store.get(f"{number}").asked for number in range(4)} == {asking("19")}


def test_a_damaged_file_is_a_clear_error(tmp_path):
    (tmp_path / FILE_NAME).write_bytes(b"garbage" * 1000)
    with pytest.raises(exception.StoreUnavailable, match=r"not a database; .*move it away"):
        Store(tmp_path)


def test_a_missing_directory_is_a_clear_error(tmp_path):
    with pytest.raises(exception.StoreUnavailable, match="directory is writable"):
        Store(tmp_path / "missing")


def test_a_newer_schema_is_left_alone(tmp_path):
    Store(tmp_path).close()
    with sqlite3.connect(tmp_path / FILE_NAME) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(exception.StoreUnavailable, match="newer Kongming"):
        Store(tmp_path)
