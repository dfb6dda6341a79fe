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

"""Where Nova says that instances are, on disk; and forgetting an instance by it."""

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
HERE = Hint(Place.HERE, said_by="an event", said_at=5.0)
THERE = Hint(Place.ELSEWHERE, "compute-2", "an event", 5.0)


@pytest.fixture
def store(store):
    for uuid in (UUID, OTHER):
        store.ask(uuid, request("1"))
    return store


def request(cpus):
    asked = metadata.parse({metadata.VCPU_PINNING: cpus}) if cpus else metadata.parse({})
    return Request(Source.METADATA, asked, "somebody", 1.5)


def test_a_hint_outlives_the_process(store, tmp_path):
    hint = replace(THERE, doubtful=True)
    assert store.hints.keep(UUID, hint)
    store.close()
    again = Store(tmp_path)
    assert again.hints.get(UUID) == hint
    assert again.hints.get(OTHER) is None
    again.close()


def test_that_an_instance_is_here_is_nothing_to_be_kept(store):
    assert store.hints.keep(UUID, HERE) is False
    assert store.hints.get(UUID) is None
    store.hints.keep(UUID, THERE)
    assert store.hints.keep(UUID, HERE)
    assert store.hints.get(UUID) is None
    doubtful = replace(HERE, doubtful=True)
    assert store.hints.keep(UUID, doubtful)
    assert store.hints.get(UUID) == doubtful


def test_what_is_said_again_was_said_first_when_it_was_said_first(store):
    assert store.hints.keep(UUID, THERE)
    assert not store.hints.keep(UUID, replace(THERE, said_by="another event", said_at=9.0))
    assert store.hints.get(UUID) == THERE
    answer = Hint(Place.ELSEWHERE, "compute-2", "Nova's API", 9.0, answered=True)
    assert store.hints.keep(UUID, answer)
    assert store.hints.get(UUID) == replace(answer, said_at=5.0)
    assert not store.hints.keep(UUID, replace(answer, said_at=11.0))
    assert not store.hints.keep(UUID, replace(THERE, said_at=11.0))
    other = Hint(Place.ELSEWHERE, "compute-3", "an event", 12.0)
    assert store.hints.keep(UUID, other)
    assert store.hints.get(UUID) == other


def test_those_that_are_not_here_by_nova_are_told(store):
    store.ask(THIRD, request("1"))
    store.hints.keep(UUID, THERE)
    store.hints.keep(OTHER, Hint(Place.NOWHERE))
    store.hints.keep(THIRD, replace(THERE, doubtful=True))
    assert store.hints.astray() == {UUID, OTHER}
    store.hints.keep(UUID, replace(HERE, doubtful=True))
    assert store.hints.astray() == {OTHER}
    store.hints.clear()
    assert store.hints.astray() == set()
    assert store.hints.get(OTHER) is None


def test_a_hint_goes_with_its_instance(store):
    store.hints.keep(UUID, THERE)
    store.hints.keep(OTHER, THERE)
    store.forget(UUID, "gone")
    assert store.hints.get(UUID) is None
    assert store.hints.get(OTHER) == THERE


@pytest.mark.parametrize("column", ["place = 'moon'", "place = x'00'", "place = ''"])
def test_a_hint_that_can_not_be_read_is_none(store, tmp_path, column):
    store.hints.keep(UUID, THERE)
    with sqlite3.connect(tmp_path / FILE_NAME) as db:
        db.execute(f"UPDATE hint SET {column}")
    db.close()
    assert store.hints.get(UUID) is None


def test_what_else_is_damaged_of_a_hint_does_not_hide_where_nova_says_it_is(store, tmp_path):
    store.hints.keep(UUID, THERE)
    with sqlite3.connect(tmp_path / FILE_NAME) as db:
        db.execute("UPDATE hint SET said_at = 'noon'")
    db.close()
    assert store.hints.get(UUID) == replace(THERE, said_at=0.0)


def test_an_instance_is_given_up_only_as_it_was_seen(store):
    store.hints.keep(UUID, THERE)
    record = store.get(UUID)
    assert not store.give_up(record, None, "gone")
    assert not store.give_up(record, replace(THERE, host="compute-3"), "gone")
    store.ask(UUID, request("2"))
    assert not store.give_up(record, THERE, "gone")
    assert store.holds(UUID)
    assert store.give_up(store.get(UUID), THERE, "has left")
    assert not store.holds(UUID)
    assert not store.give_up(record, None, "gone")
    assert store.history(UUID)[-1].message == "has left"


def test_what_has_not_run_since_and_is_elsewhere_is_purged(store):
    for uuid, hint in ((UUID, THERE), (OTHER, HERE)):
        store.report(store.get(uuid), Status.ABSENT, exception.GuestAbsent("off"))
        store.hints.keep(uuid, hint)
    changed = store.get(UUID).changed_at
    store.purge(changed)
    assert store.holds(UUID)
    store.ask(THIRD, request("1"))
    store.hints.keep(THIRD, THERE)
    store.purge(changed + 100)
    assert store.held() == {OTHER, THIRD}


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
