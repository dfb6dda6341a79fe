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

"""Edits that no event reported: logged once, and only when it is certain that none comes."""

import logging

import pytest

from kongming.notification.missed_events import PATIENCE_S, MissedEvents


class Harness:
    """An instance of MissedEvents with a clock of its own, and its lines."""

    def __init__(self, caplog):
        self.now = 1000.0
        self._caplog = caplog
        self.missed = MissedEvents(lambda: self.now)

    def warn(self):
        self._caplog.clear()
        self.missed.warn()
        return [record.getMessage() for record in self._caplog.records]


@pytest.fixture
def harness(caplog):
    caplog.set_level(logging.INFO)
    return Harness(caplog)


def test_an_edit_without_a_timely_event_is_logged_once(harness):
    harness.missed.note_edit("one")
    harness.now += PATIENCE_S - 0.1
    assert harness.warn() == []
    harness.now += 0.1
    (line,) = harness.warn()
    assert (
        "The metadata of 1 instances, among them one, was edited and no event reported it" in line
    )
    assert harness.warn() == []


def test_a_timely_event_is_enough(harness):
    harness.missed.note_edit("one")
    harness.missed.note_edit("two")
    harness.missed.note_event("one")
    harness.missed.note_event("another")
    harness.now += PATIENCE_S
    (line,) = harness.warn()
    assert "of 1 instances, among them two" in line


def test_a_request_that_is_found_again_is_no_newer(harness):
    harness.missed.note_edit("one")
    harness.now += PATIENCE_S / 2
    harness.missed.note_edit("one")
    harness.now += PATIENCE_S / 2
    assert len(harness.warn()) == 1
