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

"""Whatever is requested for a guest with a NUMA topology: it stays within what Nova gave it."""

from dataclasses import dataclass, replace

from hypothesis import event, given, settings
from hypothesis import strategies as st
import pytest

from kongming import exception
from kongming.allocation.cpuset import CpuSet
from kongming.allocation.statuses import Status
from kongming.allocation.target import EMULATOR, MEMORY, Aspect, iothread, vcpu
from kongming.host.rules import Overlap, Rules
from kongming.hypervisor.host import Host
from kongming.tests import guests
from kongming.tests.guests import occupant, request
from kongming.tests.thorough import examples
from kongming.tests.unit import reconciling
from kongming.tests.unit.granted_domains import domain

CELLS, SIZE = 3, 8
HOST = Host(CpuSet(range(24)), CpuSet(range(24)), CpuSet([0, 1, 2]), uuid="here")
SHARED = CpuSet(cpu for cpu in HOST.present if cpu % SIZE < 4)
POOL = CpuSet(HOST.present - SHARED)
IOTHREAD = iothread(1)


@dataclass(frozen=True)
class Instance:
    """A guest as Nova starts it: pins of the vCPUs, and of the emulator; the cell of each vCPU."""

    pins: tuple[CpuSet, ...]
    emulator: CpuSet
    cells: tuple[int, ...]
    realtime: CpuSet

    @property
    def xml(self):
        members = [
            str(CpuSet(number for number, cell in enumerate(self.cells) if cell == each))
            for each in sorted(set(self.cells))
        ]
        fifo = f"<vcpusched vcpus='{self.realtime}' scheduler='fifo' priority='1'/>"
        return domain(
            self.pins,
            self.emulator,
            members,
            iothread=self.emulator,
            scheduled=fifo if self.realtime else "",
        )


@st.composite
def instances(draw):
    """Draw a guest of up to three cells, with floating, dedicated and real-time vCPUs."""
    cells = sorted(draw(st.lists(st.integers(0, CELLS - 1), min_size=1, max_size=6)))
    free = {cell: [cpu for cpu in POOL if cpu // SIZE == cell] for cell in range(CELLS)}
    pins, dedicated = [], []
    for number, cell in enumerate(cells):
        if free[cell] and draw(st.booleans()):
            pins.append(CpuSet([free[cell].pop(draw(st.integers(0, len(free[cell]) - 1)))]))
            dedicated.append(number)
        else:
            pins.append(CpuSet(cpu for cpu in SHARED if cpu // SIZE == cell))
    some = st.lists(st.sampled_from(dedicated), unique=True) if dedicated else st.just([])
    realtime = CpuSet(draw(st.one_of(st.just([]), some)))
    own = CpuSet.union(each for number, each in enumerate(pins) if number not in realtime)
    isolated = CpuSet([next(cpu for left in free.values() for cpu in left)])
    emulator = draw(st.sampled_from([own or SHARED, SHARED, isolated]))
    return Instance(tuple(pins), emulator, tuple(cells), realtime)


def cpusets(cpus):
    return st.frozensets(st.sampled_from(sorted(cpus)), min_size=1, max_size=4).map(CpuSet)


@st.composite
def requests(draw, instance):
    """Draw a request: permutations, parts of the grant, and now and then anything at all."""
    bold = draw(st.integers(0, 3)) == 0

    def among(*granted):
        usual = st.one_of(*(cpusets(each) for each in granted if each))
        return draw(usual | cpusets(HOST.present) if bold else usual)

    dedicated = [number for number, cpus in enumerate(instance.pins) if cpus <= POOL]
    permuted = [number for number in dedicated if draw(st.integers(0, 3)) or not bold]
    own = CpuSet.union(instance.pins[number] for number in dedicated)
    pins = {
        number: instance.pins[other]
        for number, other in zip(permuted, draw(permutations(permuted, instance)), strict=True)
    }
    for number, cpus in enumerate(instance.pins):
        if number not in dedicated or (bold and number not in permuted):
            pins[number] = among(cpus)
    requested = {
        "vcpu_pinning": ";".join(f"{number}:{cpus}" for number, cpus in pins.items()),
        "emulator_pinning": str(among(instance.emulator, own, SHARED)),
        "iothread_pinning": str(among(instance.emulator, own, SHARED)),
        "cpu_shares": "200",
        "numa_nodes": "0-1",
    }
    left_out = draw(st.frozensets(st.sampled_from(sorted(requested))))
    return {
        name: value
        for name, value in requested.items()
        if value and name not in left_out and (bold or name != "numa_nodes")
    }


def permutations(numbers, instance):
    """Return permutations; most keep to the guest's cells."""
    within = st.permutations(numbers).map(
        lambda order: sorted(order, key=lambda number: instance.cells[number])
    )
    return within | st.permutations(numbers)


RULES = st.builds(
    Rules,
    dedicated_cpus=st.sampled_from([POOL, POOL, CpuSet()]),
    shared_cpus=st.sampled_from([SHARED, CpuSet()]),
    numa_across_cells=st.booleans(),
    overlap=st.sampled_from(Overlap),
)


class Guest(guests.Guest):
    """A guest that libvirt refuses to change at one of the next attempts."""

    refuses = 0

    def set(self, what, value):
        self.refuses -= 1
        if self.refuses == 0:
            raise exception.StepFailed("libvirt error 38")
        super().set(what, value)


class Compute(reconciling.Host):
    """A host with such a guest, and guests with all other dedicated CPUs."""

    def run(self, instance, rules):
        self.instance, self.rules = instance, rules
        record = self.record
        if record is not None:
            self.store.forget(record.instance_uuid, "another one", generation=record.generation)
        self.boot()
        given = CpuSet.union([*instance.pins, instance.emulator])
        self.hypervisor.others = [
            occupant(f"5a6e9b1e-0000-4000-8000-0000000001{cpu:02}", cpu) for cpu in POOL - given
        ]
        self.begin_with(rules)

    def begin_with(self, rules):
        self.begin()
        self.rules = rules

    def boot(self):
        self.guest = Guest(HOST, xml=self.instance.xml)
        self.hypervisor.guests[reconciling.UUID] = self.guest
        self.guest.domain_id = self.domain_id = getattr(self, "domain_id", 0) + 1

    def check(self):
        """Check and return what is configured for each part of the guest."""
        configured, grant = self.guest.configured, self.guest.definition().grant
        assert configured[MEMORY] == grant.nodes
        dedicated = grant.dedicated(self.rules.dedicated_cpus)
        for number, cpus in grant.vcpus.items():
            if number not in dedicated:
                assert configured[vcpu(number)] <= cpus
        now = {number: configured[vcpu(number)] for number in dedicated}
        assert all(len(each) == 1 for each in now.values())
        assert sorted(CpuSet.union(now.values())) == sorted(dedicated.values())
        realtime = CpuSet.union(configured[vcpu(number)] for number in grant.realtime)
        for what in (EMULATOR, IOTHREAD):
            assert configured[what] <= grant.of(what) | CpuSet(dedicated.values()) | SHARED
            assert not configured[what] & realtime
        return {what: configured[what] for what in configured if what.aspect is not Aspect.MEMORY}


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    host = Compute(tmp_path_factory.mktemp("host"))
    yield host
    host.store.close()


@settings(max_examples=examples(80))
@given(instances(), RULES, st.data())
def test_no_request_takes_a_guest_out_of_its_grant(host, instance, rules, data):
    """vCPUs stay within, dedicated CPUs a permutation, and no CPUs of others are ever named."""
    host.run(instance, rules)
    for _ in range(data.draw(st.integers(1, 4))):
        happening = data.draw(st.sampled_from(["", "", "fail", "offline", "rules", "restart"]))
        if happening == "offline":
            granted = CpuSet.union([*instance.pins, instance.emulator])
            offline = data.draw(st.frozensets(st.sampled_from(sorted(granted)), max_size=3))
            host.guest.host = replace(HOST, online=CpuSet(HOST.present - offline))
        elif happening == "rules":
            host.rules = replace(rules, numa_across_cells=data.draw(st.booleans()))
        elif happening == "restart":
            host.begin_with(host.rules)
            host.boot()
        elif happening == "fail":
            host.guest.refuses = data.draw(st.integers(1, 4))
        before = host.check()
        if data.draw(st.integers(0, 3)):
            host.request(request(**data.draw(requests(instance))))
        elif data.draw(st.booleans()):
            host.request(request())
        host.reconcile()
        host.guest.refuses = 0
        after = host.check()
        status = host.record.status if host.record else "released"
        event(f"{happening or 'nothing'}: {status}")
        if status == Status.FAILED:
            assert after == before
