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

"""Edits that no event told of: told once, and only when it is certain that none comes."""

import logging

import pytest

from kongming.notification.missed_events import PATIENCE_S, MissedEvents


class Told:
    """An instance of it with a clock of its own, and its lines."""

    def __init__(self, caplog):
        self.now = 1000.0
        self._caplog = caplog
        self.missed = MissedEvents(lambda: self.now)

    def tell(self):
        self._caplog.clear()
        self.missed.warn()
        return [record.getMessage() for record in self._caplog.records]


@pytest.fixture
def told(caplog):
    caplog.set_level(logging.INFO)
    return Told(caplog)


def test_an_edit_without_a_timely_event_is_logged_once(told):
    told.missed.note_edit("one")
    told.now += PATIENCE_S - 0.1
    assert told.tell() == []
    told.now += 0.1
    (line,) = told.tell()
    assert (
        "The metadata of 1 instances, among them one, was edited and no event reported it" in line
    )
    assert told.tell() == []


def test_a_timely_event_is_enough(told):
    told.missed.note_edit("one")
    told.missed.note_edit("two")
    told.missed.note_event("one")
    told.missed.note_event("another")
    told.now += PATIENCE_S
    (line,) = told.tell()
    assert "of 1 instances, among them two" in line


def test_a_request_that_is_found_again_is_no_newer(told):
    told.missed.note_edit("one")
    told.now += PATIENCE_S / 2
    told.missed.note_edit("one")
    told.now += PATIENCE_S / 2
    assert len(told.tell()) == 1
