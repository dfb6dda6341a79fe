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
"""Time zones: their clocks, and a database that changes while it is used."""

from datetime import UTC, datetime, timedelta
from importlib import import_module, resources
import os
import shutil
import zoneinfo
from zoneinfo import ZoneInfo

import pytest

from kongming import exception
from kongming.allocation import timezones
from kongming.tests import debian_cron, steps
from kongming.tests.thorough import THOROUGH

iso = datetime.fromisoformat
HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)
SUMMER = datetime(2027, 3, 28, 1, tzinfo=UTC)
WINTER = datetime(2027, 10, 31, 1, tzinfo=UTC)
BERLIN = timezones.Zone(ZoneInfo("Europe/Berlin"))


@pytest.fixture
def database(tmp_path, monkeypatch):
    """A tz database of the test's own, before the system's; nothing of it was read yet."""
    monkeypatch.setattr(timezones, "_zones", {})
    monkeypatch.setattr(zoneinfo, "TZPATH", (str(tmp_path), *zoneinfo.TZPATH))
    return tmp_path


def write(folder, name, other):
    """Write a zone with the rules of another one, as a package manager does."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name("fresh")
    fresh.write_bytes(rules(other))
    fresh.rename(path)
    return path


def rules(name):
    """Return the file of a zone, from Python's package."""
    return resources.files("tzdata").joinpath("zoneinfo", name).read_bytes()


def hours(name):
    return timezones.zone(name).wall(datetime(2027, 1, 1, tzinfo=UTC)).hour


def test_a_clock_change_names_the_skipped_or_repeated_time():
    spring = BERLIN.next_change(datetime(2027, 1, 1, tzinfo=UTC), WINTER)
    autumn = BERLIN.next_change(SUMMER, datetime(2028, 1, 1, tzinfo=UTC))
    assert (spring.at, spring.before, spring.after) == (SUMMER, HOUR, 2 * HOUR)
    assert (autumn.at, autumn.before, autumn.after) == (WINTER, 2 * HOUR, HOUR)
    assert (spring.shift, autumn.shift) == (HOUR, -HOUR)
    assert (spring.begin, spring.end) == (iso("2027-03-28 02:00"), iso("2027-03-28 03:00"))
    assert (autumn.begin, autumn.end) == (iso("2027-10-31 02:00"), iso("2027-10-31 03:00"))


def test_the_next_change_is_after_one_moment_and_before_the_other():
    assert BERLIN.next_change(SUMMER - SECOND, WINTER).at == SUMMER
    assert BERLIN.next_change(SUMMER, WINTER) is None
    assert BERLIN.next_change(SUMMER, WINTER + SECOND).at == WINTER
    assert BERLIN.next_change(WINTER, datetime(2028, 2, 1, tzinfo=UTC)) is None
    assert BERLIN.next_change(WINTER, datetime(2030, 1, 1, tzinfo=UTC)).at.year == 2028


@pytest.mark.parametrize(
    ("wall", "at"),
    [
        (iso("2027-03-28 01:59:59.999999"), None),
        (iso("2027-03-28 02:00"), SUMMER),
        (iso("2027-03-28 02:59:59.999999"), SUMMER),
        (iso("2027-03-28 03:00"), None),
        (iso("2027-10-31 01:59:59.999999"), None),
        (iso("2027-10-31 02:00"), WINTER),
        (iso("2027-10-31 02:00").replace(fold=1), WINTER),
        (iso("2027-10-31 02:59:59.999999"), WINTER),
        (iso("2027-10-31 03:00"), None),
    ],
)
def test_a_wall_clock_time_belongs_to_a_change_or_occurs_once(wall, at):
    change = BERLIN.change_at(wall)
    assert (change and change.at) == at
    if at is None:
        assert BERLIN.wall(BERLIN.moment(wall)) == wall


def test_the_clocks_show_a_time_twice():
    assert BERLIN.wall(WINTER - SECOND) == iso("2027-10-31 02:59:59")
    assert (BERLIN.wall(WINTER - SECOND).fold, BERLIN.wall(WINTER).fold) == (0, 1)
    assert BERLIN.wall(SUMMER) == iso("2027-03-28 03:00")
    assert BERLIN.wall(SUMMER).tzinfo is None


@pytest.mark.parametrize("year", [1993, 2011, 2027] if THOROUGH else [2011])
def test_all_changes_of_all_zones_are_found(year):
    end = datetime(year + 1, 1, 1, tzinfo=UTC)
    for name, expected in debian_cron.zones_that_change(year, every=1 if THOROUGH else 5):
        zone, found = timezones.Zone(ZoneInfo(name)), []
        moment = datetime(year, 1, 1, tzinfo=UTC) - SECOND
        while (change := zone.next_change(moment, end)) is not None:
            assert zone.change_at(change.begin) == zone.change_at(change.end - SECOND) == change
            assert change.end - change.begin == abs(change.shift)
            found.append(debian_cron.Change(change.at, change.shift // timedelta(minutes=1)))
            moment = change.at
        assert tuple(found) == expected, name


def test_two_changes_within_days_are_both_found():
    class Hectic(ZoneInfo):
        """UTC, but an hour ahead for a day and two for an hour."""

        def utcoffset(self, local):
            moment = local.replace(tzinfo=None)
            ahead = iso("2027-05-05") <= moment < iso("2027-05-06")
            further = moment >= iso("2027-05-06")
            return ahead * HOUR + further * 2 * HOUR

        def fromutc(self, moment):
            return moment

    zone = timezones.Zone(Hectic("UTC"))
    first = zone.next_change(SUMMER, WINTER)
    assert (first.at, first.shift) == (datetime(2027, 5, 5, tzinfo=UTC), HOUR)
    second = zone.next_change(first.at, WINTER)
    assert (second.at, second.shift) == (datetime(2027, 5, 6, tzinfo=UTC), HOUR)
    assert zone.next_change(second.at, WINTER) is None


def test_the_changes_of_a_year_are_computed_once():
    zone = timezones.Zone(ZoneInfo("Europe/Berlin"))

    def look():
        zone.next_change(SUMMER, WINTER + HOUR)

    assert steps.count(look) < 2_500
    assert steps.count(look) < 10


@pytest.mark.parametrize(
    "name",
    ["", "Mars/Olympus", "Europe", "../UTC", "/etc/localtime", "Europe//Berlin", "Europe/Berlin/",
     "UTC\n", "a\0b", "\ud800", "Ümläut", "tzdata.zi", "zone.tab", "leapseconds", "x" * 5000],
)  # fmt: skip
def test_an_invalid_zone_is_refused(name):
    with pytest.raises(
        exception.RequestInvalid, match="not an IANA time zone known to this machine"
    ):
        timezones.zone(name)


def test_all_zones_of_the_database_are_known_and_portable():
    names = zoneinfo.available_timezones() - {"Factory", "localtime"}
    assert len(names) > 400
    for name in names:
        assert timezones.is_portable(name)
        assert timezones.zone(name) is timezones.zone(name)


@pytest.mark.parametrize(
    "name", ["localtime", "posixrules", "posix/Europe/Berlin", "right/UTC", "A" * 65]
)
def test_a_zone_that_differs_between_machines_is_not_portable(name):
    assert not timezones.is_portable(name)
    assert timezones.is_portable("A" * 64)


def test_a_zone_is_read_again_when_its_file_is_replaced(database):
    path = write(database, "Test/Zone", "Asia/Tokyo")
    assert hours("Test/Zone") == 9
    first = timezones.zone("Test/Zone")
    assert not timezones.refresh()
    assert timezones.zone("Test/Zone") is first
    write(database, "Test/Zone", "Asia/Kolkata")
    assert hours("Test/Zone") == 9
    assert timezones.refresh()
    assert hours("Test/Zone") == 5
    assert timezones.zone("Test/Zone") is not first
    assert not timezones.refresh()
    # Written in place, with the former time.
    before = path.stat()
    path.write_bytes(rules("Asia/Tokyo"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert timezones.refresh()
    assert hours("Test/Zone") == 9


def test_a_zone_file_that_precedes_the_read_one_counts(database):
    assert hours("Asia/Tokyo") == 9
    write(database, "Asia/Tokyo", "Asia/Kolkata")
    assert timezones.refresh()
    assert hours("Asia/Tokyo") == 5
    shutil.rmtree(database / "Asia")
    assert timezones.refresh()
    assert hours("Asia/Tokyo") == 9


@pytest.mark.parametrize("length", [0, 4, 60, 200, -30, -1])
def test_a_half_written_zone_file_keeps_the_former_zone(database, length):
    path = write(database, "Test/Zone", "Europe/Berlin")
    assert hours("Test/Zone") == 1
    whole = rules("Asia/Tokyo")
    path.write_bytes(whole[:length])
    assert not timezones.refresh()
    assert hours("Test/Zone") == 1
    path.write_bytes(whole)
    assert timezones.refresh()
    assert hours("Test/Zone") == 9


def test_a_missing_zone_file_keeps_the_former_zone(database):
    path = write(database, "Test/Gone", "Asia/Tokyo")
    assert hours("Test/Gone") == 9
    path.unlink()
    assert not timezones.refresh()
    assert hours("Test/Gone") == 9


def test_a_file_that_ends_anywhere_is_no_zone(database):
    whole, path = rules("Europe/Berlin"), database / "Cut"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(exception.RequestInvalid):
            timezones.zone("Cut")
    path.write_bytes(whole)
    assert hours("Cut") == 1


def test_databases_are_named_with_their_versions(database, monkeypatch):
    monkeypatch.setattr(zoneinfo, "TZPATH", (str(database), "/nowhere"))
    ((package, version),) = timezones.sources().items()
    assert package.endswith("tzdata/zoneinfo")
    assert version == import_module("tzdata").IANA_VERSION
    write(database, "Etc/UTC", "Etc/UTC")
    assert timezones.sources()[str(database)] == "unknown"
    (database / "tzdata.zi").write_text("# version 2031c\n# redo posix_only\n")
    assert next(iter(timezones.sources().items())) == (str(database), "2031c")
    (database / "tzdata.zi").write_text("# something else\n")
    assert timezones.sources()[str(database)] == "unknown"
