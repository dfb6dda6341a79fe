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
"""Trigger 3 while its parts are killed, unavailable, or left behind: all ends up right."""

import itertools
import random
import threading

import libvirt
import pytest

from kongming.tests.integration.site import HOST, Installation, Site
from kongming.tests.testbed.guest import destroy
from kongming.tests.testbed.libvirtd import Libvirtd
from kongming.tests.testbed.mariadb import MariaDB
from kongming.tests.testbed.migration import migrate
from kongming.tests.testbed.process import wait_until

OFTEN = "[executor]\npull_interval = 1\n"


def moves(executor):
    return sum(map(executor.log().count, ("observed on the threads", "back to its baseline")))


def test_an_api_that_is_killed_right_after_a_request_loses_no_request(site, cpus):
    site.executor(options=OFTEN).start()
    guest = site.guest()
    for number in range(4):
        cpu = cpus[number % 2]
        answered = []

        def send(cpu=cpu, answered=answered):
            try:
                site.put(guest.uuid, vcpu_pinning=str(cpu))
            except OSError:
                return
            answered.append(cpu)

        sender = threading.Thread(target=send)
        sender.start()
        if number % 2:
            sender.join()
        site.api.process.kill()
        sender.join()
        site.api.start()
        if not answered:
            # It was not taken, or no answer came: repeating it does no harm.
            site.put(guest.uuid, vcpu_pinning=str(cpu))
        site.plane.wait_status(guest.uuid, "applied")
        guest.wait_on(cpu)


def test_executor_and_conductor_may_be_killed_at_any_moment(site, cpus):
    chance = random.Random(20261124)
    executor = site.executor(options=OFTEN)
    executor.start()
    guests = [site.guest() for _ in range(3)]
    requested = {}
    victims = itertools.cycle([executor, site.plane.conductors[0]])
    for _ in range(8):
        for guest in guests:
            requested[guest.uuid] = chance.choice(cpus)
            site.put(guest.uuid, vcpu_pinning=str(requested[guest.uuid]))
        victim = next(victims)
        victim.kill()
        victim.start_soon()
    for guest in guests:
        site.plane.wait_status(guest.uuid, "applied", timeout=60)
        guest.wait_on(requested[guest.uuid])


@pytest.fixture
def mariadb(tmp_path):
    with MariaDB(tmp_path / "mariadb") as server:
        yield server


@pytest.fixture
def on_mariadb(broker, libvirtd, tmp_path, mariadb):
    connection = mariadb.create("kongming")
    with Installation(broker, tmp_path / "control", connection=connection) as installation:
        site = Site(installation, broker, libvirtd, tmp_path)
        yield site
        site.close()


def test_the_database_may_be_unavailable_for_a_while(on_mariadb, mariadb, cpus):
    site = on_mariadb
    executor = site.executor(options=OFTEN)
    executor.start()
    guest, other = site.guest(), site.guest()
    site.put(guest.uuid, vcpu_pinning=str(cpus[1]))
    site.plane.wait_status(guest.uuid, "applied")
    mariadb.kill()
    answer = site.api.request("GET", f"/v1/allocations/{guest.uuid}")
    (error,) = answer.body["errors"]
    assert (answer.status, error["code"]) == (503, "database_unavailable")
    assert site.api.request("GET", "/healthcheck").status == 503
    executor.wait_log("No conductor is responding")
    # The desired allocation goes on being kept without it.
    guest.pin(cpus[0])
    guest.wait_on(cpus[1])
    guest.domain.destroy()
    guest.start()
    guest.wait_on(cpus[1])
    mariadb.start()
    site.put(other.uuid, vcpu_pinning=str(cpus[0]))
    site.plane.wait_status(other.uuid, "applied", timeout=60)
    other.wait_on(cpus[0])
    executor.wait_log("A conductor is available again")
    for conductor in site.plane.conductors:
        assert "Traceback" not in conductor.log()


def test_a_window_goes_on_without_the_control_plane(site, cpus):
    site.executor(options=OFTEN).start()
    guest = site.guest()
    day, night = str(cpus[0]), str(cpus[1])
    # As long as it may last: it is in force now, and until long after the test.
    always = {"name": "always", "start": "* * * * *", "duration_s": 3600, "vcpu_pinning": night}
    site.put(guest.uuid, vcpu_pinning=day, windows=[always])
    shown = site.plane.wait_status(guest.uuid, "applied")
    assert shown["window"] == "always"
    guest.wait_on(cpus[1])
    for conductor in site.plane.conductors:
        conductor.kill()
    site.api.process.kill()
    guest.domain.destroy()
    guest.start()
    guest.wait_on(cpus[1])


@pytest.fixture
def second_libvirtd(tmp_path):
    with Libvirtd(tmp_path / "libvirt-2") as libvirtd:
        yield libvirtd


def test_a_live_migrated_instance_keeps_its_allocation(site, second_libvirtd, cpus, tmp_path):
    first = site.executor(options=OFTEN)
    first.start()
    second = site.executor("compute-2", options=OFTEN, libvirtd=second_libvirtd)
    second.start()
    guest = site.guest(firmware=tmp_path / "firmware.rom")
    before = guest.affinity()
    site.put(guest.uuid, vcpu_pinning=str(cpus[1]))
    assert site.plane.wait_status(guest.uuid, "applied")["reported_by"] == HOST
    guest.domain = migrate(guest.domain, libvirt.open(second_libvirtd.uri))
    try:
        # As soon as it runs there, whether Nova has reported it or not.
        guest.wait_on(cpus[1])
        site.nova.servers[guest.uuid].host = "compute-2"
        site.nova.servers[guest.uuid].touch()

        def followed():
            shown = site.api.get(f"/v1/allocations/{guest.uuid}")
            where = (shown["host"], shown["reported_by"], shown["status"])
            return where == ("compute-2", "compute-2", "applied")

        wait_until(followed, 60, "the allocation has followed")
        wait_until(lambda: first.record(guest.uuid) is None, 30, "the first host has released it")
        site.put(guest.uuid, vcpu_pinning=str(cpus[0]))
        guest.wait_on(cpus[0])
        site.delete(guest.uuid)
        site.plane.wait_gone(guest.uuid)
        assert guest.affinity() == before
    finally:
        destroy(guest.domain)


def test_an_executor_that_returns_after_fifty_requests_moves_its_guest_once(site, cpus):
    guest = site.guest()
    executor = site.executor()
    executor.start()
    site.put(guest.uuid, vcpu_pinning=str(cpus[0]))
    guest.wait_on(cpus[0])
    site.plane.wait_status(guest.uuid, "applied")
    assert executor.stop() == 0
    before = moves(executor)
    for number in range(49):
        site.put(guest.uuid, vcpu_pinning=str(cpus[number % 2]))
    site.delete(guest.uuid)
    site.put(guest.uuid, vcpu_pinning=str(cpus[-1]))
    # Nobody sends the current state: only what waited in the queue could be taken.
    for conductor in site.plane.conductors:
        conductor.stop()
    executor.start()
    # It takes what waits there as soon as it listens, and this long before.
    executor.wait_log("No conductor is responding", timeout=90)
    assert guest.affinity() == {vcpu: frozenset([cpus[0]]) for vcpu in guest.affinity()}
    site.plane.start_missing()
    guest.wait_on(cpus[-1])
    site.plane.wait_status(guest.uuid, "applied")
    assert moves(executor) == before + 1
