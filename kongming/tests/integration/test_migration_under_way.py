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
"""While guests migrate nothing is written to them; afterwards the last request is in force."""

from contextlib import ExitStack, contextmanager

import pytest

from kongming.tests.integration.conftest import everywhere, status
from kongming.tests.integration.two_hosts import HERE, THERE, everything_on
from kongming.tests.testbed import threads
from kongming.tests.testbed.process import wait_until
from kongming.tests.thorough import stories

OPTIONS = "[executor]\nworkers = 1\ncheck_interval = 1\n"


@pytest.fixture
def start(hosts, source, cpus, tmp_path):
    """Start guests whose threads are all pinned to the last CPU."""

    def start_some(count, **options):
        guests = [hosts.guest(tmp_path / str(number), **options) for number in range(count)]
        for guest in guests:
            hosts.update(guest, **everything_on(cpus[-1]))
        for guest in guests:
            status(source, guest, "applied")
        return guests

    return start_some


def waits(daemon, guest):
    def is_busy():
        record = daemon.record(guest.uuid)
        return record and (record.status, record.reason) == ("pending", "guest_busy")

    wait_until(is_busy, 30, "the guest is left alone")


def runs_on(domain, cpu):
    """Return whether all vCPUs run on one CPU, by the domain: its UUID has two processes."""
    return all(
        {number for number, may in enumerate(cpumap) if may} == {cpu}
        for cpumap in domain.vcpus()[1]
    )


def has_written_to_none_that_was_busy(daemon):
    return "timed out" not in daemon.log() and "Traceback" not in daemon.log()


@pytest.mark.parametrize("count", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_a_guest_is_placed_while_others_leave_the_host(hosts, source, start, count, cpus):
    first, last = cpus[0], cpus[-1]
    leaving = start(count, memory_mib=32 if count < 10 else 256)
    with ExitStack() as stack:
        migrations = [stack.enter_context(hosts.migrating(guest)) for guest in leaving]
        for guest in leaving:
            hosts.update(guest, **everything_on(first))
        for guest in leaving:
            waits(source, guest)
        other = hosts.here.guest()
        hosts.update(other, vcpu_pinning=str(first))
        status(source, other, "applied")
        assert all(migration.goes_on for migration in migrations)
        for guest in leaving:
            assert runs_on(hosts.domain(guest, HERE), last)
            waits(source, guest)
    assert not any(migration.error for migration in migrations)
    for guest in leaving:
        wait_until(lambda: source.record(guest.uuid) is None, 30, "it is forgotten")  # noqa: B023
    assert has_written_to_none_that_was_busy(source)


@contextmanager
def leaving(hosts, source, start, cpu):
    """Two guests that leave, with their migrations; meanwhile their requests change or end."""
    changed, withdrawn = start(2)
    with hosts.migrating(changed) as one, hosts.migrating(withdrawn) as two:
        hosts.update(changed, vcpu_pinning=str(cpu))
        hosts.update(withdrawn)
        waits(source, changed)
        yield changed, withdrawn, one, two


@stories("ending", ["abort", "destroy_destination"])
def test_after_a_migration_that_fails_the_newest_request_counts(
    hosts, source, destination, start, ending, cpus
):
    first = cpus[0]
    with leaving(hosts, source, start, first) as (changed, withdrawn, one, two):
        for migration in (one, two):
            getattr(migration, ending)()
            assert migration.error
    changed.wait_on(first)
    withdrawn.wait_affinity(everywhere(withdrawn))
    emulator = threads.emulator_thread(changed.uuid)
    wait_until(lambda: threads.affinity(emulator) == threads.online_cpus(), 30, "QEMU is released")
    wait_until(lambda: source.record(withdrawn.uuid) is None, 30, "nothing is kept of it")
    for guest in (changed, withdrawn):
        assert "<shares>300</shares>" not in hosts.domain(guest, HERE).XMLDesc()
    assert "baseline" not in hosts.domain(withdrawn, HERE).XMLDesc()
    for daemon in (source, destination):
        assert has_written_to_none_that_was_busy(daemon)


@stories("post_copy", [False, True], ids=["pre-copy", "post-copy"])
def test_where_a_guest_arrives_the_newest_request_counts(
    hosts, source, destination, start, post_copy, cpus
):
    first = cpus[0]
    with leaving(hosts, source, start, first) as (changed, withdrawn, one, two):
        # Nova may report its arrival while libvirt has not finished.
        hosts.update(changed, THERE, vcpu_pinning=str(first))
        if post_copy:
            for migration in (one, two):
                migration.start_post_copy()
        waits(destination, changed)
        assert one.goes_on
        assert two.goes_on
    assert one.error is two.error is None
    hosts.arrived(changed, vcpu_pinning=str(first))
    hosts.arrived(withdrawn)
    status(destination, changed, "applied")
    changed.wait_on(first)
    withdrawn.wait_affinity(everywhere(withdrawn))
    for guest in (changed, withdrawn):
        wait_until(lambda: source.record(guest.uuid) is None, 30, "it is forgotten")  # noqa: B023
        assert "<shares>300</shares>" not in hosts.domain(guest).XMLDesc()
    assert destination.record(withdrawn.uuid) is None
    assert "baseline" not in hosts.domain(withdrawn).XMLDesc()
    for daemon in (source, destination):
        assert has_written_to_none_that_was_busy(daemon)
