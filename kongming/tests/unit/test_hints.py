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

"""Where instances are according to Nova, on disk; and forgetting an instance by it."""

from dataclasses import replace
import sqlite3

import pytest

from kongming import exception
from kongming.allocation import metadata
from kongming.allocation.request import Request, Source
from kongming.allocation.statuses import Status
from kongming.executor.store.residence import Hint, Place
from kongming.executor.store.store import FILE_NAME, Store

UUID = "5a6e9b1e-0000-4000-8000-000000000001"
OTHER = "5a6e9b1e-0000-4000-8000-000000000002"
THIRD = "5a6e9b1e-0000-4000-8000-000000000003"
HERE = Hint(Place.HERE, reported_by="an event", reported_at=5.0)
THERE = Hint(Place.ELSEWHERE, "compute-2", "an event", 5.0)


@pytest.fixture
def store(store):
    for uuid in (UUID, OTHER):
        store.request(uuid, request("1"))
    return store


def request(cpus):
    requested = metadata.parse({metadata.VCPU_PINNING: cpus}) if cpus else metadata.parse({})
    return Request(Source.METADATA, requested, "somebody", 1.5)


def test_a_hint_outlives_the_process(store, tmp_path):
    hint = replace(THERE, uncertain=True)
    assert store.hints.save(UUID, hint)
    store.close()
    again = Store(tmp_path)
    assert again.hints.get(UUID) == hint
    assert again.hints.get(OTHER) is None
    again.close()


def test_a_hint_that_names_this_host_is_not_stored(store):
    assert store.hints.save(UUID, HERE) is False
    assert store.hints.get(UUID) is None
    store.hints.save(UUID, THERE)
    assert store.hints.save(UUID, HERE)
    assert store.hints.get(UUID) is None
    uncertain = replace(HERE, uncertain=True)
    assert store.hints.save(UUID, uncertain)
    assert store.hints.get(UUID) == uncertain


def test_a_repeated_hint_keeps_its_first_time(store):
    assert store.hints.save(UUID, THERE)
    assert not store.hints.save(UUID, replace(THERE, reported_by="another event", reported_at=9.0))
    assert store.hints.get(UUID) == THERE
    answer = Hint(Place.ELSEWHERE, "compute-2", "Nova's API", 9.0, from_api=True)
    assert store.hints.save(UUID, answer)
    assert store.hints.get(UUID) == replace(answer, reported_at=5.0)
    assert not store.hints.save(UUID, replace(answer, reported_at=11.0))
    assert not store.hints.save(UUID, replace(THERE, reported_at=11.0))
    other = Hint(Place.ELSEWHERE, "compute-3", "an event", 12.0)
    assert store.hints.save(UUID, other)
    assert store.hints.get(UUID) == other


def test_instances_that_nova_places_on_another_host_are_listed(store):
    store.request(THIRD, request("1"))
    store.hints.save(UUID, THERE)
    store.hints.save(OTHER, Hint(Place.NOWHERE))
    store.hints.save(THIRD, replace(THERE, uncertain=True))
    assert store.hints.elsewhere() == {UUID, OTHER}
    store.hints.save(UUID, replace(HERE, uncertain=True))
    assert store.hints.elsewhere() == {OTHER}
    store.hints.clear()
    assert store.hints.elsewhere() == set()
    assert store.hints.get(OTHER) is None


def test_a_hint_goes_with_its_instance(store):
    store.hints.save(UUID, THERE)
    store.hints.save(OTHER, THERE)
    store.forget(UUID, "gone")
    assert store.hints.get(UUID) is None
    assert store.hints.get(OTHER) == THERE


@pytest.mark.parametrize("column", ["place = 'moon'", "place = x'00'", "place = ''"])
def test_an_unreadable_hint_is_ignored(store, tmp_path, column):
    store.hints.save(UUID, THERE)
    with sqlite3.connect(tmp_path / FILE_NAME) as db:
        db.execute(f"UPDATE hint SET {column}")
    db.close()
    assert store.hints.get(UUID) is None


def test_a_damaged_field_of_a_hint_does_not_hide_the_host_that_nova_named(store, tmp_path):
    store.hints.save(UUID, THERE)
    with sqlite3.connect(tmp_path / FILE_NAME) as db:
        db.execute("UPDATE hint SET reported_at = 'noon'")
    db.close()
    assert store.hints.get(UUID) == replace(THERE, reported_at=0.0)


def test_an_instance_is_given_up_only_in_the_observed_state(store):
    store.hints.save(UUID, THERE)
    record = store.get(UUID)
    assert not store.forget_if_unchanged(record, None, "gone")
    assert not store.forget_if_unchanged(record, replace(THERE, host="compute-3"), "gone")
    store.request(UUID, request("2"))
    assert not store.forget_if_unchanged(record, THERE, "gone")
    assert store.has_record(UUID)
    assert store.forget_if_unchanged(store.get(UUID), THERE, "has left")
    assert not store.has_record(UUID)
    assert not store.forget_if_unchanged(record, None, "gone")
    assert store.history(UUID)[-1].message == "has left"


def test_an_instance_that_has_not_run_since_and_is_on_another_host_is_purged(store):
    for uuid, hint in ((UUID, THERE), (OTHER, HERE)):
        store.report(store.get(uuid), Status.ABSENT, exception.GuestAbsent("off"))
        store.hints.save(uuid, hint)
    changed = store.get(UUID).changed_at
    store.purge(changed)
    assert store.has_record(UUID)
    store.request(THIRD, request("1"))
    store.hints.save(THIRD, THERE)
    store.purge(changed + 100)
    assert store.instances() == {OTHER, THIRD}


def test_each_store_has_an_identity_of_its_own(store, tmp_path):
    known = store.identity
    assert known
    again = Store(tmp_path)
    assert again.identity == known
    other = Store(tmp_path / "other") if (tmp_path / "other").mkdir() is None else None
    assert other.identity not in ("", known)
    for each in (again, other):
        each.close()


def test_a_store_that_lost_its_identity_goes_on(store, tmp_path):
    with sqlite3.connect(tmp_path / FILE_NAME) as db:
        db.execute("DELETE FROM identity")
    db.close()
    assert Store(tmp_path).identity == ""
