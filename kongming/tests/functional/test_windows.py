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

"""Time windows, with libvirt's test driver and a clock that the test sets."""

from dataclasses import replace
from datetime import datetime, timedelta
from importlib import resources
import time
import zoneinfo
from zoneinfo import ZoneInfo

import libvirt
import pytest

from kongming.allocation import metadata, timezones
from kongming.allocation.allocation import Allocation, Windowed
from kongming.allocation.request import Request, Source
from kongming.allocation.windows import Window
from kongming.executor import window_timer
from kongming.hypervisor.connection import run_event_loop
from kongming.tests.functional.cloud import URI, Cloud, pins, wait_for

BERLIN = ZoneInfo("Europe/Berlin")
NIGHT = Window("night", "0 22 * * *", 8 * 3600, "Europe/Berlin")


class Clock:
    """A clock on the wall; the service looks at it by itself."""

    def __init__(self, monkeypatch):
        self.set(24, 12)
        monkeypatch.setattr(window_timer, "now", lambda: self.moment)

    def set(self, day, hour, minute=0):
        self.moment = datetime(2026, 11, day, hour, minute, tzinfo=BERLIN)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture
def cloud(clock, tmp_path, request):
    run_event_loop()
    cloud = Cloud(tmp_path, libvirt.open(URI), getattr(request, "param", "")).start()
    yield cloud
    cloud.stop()
    for domain in cloud.domains:
        domain.destroy()


def parts(**values):
    return metadata.parse({f"kongming-{key.replace('_', '-')}": values[key] for key in values})


def request_windows(cloud, guest, base, *windows):
    windowed = tuple(Windowed(window, instead) for window, instead in windows)
    requested = Allocation(**base.parts(), windows=windowed)
    request = Request(Source.OPERATOR, requested, "test", time.time())
    cloud.service._executor.request(guest.UUIDString(), request)
    return requested


def wait_pins(guest, *expected):
    wait_for(lambda: pins(guest) == [set(cpus) for cpus in expected])


def wait_status(cloud, guest, status):
    wait_for(lambda: (record := cloud.record(guest)) and record.status == status)


def test_the_night_begins_and_ends(cloud, clock):
    guest = cloud.guest(vcpus=1)
    request_windows(cloud, guest, parts(vcpu_pinning="2"), (NIGHT, parts(vcpu_pinning="0,4")))
    wait_pins(guest, {2})
    for day in (24, 25):
        clock.set(day, 22)
        wait_pins(guest, {0, 4})
        clock.set(day + 1, 6)
        wait_pins(guest, {2})
    assert cloud.record(guest).drift == ""


@pytest.mark.parametrize("cloud", ["[guard]\noverlap = refuse\n"], indirect=True)
def test_guests_swap_their_cpus_when_a_window_begins_and_when_it_ends(cloud, clock, caplog):
    one, other = cloud.guest(vcpus=1), cloud.guest(vcpus=1)
    request_windows(cloud, one, parts(vcpu_pinning="2"), (NIGHT, parts(vcpu_pinning="4")))
    request_windows(cloud, other, parts(vcpu_pinning="4"), (NIGHT, parts(vcpu_pinning="2")))
    for moment, first, second in (((24, 21), 2, 4), ((24, 22), 4, 2), ((25, 6), 2, 4)):
        clock.set(*moment)
        wait_pins(one, {first})
        wait_pins(other, {second})
    cloud.settled()
    assert "refused" not in caplog.text


def test_a_request_may_consist_of_a_night_window_only(cloud, clock):
    guest = cloud.guest(vcpus=1)
    before = pins(guest)
    request_windows(cloud, guest, Allocation(), (NIGHT, parts(vcpu_pinning="4")))
    wait_status(cloud, guest, "applied")
    assert pins(guest) == before
    clock.set(24, 23)
    wait_pins(guest, {4})
    clock.set(25, 7)
    wait_for(lambda: pins(guest) == before)
    assert cloud.record(guest).requested.windows


def test_a_clock_that_is_set_back(cloud, clock):
    guest = cloud.guest(vcpus=1)
    request_windows(cloud, guest, parts(vcpu_pinning="2"), (NIGHT, parts(vcpu_pinning="4")))
    clock.set(24, 22)
    wait_pins(guest, {4})
    clock.set(24, 21)
    wait_pins(guest, {2})
    clock.set(24, 22, 30)
    wait_pins(guest, {4})


def test_a_boundary_while_the_service_is_down(cloud, clock):
    guest = cloud.guest(vcpus=1)
    request_windows(cloud, guest, parts(vcpu_pinning="2"), (NIGHT, parts(vcpu_pinning="4")))
    wait_pins(guest, {2})
    cloud.stop()
    clock.set(25, 3)
    cloud.start()
    wait_pins(guest, {4})
    wait_status(cloud, guest, "applied")
    assert cloud.record(guest).drift == ""


def test_a_request_that_would_be_refused_at_night_is_refused_now(cloud):
    guest = cloud.guest(vcpus=1)
    first = request_windows(
        cloud, guest, parts(vcpu_pinning="2"), (NIGHT, parts(vcpu_pinning="4"))
    )
    wait_pins(guest, {2})
    request_windows(cloud, guest, parts(vcpu_pinning="0"), (NIGHT, parts(vcpu_pinning="99")))
    wait_status(cloud, guest, "refused")
    record = cloud.record(guest)
    assert record.reason == "cpu_unknown"
    assert record.message.startswith("in window night: ")
    assert record.accepted == first
    wait_pins(guest, {2})


def test_another_guest_has_the_cpus_when_the_night_begins(cloud, clock):
    cloud.conf.set_override("overlap", "refuse", "guard")
    cloud.service.reload()
    guest, other = cloud.guest(vcpus=1), cloud.guest(vcpus=1)
    request_windows(cloud, other, parts(vcpu_pinning="4"))
    wait_pins(other, {4})
    request_windows(cloud, guest, parts(vcpu_pinning="2"), (NIGHT, parts(vcpu_pinning="4")))
    wait_pins(guest, {2})
    # libvirt's test driver, unlike the others, reports no pins.
    cloud.service._executor._hypervisor._occupancy.forget()
    clock.set(24, 22)
    wait_status(cloud, guest, "refused")
    assert cloud.record(guest).reason == "overlap"
    assert pins(guest) == [{2}]
    clock.set(25, 6)
    wait_status(cloud, guest, "applied")
    assert pins(guest) == [{2}]


def test_the_last_accepted_keeps_its_windows(cloud, clock):
    guest = cloud.guest(vcpus=1)
    request_windows(cloud, guest, parts(vcpu_pinning="2"), (NIGHT, parts(vcpu_pinning="4")))
    wait_pins(guest, {2})
    request_windows(cloud, guest, parts(vcpu_pinning="99"))
    wait_status(cloud, guest, "refused")
    clock.set(24, 22)
    wait_pins(guest, {4})


def test_an_update_of_the_tz_database_is_noticed(cloud, clock, tmp_path, monkeypatch):
    monkeypatch.setattr(timezones, "_zones", {})
    monkeypatch.setattr(zoneinfo, "TZPATH", (str(tmp_path), *zoneinfo.TZPATH))
    rules = resources.files("tzdata").joinpath("zoneinfo")
    zone, fresh = tmp_path / "Test", tmp_path / "Fresh"
    zone.write_bytes(rules.joinpath("Europe/Berlin").read_bytes())
    guest = cloud.guest(vcpus=1)
    night = replace(NIGHT, timezone="Test")
    request_windows(cloud, guest, parts(vcpu_pinning="2"), (night, parts(vcpu_pinning="4")))
    wait_pins(guest, {2})
    clock.set(24, 21)
    # As a package manager does it. There it is an hour later.
    fresh.write_bytes(rules.joinpath("Europe/Athens").read_bytes())
    fresh.rename(zone)
    wait_pins(guest, {4})
    clock.set(25, 5)
    wait_pins(guest, {2})


def test_a_zone_that_the_host_lost_is_refused_and_the_guest_is_unchanged(
    cloud, clock, tmp_path, monkeypatch
):
    monkeypatch.setattr(timezones, "_zones", {})
    monkeypatch.setattr(zoneinfo, "TZPATH", (str(tmp_path), *zoneinfo.TZPATH))
    rules = resources.files("tzdata").joinpath("zoneinfo")
    (tmp_path / "Test").write_bytes(rules.joinpath("Europe/Berlin").read_bytes())
    guest, other = cloud.guest(vcpus=1), cloud.guest(vcpus=1)
    night = replace(NIGHT, timezone="Test")
    requested = request_windows(
        cloud, guest, parts(vcpu_pinning="2"), (night, parts(vcpu_pinning="4"))
    )
    request_windows(cloud, other, parts(vcpu_pinning="2"), (NIGHT, parts(vcpu_pinning="4")))
    wait_pins(guest, {2})
    cloud.stop()
    (tmp_path / "Test").unlink()
    timezones._zones.clear()
    clock.set(24, 22)
    cloud.start()
    wait_status(cloud, guest, "refused")
    record = cloud.record(guest)
    assert (record.reason, record.requested) == ("request_invalid", requested)
    assert record.message.startswith("window night: 'Test' is not an IANA time zone")
    assert pins(guest) == [{2}]
    wait_pins(other, {4})
    # It is looked at again at each check, and at each request of anybody.
    (tmp_path / "Test").write_bytes(rules.joinpath("Europe/Berlin").read_bytes())
    cloud.service.reload()
    wait_pins(guest, {4})
    wait_status(cloud, guest, "applied")
    clock.set(25, 6)
    wait_pins(guest, {2})


def test_the_way_to_disk_and_back(cloud):
    requested = Allocation(
        **parts(vcpu_pinning="0:1;1:2", vcpu_quota="50%").parts(),
        windows=(Windowed(NIGHT, parts(cpu_shares="200")),),
    )
    assert Allocation.from_json(requested.to_json()) == requested
    assert requested.to_json()["windows"] == [
        {
            "name": "night",
            "start": "0 22 * * *",
            "duration_s": 28800,
            "timezone": "Europe/Berlin",
            "cpu_shares": 200,
        }
    ]
    night = requested.at(datetime(2026, 11, 24, 23, tzinfo=BERLIN) + timedelta(hours=1))
    assert (night.cpu_shares, night.vcpu_quota) == (200, requested.vcpu_quota)
