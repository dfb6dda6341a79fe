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

"""Guests with a NUMA topology and huge pages: what Nova gave them bounds what they may get.

Each kind of guest is as Nova writes it for the flavor that it is named after, on a host whose
cells are the CPUs 0-3 and 4-7.
"""

import contextlib
from pathlib import Path
from xml.etree import ElementTree

import libvirt
import pytest

from kongming.tests.integration.conftest import Cloud, everywhere
from kongming.tests.numa.conftest import TIMEOUT, Machine, threads_of
from kongming.tests.testbed import huge_pages, memory, threads
from kongming.tests.testbed.granted import Granted
from kongming.tests.testbed.guest import destroy
from kongming.tests.testbed.process import wait_until

NOVA_CONF = "[compute]\ncpu_shared_set = 0-1,4-5\ncpu_dedicated_set = 2-3,6-7\n"
ACROSS = "numa_across_cells = {}\n"
PERSISTENT = libvirt.VIR_DOMAIN_XML_INACTIVE
# A period of 100 ms: half of a CPU, and no limit.
HALF, NO_LIMIT = (50_000, 100_000), (-1, 100_000)


def granted(vcpus, **options):
    return {"granted": Granted(vcpus.split(), hugepages=True, **options), "iothreads": 1}


KINDS = {
    "large-pages": {**granted("0-1 0-1"), "vhost": True},
    "two-cells": granted("0-1 0-1 4-5 4-5", nodes=(0, 1)),
    "dedicated": granted("2 3 6 7", nodes=(0, 1)),
    "mixed": granted("0-1 2 3"),
    "realtime": granted("2 3", realtime=[1]),
    "emulator-share": granted("2 3", emulator="0-1,4-5"),
    "emulator-isolate": granted("2", emulator="3"),
}


@pytest.fixture(scope="module")
def cloud(libvirtd, tmp_path_factory):
    cloud = Cloud(Machine(), libvirtd, tmp_path_factory.mktemp("cloud"))
    yield cloud
    cloud.close()


@pytest.fixture(scope="module")
def daemon(cloud, tmp_path_factory):
    nova_conf = tmp_path_factory.mktemp("nova") / "nova.conf"
    nova_conf.write_text(NOVA_CONF)
    options = f"[guard]\nnova_config_file = {nova_conf}\n{ACROSS.format('false')}"
    with cloud.daemon(options=options) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def started(cloud, tmp_path_factory):
    """Start guests that are defined, as Nova's are: each as long as a context lasts."""
    firmware = tmp_path_factory.mktemp("firmware") / "rom"

    @contextlib.contextmanager
    def started(**options):
        guest = cloud.guest(**options, persistent=True, firmware=firmware)
        try:
            yield guest
        finally:
            destroy(guest.domain)

    return started


@pytest.fixture(scope="module")
def guest(request, started):
    """A guest of a kind, which all tests of that kind share."""
    with started(**KINDS[request.param]) as guest:
        guest.kind, guest.given = request.param, threads_of(guest)
        yield guest


@pytest.fixture
def across_cells(daemon):
    """Have dedicated CPUs permuted across cells, and as before after the test."""

    def set_to(value, former):
        conf = Path(daemon.conf)
        text = conf.read_text()
        assert ACROSS.format(former) in text
        conf.write_text(text.replace(ACROSS.format(former), ACROSS.format(value)))
        daemon.reload()

    yield lambda: set_to("true", "false")
    set_to("false", "true")


def all_of(guest):
    """All that a request could change of a guest, and of the host's memory."""
    return {
        "threads": threads_of(guest),
        "nodes": memory.allowed_nodes(threads.emulator_thread(guest.uuid)),
        "memory": memory.memory_kib(guest.uuid, memory.FILE),
        "quotas": threads.vcpu_quotas(guest.uuid),
        "pools": huge_pages.pools(),
        "tuning": tuning(guest.domain.XMLDesc()),
        "live": guest.domain.XMLDesc(),
        "persistent": guest.domain.XMLDesc(PERSISTENT),
    }


def tuning(xml):
    """The parts of a domain's definition about its CPUs and memory."""
    domain = ElementTree.fromstring(xml)
    parts = (domain.find(part) for part in ("vcpu", "cputune", "numatune", "memoryBacking"))
    return [ElementTree.tostring(part) for part in parts if part is not None]


def without(observed, *parts):
    return {part: each for part, each in observed.items() if part not in parts}


def cpus(**parts):
    """The CPUs of some parts, as `threads_of` returns them: ``vcpu_0="1", emulator="2-3"``."""
    return {part.replace("_", " "): threads.cpu_list(each) for part, each in parts.items()}


@pytest.mark.parametrize("guest", KINDS, indirect=True)
def test_the_guest_is_as_nova_defined_it(guest):
    granted = KINDS[guest.kind]["granted"]
    given = {f"vcpu {vcpu}": threads.cpu_list(each) for vcpu, each in enumerate(granted.vcpus)}
    assert given.items() <= guest.given.items()
    each = 32 * 1024 // len(granted.nodes)
    assert memory.memory_kib(guest.uuid, memory.FILE) == dict.fromkeys(granted.nodes, each)


ALLOWED = [
    # Floating vCPUs: a subset of what Nova gave.
    (
        "large-pages",
        {"vcpu_pinning": "0:0;1:1", "emulator_pinning": "1", "iothread_pinning": "0"},
        cpus(vcpu_0="0", vcpu_1="1", emulator="1", iothread_1="0", vhost_0="1"),
    ),
    ("large-pages", {"vcpu_pinning": "1:0"}, cpus(vcpu_0="0-1", vcpu_1="0")),
    ("two-cells", {"vcpu_pinning": "0:0;1:1;2:5;3:4"}, cpus(vcpu_0="0", vcpu_1="1", vcpu_2="5")),
    ("two-cells", {"vcpu_pinning": "3:4"}, cpus(vcpu_2="4-5", vcpu_3="4")),
    ("mixed", {"vcpu_pinning": "0:1"}, cpus(vcpu_0="1", vcpu_1="2", vcpu_2="3")),
    # Dedicated CPUs: a permutation within the cell.
    (
        "dedicated",
        {"vcpu_pinning": "0:3;1:2;2:7;3:6"},
        cpus(vcpu_0="3", vcpu_1="2", vcpu_2="7", vcpu_3="6"),
    ),
    ("dedicated", {"vcpu_pinning": "2:7;3:6"}, cpus(vcpu_0="2", vcpu_2="7", vcpu_3="6")),
    ("mixed", {"vcpu_pinning": "1:3;2:2"}, cpus(vcpu_0="0-1", vcpu_1="3", vcpu_2="2")),
    ("emulator-share", {"vcpu_pinning": "0:3;1:2"}, cpus(vcpu_0="3", vcpu_1="2")),
    # Emulator and iothreads: cpu_shared_set, and the guest's own dedicated CPUs.
    (
        "large-pages",
        {"emulator_pinning": "4-5", "iothread_pinning": "1:5"},
        cpus(emulator="4-5", vhost_0="4-5", iothread_1="5"),
    ),
    (
        "dedicated",
        {"emulator_pinning": "0", "iothread_pinning": "2"},
        cpus(emulator="0", iothread_1="2"),
    ),
    ("mixed", {"emulator_pinning": "3,4"}, cpus(emulator="3-4")),
    ("realtime", {"emulator_pinning": "0-2"}, cpus(emulator="0-2", vcpu_1="3")),
    ("emulator-share", {"emulator_pinning": "2"}, cpus(emulator="2", iothread_1="0-1,4-5")),
    ("emulator-isolate", {"emulator_pinning": "2-3"}, cpus(emulator="2-3", vcpu_0="2")),
    ("emulator-isolate", {"emulator_pinning": "5"}, cpus(emulator="5", vcpu_0="2")),
]


@pytest.mark.parametrize(
    ("guest", "values", "expected"),
    ALLOWED,
    ids=[f"{kind}-{values}" for kind, values, _ in ALLOWED],
    indirect=["guest"],
)
def test_a_request_within_the_grant_is_applied_and_released(guest, update, values, expected):
    before = all_of(guest)
    assert before["threads"] == guest.given
    update(guest, **values)
    assert expected.items() <= threads_of(guest).items()
    changed = ("threads", "tuning", "live")
    assert without(all_of(guest), *changed) == without(before, *changed)
    update(guest)
    after = all_of(guest)
    # libvirt lists iothreads by their numbers once one was pinned.
    assert without(after, "live") == without(before, "live")
    assert "baseline" not in after["live"]


REFUSED = [
    # Floating vCPUs: elsewhere in cpu_shared_set, and on CPUs of others.
    ("large-pages", {"vcpu_pinning": "0:4"}, "outside_grant", "gave vCPU 0 the CPUs 0-1"),
    ("large-pages", {"vcpu_pinning": "1:1,5"}, "outside_grant", "gave vCPU 1 the CPUs 0-1"),
    ("large-pages", {"vcpu_pinning": "0:2"}, "outside_grant", "CPU 2"),
    ("two-cells", {"vcpu_pinning": "0:0;2:0"}, "outside_grant", "gave vCPU 2 the CPUs 4-5"),
    ("mixed", {"vcpu_pinning": "0:2"}, "outside_grant", "gave vCPU 0 the CPUs 0-1"),
    # Dedicated CPUs: no part of a permutation, no other CPU, not several of them.
    ("dedicated", {"vcpu_pinning": "0:3"}, "dedicated_cpus", "gave vCPU 0 the CPU 2"),
    ("dedicated", {"vcpu_pinning": "0:2-3"}, "dedicated_cpus", "gave it the CPU 2"),
    ("dedicated", {"vcpu_pinning": "0:0"}, "outside_grant", "gave vCPU 0 the CPU 2"),
    ("mixed", {"vcpu_pinning": "1:1"}, "outside_grant", "gave vCPU 1 the CPU 2"),
    ("mixed", {"vcpu_pinning": "1:6"}, "outside_grant", "CPU 6"),
    ("dedicated", {"vcpu_pinning": "0:6;2:2"}, "across_cells", "gave vCPU 0 the CPU 2"),
    # Emulator and iothreads: CPUs of others, and those of real-time vCPUs.
    ("large-pages", {"emulator_pinning": "2"}, "outside_grant", "CPU 2"),
    ("two-cells", {"iothread_pinning": "6"}, "outside_grant", "CPU 6"),
    ("emulator-isolate", {"emulator_pinning": "6"}, "outside_grant", "CPU 6"),
    ("emulator-isolate", {"vcpu_pinning": "0:3"}, "outside_grant", "gave vCPU 0 the CPU 2"),
    ("realtime", {"emulator_pinning": "3"}, "realtime_cpu", "gave emulator the CPUs 2"),
    ("realtime", {"iothread_pinning": "2-3"}, "realtime_cpu", "gave iothread 1 the CPUs 2"),
    (
        "realtime",
        {"vcpu_pinning": "0:3;1:2", "emulator_pinning": "2"},
        "realtime_cpu",
        "gave emulator the CPUs 2",
    ),
    (
        "realtime",
        {"vcpu_pinning": "0:3;1:2"},
        "realtime_cpu",
        "request other CPUs for it in the same request",
    ),
    # Memory stays, and what is requested together with it is refused, too.
    ("large-pages", {"numa_nodes": "1"}, "numa_memory", "node 0"),
    ("large-pages", {"numa_nodes": "0"}, "numa_memory", "node 0"),
    ("two-cells", {"numa_nodes": "0"}, "numa_memory", "node 0-1"),
    ("dedicated", {"numa_nodes": "1"}, "numa_memory", "node 0-1"),
    ("mixed", {"numa_nodes": "0-1"}, "numa_memory", "node 0"),
    ("realtime", {"numa_nodes": "1"}, "numa_memory", "node 0"),
]


@pytest.mark.parametrize(
    ("guest", "values", "reason", "message"),
    REFUSED,
    ids=[f"{kind}-{values}" for kind, values, _, _ in REFUSED],
    indirect=["guest"],
)
def test_a_request_outside_of_the_grant_is_refused_and_has_no_effect(
    guest, update, values, reason, message
):
    before = all_of(guest)
    record = update(guest, "refused", **values)
    assert record.reason == reason
    assert message in record.message
    assert all_of(guest) == before


@pytest.mark.parametrize("guest", ["large-pages", "realtime"], indirect=True)
def test_shares_and_quota_are_as_for_every_guest(guest, update):
    before = all_of(guest)
    update(guest, cpu_shares="1000", vcpu_quota="50%")
    assert guest.domain.schedulerParametersFlags(1)["cpu_shares"] == 1000
    assert set(threads.vcpu_quotas(guest.uuid).values()) == {HALF}
    assert threads_of(guest) == guest.given
    update(guest)
    assert set(threads.vcpu_quotas(guest.uuid).values()) == {NO_LIMIT}
    # libvirt goes on naming them, at their defaults.
    changed = ("tuning", "live")
    assert without(all_of(guest), *changed) == without(before, *changed)


@pytest.mark.parametrize("guest", ["realtime"], indirect=True)
def test_a_real_time_vcpu_keeps_its_scheduler(guest, update):
    thread = threads.vcpu_threads(guest.uuid)[1]
    assert threads.is_realtime(thread)
    update(guest, vcpu_pinning="0:3;1:2", emulator_pinning="3", iothread_pinning="3")
    assert threads.is_realtime(thread)
    assert threads_of(guest).items() >= cpus(vcpu_0="3", vcpu_1="2", emulator="3").items()
    update(guest)
    assert threads_of(guest) == guest.given


@pytest.mark.parametrize("guest", ["dedicated"], indirect=True)
def test_dedicated_cpus_change_cells_only_with_the_option(guest, update, daemon, across_cells):
    before = all_of(guest)
    update(guest, "refused", vcpu_pinning="0:6;2:2")
    assert all_of(guest) == before
    across_cells()
    # A refusal that has lost its reason is carried out.
    guest.wait_affinity({0: [6], 1: [3], 2: [2], 3: [7]})
    # The memory is where it was, remote now.
    changed = ("threads", "tuning", "live")
    assert without(all_of(guest), *changed) == without(before, *changed)
    update(guest)
    assert threads_of(guest) == guest.given


def test_two_guests_never_swap_their_dedicated_cpus(started, update):
    with started(**granted("2")) as one, started(**granted("3")) as other:
        before = all_of(one), all_of(other)
        for guest, cpu in ((one, 3), (other, 2)):
            record = update(guest, "refused", vcpu_pinning=f"0:{cpu}")
            assert record.reason == "outside_grant"
        assert (all_of(one), all_of(other)) == before


def refusal(daemon, guest, reason):
    """Wait until a guest's request is refused for a reason."""

    def refused():
        record = daemon.record(guest.uuid)
        return record and (record.status, record.reason) == ("refused", reason) and record

    return wait_until(refused, TIMEOUT, f"refused with {reason}")


def test_a_guest_that_nova_moves_to_another_cell_runs_there_and_is_refused(
    started, update, daemon
):
    there = cpus(vcpu_0="4-5", vcpu_1="4-5", emulator="4-5", iothread_1="4-5")
    with started(**granted("0-1 0-1")) as guest:
        update(guest, vcpu_pinning="0:0;1:1", emulator_pinning="1")
        guest.hard_reboot()
        guest.wait_affinity({0: [0], 1: [1]})
        wait_until(lambda: threads_of(guest)["emulator"] == {1}, TIMEOUT, "QEMU is placed, too")
        guest.hard_reboot(**granted("4-5 4-5", nodes=[1]))
        assert "gave vCPU 0 the CPUs 4-5" in refusal(daemon, guest, "outside_grant").message
        assert threads_of(guest) == there
        assert set(memory.memory_kib(guest.uuid, memory.FILE)) == {1}
        update(guest, vcpu_pinning="0:4;1:5", emulator_pinning="5")
        assert guest.affinity() == {0: {4}, 1: {5}}
        update(guest)
        assert threads_of(guest) == there


def test_a_guest_with_other_dedicated_cpus_is_placed_again_or_refused(started, update, daemon):
    with started(**granted("2 3")) as guest:
        update(guest, vcpu_pinning="0:3;1:2")
        guest.hard_reboot(**granted("2 3"))
        guest.wait_affinity({0: [3], 1: [2]})
        guest.hard_reboot(**granted("6 7", nodes=[1]))
        refusal(daemon, guest, "outside_grant")
        assert guest.affinity() == {0: {6}, 1: {7}}


def test_a_guest_that_becomes_a_plain_one_is_placed_by_the_rules_of_plain_guests(started, update):
    with started(**granted("0-1 0-1")) as guest:
        update(guest, vcpu_pinning="0:0;1:1")
        guest.hard_reboot(granted=None)
        guest.wait_affinity({0: [0], 1: [1]})
        update(guest, vcpu_pinning="0:4;1:5", numa_nodes="1")
        assert guest.affinity() == {0: {4}, 1: {5}}
        update(guest)
        assert guest.affinity() == everywhere(guest)


def test_a_plain_guest_with_shared_memory_moves_with_it(started, update):
    with started(file_backed=True) as guest:
        for node, pinning in ((1, "0:4;1:5"), (0, "0:0;1:1"), (1, "0:5;1:4")):
            update(guest, vcpu_pinning=pinning, numa_nodes=str(node))
            assert set(memory.memory_kib(guest.uuid, memory.FILE)) == {node}
        assert guest.affinity() == {0: {5}, 1: {4}}
        update(guest)
        assert guest.affinity() == everywhere(guest)


def test_a_plain_guest_of_the_shared_set_returns_to_it(started, update):
    with started(cpuset="0-1,4-5") as guest:
        update(guest, vcpu_pinning="0:4;1:1")
        assert guest.affinity() == {0: {4}, 1: {1}}
        update(guest)
        assert guest.affinity() == dict.fromkeys((0, 1), threads.cpu_list("0-1,4-5"))
