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

"""The clocks of publishers: what is wrong with one is logged once, and suppresses no event."""

import dataclasses

import pytest

from kongming.executor.store.residence import Place
from kongming.notification import event as events
from kongming.notification.order import Verdict
from kongming.notification.publisher_clocks import PublisherClocks, _duration
from kongming.tests.messages import message

UUID = "5a6e9b1e-0000-4000-8000-000000000001"
OTHER = "5a6e9b1e-0000-4000-8000-000000000002"
API = "nova-api:controller"
NOW = 1_800_000_000.0
HERE = Place.HERE
HOUR = 3600.0


class Time:
    """Both of our clocks."""

    def __init__(self):
        self.passed = 0.0

    def wall(self):
        return NOW + self.passed

    def monotonic(self):
        return 1000.0 + self.passed


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def publishers(time):
    return PublisherClocks(time.wall, time.monotonic)


@pytest.fixture
def watch(publishers, time):
    """Have an event watched that comes now; one that is late comes behind what was dated so."""

    def watch(delay_s, verdict=Verdict(), *, instance_uuid=UUID, publisher=API, ahead_s=0.0):  # noqa: B008
        read = events.read(message(instance_uuid, 1.0, publisher=publisher))
        sent = dataclasses.replace(read, sent_at=time.wall() - delay_s, ahead_s=ahead_s)
        return publishers.check(sent, HERE, verdict)

    return watch


def late(seconds):
    return Verdict(late=True, late_s=seconds)


def logged(caplog):
    return [record.getMessage() for record in caplog.records]


def test_a_clock_that_is_behind_is_logged_once_with_its_offset(watch, caplog):
    for _ in range(3):
        assert watch(2.0, Verdict(behind="nova-compute:compute-1", behind_s=2.0)) is None
    (line,) = logged(caplog)
    assert "The clock of 'nova-api:controller' is behind" in line
    assert "'nova-compute:compute-1' by about 2 s" in line
    watch(2.0, Verdict(behind="x", behind_s=2.0), publisher="nova-api:other")
    assert len(logged(caplog)) == 2


def test_a_clock_that_is_ahead_is_logged_once_with_its_offset(watch, caplog):
    for _ in range(3):
        assert watch(0.0, ahead_s=600.0) is None
    (line,) = logged(caplog)
    assert "'nova-api:controller' is ahead of this host's by about 10 min" in line


@pytest.mark.parametrize(
    "verdict",
    [Verdict(), Verdict(behind="x", behind_s=1.0), late(60.0)],
)
def test_a_plausible_delay_is_not_logged(watch, verdict, caplog):
    assert watch(5.0, verdict, ahead_s=1.0) is None
    assert not logged(caplog)


def test_an_event_that_is_skipped_as_much_too_late_is_logged_once(watch, caplog):
    for _ in range(3):
        assert watch(90.0, late(61.0)) is None
    (line,) = logged(caplog)
    assert "may have been set back: it dates a message 61 s before" in line


def test_a_clock_that_was_set_back_is_recognized_by_its_second_event(watch, time, caplog):
    assert watch(0.1) is None
    time.passed = 10
    assert watch(HOUR, late(HOUR)) is None
    time.passed = 12
    (missed,) = watch(HOUR + 0.9, late(HOUR), instance_uuid=OTHER)
    assert (missed[0].instance_uuid, missed[1]) == (UUID, HERE)
    assert "was set back and now is behind this host's by about 60 min" in logged(caplog)[-1]
    # What is dated so from now on is as it should be.
    assert watch(HOUR) is None
    time.passed = 20
    assert watch(HOUR) is None


@pytest.mark.parametrize(
    ("delay_s", "last_offset"),
    [
        (HOUR, "is behind this host's by about 60 min"),
        (0.0, "is behind this host's by about 0 s"),
        (-HOUR, "is ahead of this host's by"),
    ],
)
def test_a_clock_may_be_set_back_by_any_amount(watch, time, caplog, delay_s, last_offset):
    ahead_s = max(0.0, -delay_s)
    for _ in range(2):
        assert watch(max(0.0, delay_s), late(HOUR), ahead_s=ahead_s) is None
        time.passed += 0.9
    assert watch(max(0.0, delay_s), late(HOUR), ahead_s=ahead_s) == []
    assert f"was set back and now {last_offset}" in logged(caplog)[-1]


def test_an_irrelevant_event_reveals_only_that_a_clock_was_set_back(
    watch, publishers, time, caplog
):
    def check_foreign(delay_s, ahead_s=0.0):
        read = events.read(message(OTHER, 1.0, publisher=API))
        sent = dataclasses.replace(read, sent_at=time.wall() - delay_s, ahead_s=ahead_s)
        return publishers.check_foreign(sent, HERE)

    assert check_foreign(0, HOUR) is None
    assert check_foreign(HOUR) is None
    assert not logged(caplog)
    assert watch(HOUR, late(HOUR)) is None
    time.passed = 1
    (missed,) = check_foreign(HOUR)
    assert missed[0].instance_uuid == UUID


def test_the_second_event_may_be_one_that_is_not_late(watch, time):
    watch(HOUR, late(HOUR))
    time.passed = 1
    (missed,) = watch(HOUR, Verdict(), instance_uuid=OTHER)
    assert missed[0].instance_uuid == UUID


def test_the_newer_event_of_the_same_instance_counts(watch, time):
    watch(HOUR, late(HOUR))
    time.passed = 2
    assert watch(HOUR, late(HOUR)) == []


def test_the_last_skipped_event_of_each_instance_counts(watch, time):
    watch(HOUR, late(HOUR))
    time.passed = 0.5
    watch(HOUR, late(HOUR - 0.5))
    time.passed = 0.9
    assert watch(HOUR, late(HOUR), instance_uuid=OTHER) is None
    time.passed = 1
    missed = watch(HOUR, late(HOUR), instance_uuid=OTHER)
    assert [each.sent_at for each, _place in missed] == [NOW + 0.5 - HOUR]


@pytest.mark.parametrize(
    ("passed", "delay"),
    [(0.9, HOUR), (2.0, HOUR - 1.1), (2.0, HOUR + 1.1), (2.0, HOUR / 2)],
    ids=["a burst", "another delay", "a longer delay", "another delay still"],
)
def test_messages_that_waited_are_no_sign_of_a_clock(watch, time, passed, delay):
    watch(HOUR, late(HOUR))
    time.passed = passed
    assert watch(delay, late(HOUR)) is None


def test_the_repeated_one_of_two_delays_is_that_of_the_clock(watch, time):
    watch(HOUR, late(HOUR))
    time.passed = 2
    assert watch(2 * HOUR, late(2 * HOUR)) is None
    time.passed = 4
    assert watch(2 * HOUR, late(2 * HOUR)) == []


def test_timely_messages_prove_the_clock_right(watch, time):
    watch(HOUR, late(HOUR))
    time.passed = 2
    assert watch(HOUR / 2 - 1) is None
    time.passed = 4
    assert watch(HOUR, late(HOUR)) is None
    time.passed = 6
    assert watch(HOUR, late(HOUR)) == []


def test_a_constantly_wrong_clock_was_not_set_back(watch, time):
    watch(HOUR + 16, late(16.0))
    time.passed = 2
    assert watch(HOUR + 8) is None
    time.passed = 4
    assert watch(HOUR + 16, late(16.0)) is not None
    time.passed = 10
    watch(HOUR + 16, late(16.0))
    time.passed = 12
    assert watch(HOUR + 7.9) is None
    time.passed = 14
    assert watch(HOUR + 16, late(16.0)) is None


def test_a_small_delay_is_no_sign_of_a_wrong_clock(watch, time):
    watch(6.0, late(5.0))
    time.passed = 2
    assert watch(6.0, late(5.0)) is None
    time.passed = 3
    watch(6.1, late(5.1))
    time.passed = 5
    assert watch(6.1, late(5.1)) == []


def test_each_publisher_has_a_separate_clock(watch, time):
    watch(HOUR, late(HOUR))
    time.passed = 2
    assert watch(HOUR, late(HOUR), publisher="nova-compute:compute-1") is None


def test_names_of_publishers_do_not_pile_up(watch, publishers, monkeypatch, caplog):
    monkeypatch.setattr("kongming.notification.publisher_clocks._PUBLISHERS_MAX", 2)
    for number in range(5):
        watch(HOUR, late(HOUR), publisher=f"p{number}")
    assert list(publishers._suspects) == ["p3", "p4"]
    assert len(logged(caplog)) == 2


def test_a_name_can_not_forge_a_line(watch, caplog):
    watch(0.0, publisher="x\n2026 CRITICAL", ahead_s=60.0)
    assert "\n" not in logged(caplog)[0]


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(2.4, "2 s"), (119.4, "119 s"), (120, "2 min"), (7199, "120 min"), (7200, "2.0 h")],
)
def test_times_are_written_in_common_units(seconds, written):
    assert _duration(seconds) == written
