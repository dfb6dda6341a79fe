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

"""A guest, and the hypervisor that runs it, as the executor works with them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from kongming import exception
from kongming.allocation import metadata
from kongming.allocation.allocation import Allocation
from kongming.allocation.cpuset import CpuSet
from kongming.allocation.target import NO_QUOTA, QUOTA, SHARES, Target, Value, vcpu
from kongming.host.grant import Grant
from kongming.host.occupant import Occupant
from kongming.hypervisor.definition import Definition, parse
from kongming.hypervisor.host import Host
from kongming.hypervisor.reading import Reading

ALL = CpuSet(range(8))
HOST = Host(ALL, ALL, CpuSet([0, 1]), cgroup=2)
#: The same host with half of its CPUs online.
HALF = replace(HOST, online=CpuSet(range(4)))

_XML = """<domain><metadata><n:instance xmlns:n='http://openstack.org/xmlns/libvirt/nova/1.1'/>
</metadata><vcpu>2</vcpu><iothreads>1</iothreads><cputune>{}</cputune></domain>"""


class Guest:
    """A running guest of two vCPUs and an iothread, without threads.

    :ivar shown: what the kernel shows of targets, where that is not what is configured.
    :ivar unobserved: the targets of which only libvirt's word is known.
    :ivar done: the targets that were set.
    :ivar looks: how often its definition was read.
    :ivar fails: what libvirt answers to each attempt to set anything.
    """

    def __init__(
        self,
        host: Host = HOST,
        pins: str = "",
        grant: Grant | None = None,
        xml: str = _XML,
        **shown: Reading,
    ) -> None:
        """:param xml: its definition, if it is another guest."""
        self.host = host
        self.domain_id = 7
        self.cpu_time: dict[Target, Value] = {SHARES: 1024, QUOTA: NO_QUOTA}
        self.has_cpuset_controller = True
        self.is_found, self.hidden = True, ""
        self.unobserved: frozenset[Target] = frozenset()
        self.memory: dict[int, int] | None = {0: 30, 1: 0}
        self.shown = {vcpu(int(name[1:])): reading for name, reading in shown.items()}
        self.busy = self.starting = self.ending = self.started_anew = False
        self.fails: exception.KongmingError | None = None
        self.cleaning: bool | exception.KongmingError = False
        self.group_folder: Path | None = None
        self.done: list[Target] = []
        self.looks = 0
        self._now = parse(xml.format(pins), host)
        if grant is not None:
            configured = {**self._now.configured, **grant.cpus}
            self._now = replace(self._now, grant=grant, configured=configured)

    @property
    def configured(self) -> dict[Target, Value]:
        """The values in libvirt's definition, and the CPU time."""
        return {**self._now.configured, **self.cpu_time}

    def definition(self) -> Definition:
        self.looks += 1
        return self._now

    def observe(self, targets: Any, now: Any = None) -> dict[Target, Reading]:
        configured = self.configured
        found = {
            what: Reading.of(value, by_kernel=what not in self.unobserved)
            for what, value in configured.items()
        } | self.shown
        return {what: found[what] for what in targets if what in configured}

    def set(self, what: Target, value: Any) -> None:
        if self.fails is not None:
            raise self.fails
        self.done.append(what)
        self.shown.pop(what, None)
        if what in self.cpu_time:
            self.cpu_time[what] = value
        else:
            self._now = replace(self._now, configured={**self._now.configured, what: value})

    def write_baseline(self, baseline: Any) -> None:
        granted = {} if self._now.grant is None else self._now.grant.cpus
        returns_to = {what: granted.get(what, value) for what, value in baseline.items()}
        self._now = replace(self._now, baseline=returns_to, has_foreign_baseline=False)

    def regrant(self, grant: Grant) -> None:
        """Have Nova give the guest other CPUs."""
        baseline = self._now.baseline
        self._now = replace(self._now, grant=grant)
        self.write_baseline(baseline)

    def arrive(self, *touched: Target) -> None:
        """Have it come from another host, which had touched some targets."""
        self._now = replace(
            self._now, baseline=dict.fromkeys(touched, ALL), has_foreign_baseline=True
        )

    def check_free(self) -> None:
        if self.busy:
            raise exception.GuestBusy("a job")

    def memory_kib(self) -> dict[int, int] | None:
        return self.memory

    def is_starting(self) -> bool:
        return self.starting

    def ends_within(self, _seconds: float) -> bool:
        return self.ending

    def has_restarted(self) -> bool:
        return self.started_anew

    def clean_definition(self) -> bool:
        if isinstance(self.cleaning, bool):
            return self.cleaning
        raise self.cleaning


class Hypervisor:
    """A libvirt with guests.

    :ivar guests: by instance; or why there is none.
    :ivar looked_at: the instances whose guests were requested.
    :ivar saved: the instances that have a saved image with a placement in it.
    :ivar released, forgotten: the instances that were reported to it as such.
    """

    def __init__(self) -> None:
        self.guests: dict[str, Guest | exception.KongmingError] = {}
        self.looked_at: list[str] = []
        self.others: list[Occupant] = []
        self.saved: set[str] = set()
        self.released: list[str] = []
        self.forgotten: list[str] = []

    @contextmanager
    def guest(self, instance_uuid: str) -> Iterator[Guest]:
        self.looked_at.append(instance_uuid)
        found = self.guests.get(instance_uuid, exception.DomainGone("no such domain"))
        if isinstance(found, Exception):
            raise found
        yield found

    def occupants(self) -> list[Occupant]:
        return self.others

    def release_saved(self, instance_uuid: str) -> bool:
        self.released.append(instance_uuid)
        return instance_uuid in self.saved

    def forget_migrated(self, instance_uuid: str) -> None:
        self.forgotten.append(instance_uuid)


def request(**values: str) -> Allocation:
    """Return a request, by the fields of an allocation."""
    keys = {name.replace("_", "-"): value for name, value in values.items()}
    return metadata.parse({metadata.PREFIX + name: value for name, value in keys.items()})


def pin(number: int, cpus: object) -> str:
    """Return how libvirt's definition pins a vCPU."""
    return f"<vcpupin vcpu='{number}' cpuset='{cpus}'/>"


def occupant(instance_uuid: str, *cpus: int) -> Occupant:
    """Return a guest on some CPUs."""
    return Occupant(instance_uuid, "router", pins={0: CpuSet(cpus)})
