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

"""The availability of another service: what is logged of an outage, and how often."""

import logging

import pytest

from kongming.runtime import availability, hourly
from kongming.runtime.availability import Availability


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    for module in (availability, hourly):
        monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO)
    return lambda: [(each.levelname, each.getMessage()) for each in caplog.records]


@pytest.fixture
def nova(clock):
    return Availability("Nova", logging.getLogger(__name__))


def test_an_outage_and_its_end_are_logged_once(nova, clock, lines):
    nova.restored()
    for _ in range(3):
        nova.lost("Nova can't be used: gone")
        assert not nova.is_available
    clock[0] += 7
    nova.restored()
    nova.restored()
    assert nova.is_available
    assert lines() == [
        ("WARNING", "Nova can't be used: gone"),
        ("INFO", "Nova is available again, after 7 s"),
    ]


def test_each_kind_of_problem_is_logged_once_in_an_outage(nova, lines):
    for kind in ("gone", "login", "gone", "login"):
        nova.lost(f"{kind}!", kind, logging.ERROR)
    assert lines() == [("ERROR", "gone!"), ("ERROR", "login!")]


def test_an_outage_that_lasts_is_logged_each_hour(nova, clock, lines):
    for seconds in (500, 0, 3599, 1, 3599, 1):
        clock[0] += seconds
        nova.lost("gone")
    assert len(lines()) == 3


def test_the_next_outage_is_logged_again(nova, lines):
    for _ in range(2):
        nova.lost("gone")
        nova.restored()
    assert len(lines()) == 4
