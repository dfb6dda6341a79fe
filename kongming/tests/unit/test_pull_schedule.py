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

"""When a complete exchange with a conductor is due."""

from types import SimpleNamespace

import pytest

from kongming.runtime import timer
from kongming.standalone import pull_schedule
from kongming.standalone.pull_schedule import PullSchedule

INTERVAL_S = 600.0


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=1000.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(timer, "time", clock)
    monkeypatch.setattr(pull_schedule, "time", clock)
    monkeypatch.setattr(timer, "random_between", lambda _low, high: high)
    return clock


@pytest.fixture
def schedule(clock):
    made = PullSchedule()
    made.answered(made.begin())
    clock.now += 1.0
    return made


def due_after(schedule, clock):
    """Return the seconds until an exchange is due, in steps of half a second."""
    began = clock.now
    while not schedule.is_due(INTERVAL_S):
        clock.now += 0.5
    return clock.now - began


def test_an_exchange_is_due_at_an_interval(schedule, clock):
    # Of this host, at random: up to a fifth longer.
    assert due_after(schedule, clock) == INTERVAL_S * 1.2 - 1.0


def test_a_request_is_not_delayed_by_a_later_one(schedule, clock):
    schedule.request(5.0)
    schedule.request(30.0)
    assert due_after(schedule, clock) == 5.0
    schedule.request()
    assert schedule.is_due(INTERVAL_S)


def test_an_exchange_without_an_answer_is_due_again(schedule):
    schedule.begin()
    schedule.failed()
    assert schedule.is_due(INTERVAL_S)


def test_a_request_during_an_exchange_leads_to_another_exchange(schedule):
    began_at = schedule.begin()
    schedule.request()
    schedule.answered(began_at)
    schedule.contested(())
    assert schedule.is_due(INTERVAL_S)


def test_contested_guests_are_requested_again_after_growing_pauses(schedule, clock):
    pauses = []
    for _ in range(7):
        schedule.begin()
        schedule.contested(["guest"])
        pauses.append(due_after(schedule, clock))
    assert pauses == [1, 2, 4, 8, 16, 30, 30]
    schedule.begin()
    schedule.contested(())
    assert not schedule.is_due(INTERVAL_S)
    schedule.contested(["guest"])
    assert due_after(schedule, clock) == 1


def test_a_push_is_accepted_only_after_an_exchange_that_began_while_listening(schedule, clock):
    assert not schedule.is_settled
    began_at = schedule.begin()
    clock.now += 1.0
    schedule.listening()
    schedule.answered(began_at)
    assert not schedule.is_settled
    assert schedule.is_due(INTERVAL_S)
    schedule.answered(schedule.begin())
    assert schedule.is_settled


def test_after_an_outage_hosts_do_not_request_at_once(schedule, clock):
    schedule.listening()
    assert schedule.is_due(INTERVAL_S)
    schedule.answered(schedule.begin())
    clock.now += 60.0
    schedule.listening()
    assert not schedule.is_settled
    assert due_after(schedule, clock) == 5.0
