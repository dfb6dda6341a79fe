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
"""The rows of ``allocation preview``."""

from datetime import UTC, datetime
from itertools import pairwise
import logging

import pytest

from kongming import exception
from kongming.allocation.allocation import Allocation, Windowed
from kongming.allocation.windows import Window
from kongming.terminal import preview
from kongming.tests.thorough import THOROUGH

LOG = logging.getLogger("preview")
NIGHT = Window("night", "0 22 * * *", 8 * 3600, "Europe/Berlin")
HOURLY = Window("hourly", "30 * * * *", 600, "Europe/Berlin")
OFTEN = Window("often", "30 */6 * * *", 600, "UTC")


def with_windows(*windows):
    parts = (Allocation(cpu_shares=10 + number) for number in range(len(windows)))
    return Allocation(cpu_shares=9, windows=tuple(map(Windowed, windows, parts)))


def shares(allocation):
    return allocation.cpu_shares


@pytest.mark.parametrize(("window", "times"), [(HOURLY, 24)] if THOROUGH else [(OFTEN, 4)])
def test_a_year_with_many_windows_ends_and_has_no_gaps(caplog, window, times):
    rows = preview.rows(366, with_windows(NIGHT, window), shares, LOG)
    assert all(one[1] == two[0] for one, two in pairwise(rows))
    begin, end = (datetime.fromisoformat(moment) for moment in (rows[0][0], rows[-1][1]))
    assert (end - begin).days == 366
    assert abs((begin - datetime.now(UTC)).total_seconds()) < 60
    assert {row[2:] for row in rows} == {("", 9), ("night", 10), (window.name, 11)}
    assert sum(row[2] == window.name for row in rows) in (366 * times, 366 * times + 1)
    assert caplog.records == []


def test_more_rows_than_anybody_reads_are_not_shown(caplog, monkeypatch):
    monkeypatch.setattr(preview, "_ROWS_MAX", 7)
    rows = preview.rows(366, with_windows(HOURLY), shares, LOG)
    assert len(rows) == 7
    assert caplog.messages == ["only the first 7 rows are shown: use a smaller --days"]


def test_an_allocation_without_windows_is_one_row():
    ((_, _, window, requested),) = preview.rows(1, Allocation(cpu_shares=5), shares, LOG)
    assert (window, requested) == ("", 5)


@pytest.mark.parametrize("days", [0, 367, -1])
def test_an_invalid_number_of_days_is_refused(days):
    with pytest.raises(exception.RequestInvalid, match=f"--days {days} is not from 1 to 366"):
        preview.rows(days, with_windows(NIGHT), shares, LOG)
