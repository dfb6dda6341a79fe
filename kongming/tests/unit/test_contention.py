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

"""Who is corrected too often, and what is remembered of those who are not."""

from types import SimpleNamespace

import pytest

from kongming.executor import contention


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=1000.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(contention, "time", clock)
    return clock


def corrections(clock, apart_s, times):
    counted = contention.Contention()
    rests = []
    for _ in range(times):
        rests.append(counted.add_correction("guest"))
        clock.now += apart_s
    return rests


def test_a_guest_that_is_corrected_five_times_within_a_minute_is_left_alone(clock, caplog):
    assert corrections(clock, 14.9, 4) == [0, 0, 0, 0]
    assert not caplog.records
    assert corrections(clock, 14.9, 5) == [0, 0, 0, 0, 60]
    (record,) = caplog.records
    expected = "Instance guest: corrected 5 times within 60 s, not corrected for the next 60 s"
    assert record.getMessage().startswith(expected)


def test_the_count_starts_again_after_a_rest(clock):
    assert corrections(clock, 1, 10) == [0, 0, 0, 0, 60] * 2


def test_a_guest_that_is_corrected_occasionally_is_not_left_alone(clock):
    assert corrections(clock, 15, 20) == [0] * 20


def test_each_guest_is_counted_by_itself(clock):
    counted = contention.Contention()
    assert [counted.add_correction(f"guest {number}") for number in range(20)] == [0] * 20


def test_a_guest_that_was_not_corrected_for_a_minute_is_forgotten(clock):
    counted = contention.Contention()
    counted.add_correction("one")
    clock.now += 59.9
    counted.add_correction("another")
    assert set(counted._corrections) == {"one", "another"}
    clock.now += 0.1
    counted.add_correction("another")
    assert set(counted._corrections) == {"another"}
