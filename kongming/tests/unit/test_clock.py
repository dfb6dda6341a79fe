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

"""A clock that was set is logged once, with the amount and the direction."""

import pytest

from kongming.runtime.clock import ClockWatch, Steps, since_boot


class Clocks:
    def __init__(self):
        self.wall = 1_800_000_000.0
        self.steady = 50.0

    def pass_(self, seconds, *, set_by=0.0):
        self.steady += seconds
        self.wall += seconds + set_by


@pytest.fixture
def clocks():
    return Clocks()


@pytest.fixture
def watch(clocks):
    return ClockWatch(Steps(lambda: clocks.wall, lambda: clocks.steady))


def test_a_steady_clock_is_not_reported(watch, clocks, caplog):
    for seconds in (0.5, 3600, 86_400):
        clocks.pass_(seconds, set_by=1.9)
        watch.check()
    assert not caplog.records


@pytest.mark.parametrize(
    ("set_by", "expected"),
    [(-28_800, "set back by 28800 s"), (2.1, "set forward by 2 s"), (-2.1, "set back by 2 s")],
)
def test_a_clock_that_was_set_is_reported_once(watch, clocks, caplog, set_by, expected):
    clocks.pass_(0.5, set_by=set_by)
    for _ in range(3):
        watch.check()
        clocks.pass_(0.5)
    (record,) = caplog.records
    assert expected in record.getMessage()
    assert record.levelname == "WARNING"


def test_each_clock_change_is_reported(watch, clocks, caplog):
    for set_by in (-100, 100):
        clocks.pass_(1, set_by=set_by)
        watch.check()
    assert len(caplog.records) == 2


def test_the_steady_clock_only_grows():
    assert since_boot() <= since_boot()
    ClockWatch().check()
