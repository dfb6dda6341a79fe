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


"""Lookups in Nova: pending until they are answered, and retried meanwhile."""

import time

import pytest

from kongming.notification.pending_lookups import ALL, PendingLookups

UUID = "5a6e9b1e-0000-4000-8000-000000000001"
OTHER = "5a6e9b1e-0000-4000-8000-000000000002"
NORMAL, FULL = 1, 2


@pytest.fixture
def lookups(tmp_path):
    with PendingLookups(tmp_path) as lookups:
        yield lookups


def test_a_lookup_is_pending_until_it_is_answered(lookups):
    lookups.add(UUID, here=True)
    lookup = lookups.pending()[UUID]
    assert (lookup.here, lookup.attempts) == (True, 0)
    assert UUID in lookups
    assert OTHER not in lookups
    assert lookups.is_stored(UUID)
    assert not lookups.is_stored(OTHER)
    lookups.finish(UUID, lookup)
    assert not lookups.pending()
    assert UUID not in lookups
    assert not lookups.is_stored(UUID)


def test_a_pending_lookup_survives_a_restart_and_an_answered_one_does_not(tmp_path, lookups):
    lookups.add(UUID)
    lookups.add(ALL)
    lookups.finish(ALL, lookups.pending()[ALL])
    with PendingLookups(tmp_path) as again:
        assert set(again.pending()) == {UUID}


def test_a_lookup_that_is_requested_again_meanwhile_stays_pending(lookups):
    lookups.add(UUID, here=True)
    lookup = lookups.pending()[UUID]
    lookups.add(UUID, here=False)
    lookups.postpone(UUID, lookup, 60)
    lookups.finish(UUID, lookup)
    again = lookups.pending()[UUID]
    assert (again.here, again.attempts) == (False, 0)
    assert again.due <= time.monotonic()
    assert again is not lookup
    assert lookups.is_stored(UUID)


def test_a_postponed_question_is_due_later_and_counts_its_attempts(lookups):
    lookups.add(UUID, here=True)
    before = time.monotonic()
    for attempts in (1, 2):
        lookups.postpone(UUID, lookups.pending()[UUID], 60)
        postponed = lookups.pending()[UUID]
        assert (postponed.attempts, postponed.here) == (attempts, True)
        assert before + 60 <= postponed.due <= time.monotonic() + 60
    lookups.finish(UUID, postponed)
    lookups.postpone(UUID, postponed, 60)
    assert not lookups.pending()


def test_a_lookup_of_another_process_is_found_and_a_pending_one_unchanged(tmp_path, lookups):
    lookups.add(UUID, here=True)
    lookup = lookups.pending()[UUID]
    with PendingLookups(tmp_path) as other:
        other.add(OTHER)
        other.add(UUID)
    found = lookups.pending()
    assert set(found) == {UUID, OTHER}
    assert found[UUID] == lookup
    assert found[OTHER].here is None


def test_a_question_is_synced_to_disk_and_its_end_need_not_be(lookups):
    lookups.add(UUID)
    assert lookups._db.query("PRAGMA synchronous") == [(FULL,)]
    lookups.finish(UUID, lookups.pending()[UUID])
    assert lookups._db.query("PRAGMA synchronous") == [(NORMAL,)]
