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


"""Questions to Nova: open until they are answered, whoever asks them, and again meanwhile."""

import time

import pytest

from kongming.notification.pending_lookups import ALL, Inquiries

UUID = "5a6e9b1e-0000-4000-8000-000000000001"
OTHER = "5a6e9b1e-0000-4000-8000-000000000002"
NORMAL, FULL = 1, 2


@pytest.fixture
def inquiries(tmp_path):
    with Inquiries(tmp_path) as inquiries:
        yield inquiries


def test_a_question_is_open_until_it_is_answered(inquiries):
    inquiries.add(UUID, here=True)
    asked = inquiries.open()[UUID]
    assert (asked.here, asked.attempts) == (True, 0)
    assert UUID in inquiries
    assert OTHER not in inquiries
    assert inquiries.is_kept(UUID)
    assert not inquiries.is_kept(OTHER)
    inquiries.close_one(UUID, asked)
    assert not inquiries.open()
    assert UUID not in inquiries
    assert not inquiries.is_kept(UUID)


def test_an_open_question_outlives_a_restart_and_an_answered_one_does_not(tmp_path, inquiries):
    inquiries.add(UUID)
    inquiries.add(ALL)
    inquiries.close_one(ALL, inquiries.open()[ALL])
    with Inquiries(tmp_path) as again:
        assert set(again.open()) == {UUID}


def test_a_question_that_is_asked_again_meanwhile_stays_open(inquiries):
    inquiries.add(UUID, here=True)
    asked = inquiries.open()[UUID]
    inquiries.add(UUID, here=False)
    inquiries.postpone(UUID, asked, 60)
    inquiries.close_one(UUID, asked)
    again = inquiries.open()[UUID]
    assert (again.here, again.attempts) == (False, 0)
    assert again.due <= time.monotonic()
    assert again is not asked
    assert inquiries.is_kept(UUID)


def test_a_postponed_question_is_due_later_and_counts_its_attempts(inquiries):
    inquiries.add(UUID, here=True)
    before = time.monotonic()
    for attempts in (1, 2):
        inquiries.postpone(UUID, inquiries.open()[UUID], 60)
        postponed = inquiries.open()[UUID]
        assert (postponed.attempts, postponed.here) == (attempts, True)
        assert before + 60 <= postponed.due <= time.monotonic() + 60
    inquiries.close_one(UUID, postponed)
    inquiries.postpone(UUID, postponed, 60)
    assert not inquiries.open()


def test_a_question_of_another_process_is_seen_and_an_open_one_left_alone(tmp_path, inquiries):
    inquiries.add(UUID, here=True)
    asked = inquiries.open()[UUID]
    with Inquiries(tmp_path) as other:
        other.add(OTHER)
        other.add(UUID)
    found = inquiries.open()
    assert set(found) == {UUID, OTHER}
    assert found[UUID] == asked
    assert found[OTHER].here is None


def test_a_question_is_synced_to_disk_and_its_end_need_not_be(inquiries):
    inquiries.add(UUID)
    assert inquiries._db.query("PRAGMA synchronous") == [(FULL,)]
    inquiries.close_one(UUID, inquiries.open()[UUID])
    assert inquiries._db.query("PRAGMA synchronous") == [(NORMAL,)]
