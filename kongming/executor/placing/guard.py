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

"""The guard: what is forbidden, whatever the source of a request. It can only refuse.

Functions without side effects; each raises a refusal with its reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

from kongming import exception
from kongming.allocation import target
from kongming.allocation.cpuset import CpuSet, listed
from kongming.allocation.target import CPU_ASPECTS, Target, Value
from kongming.executor.placing import grants
from kongming.host.rules import NumaGuests, Rules
from kongming.hypervisor.definition import RESTRICTIVE, Definition
from kongming.hypervisor.host import Host

_NONE = CpuSet()

#: The weights that the kernel and every libvirt accept: version of the control groups → range.
#: The kernel's v2 also has a weight of 1, but libvirt before 9.1 can't set it.
CPU_SHARES = {1: range(2, 262_145), 2: range(2, 10_001)}


def check_guest(definition: Definition, rules: Rules) -> None:
    """Refuse a guest that Kongming must not place.

    :raises NotNova: if Nova did not create the domain.
    :raises NovaOwned: if Nova chose its CPUs, and the rules leave such guests to Nova.
    :raises ProjectNotAllowed: if its project may not request anything.
    """
    if not definition.nova:
        raise exception.NotNova(
            "the domain was not made by Nova (it has no nova:instance metadata); Kongming "
            "does not place it"
        )
    if definition.grant is not None and rules.numa_guests is NumaGuests.REFUSE:
        raise exception.NovaOwned(
            "the guest has a NUMA topology: Nova chose its CPUs, and [guard] numa_guests is "
            "refuse; withdraw the request, or use a flavor and an image without NUMA topology, "
            "page size and CPU policy"
        )
    if rules.allowed_projects and definition.project_id not in rules.allowed_projects:
        raise exception.ProjectNotAllowed(
            f"project {definition.project_id} is not in [guard] allowed_projects"
        )


def check_request(
    desired: Mapping[Target, Value], definition: Definition, host: Host, rules: Rules
) -> None:
    """Refuse what the host does not have, and what the operator's rules forbid.

    :raises Refused: with the reason of the first rule that is broken.
    """
    own = CpuSet()
    if definition.grant is not None:
        # This comes first: a request outside of the grant is refused for that, whatever other
        # rules it breaks.
        grants.check(desired, definition.grant, rules)
        own = definition.grant.everything
    check_cpus(requested_cpus(desired), host, rules, own)
    if target.MEMORY in desired:
        check_nodes(cast(CpuSet, desired[target.MEMORY]), host, rules)
        check_memory_mode(definition)
    if target.SHARES in desired and host.cgroup is not None:
        check_shares(cast(int, desired[target.SHARES]), host.cgroup)


def partition(
    desired: Mapping[Target, Value], definition: Definition, host: Host, rules: Rules
) -> tuple[dict[Target, Value], list[exception.Refused]]:
    """Separate what passes :func:`check_request` from what does not, each target by itself.

    The CPUs of a guest with a NUMA topology are judged as a whole: its threads share what Nova
    gave it.

    :returns: what passes, and one refusal for each rule that is broken.
    """
    if _refusal(desired, definition, host, rules) is None:
        return dict(desired), []
    passing: dict[Target, Value] = {}
    broken: dict[type[exception.Refused], dict[Target, Value]] = {}
    for each in _judged_together(desired, definition):
        refusal = _refusal(each, definition, host, rules)
        there = passing if refusal is None else broken.setdefault(type(refusal), {})
        there.update(each)
    refusals = (_refusal(targets, definition, host, rules) for targets in broken.values())
    return passing, [refusal for refusal in refusals if refusal is not None]


def _judged_together(
    desired: Mapping[Target, Value], definition: Definition
) -> Iterator[Mapping[Target, Value]]:
    pins = {what: desired[what] for what in desired if what.aspect in CPU_ASPECTS}
    together = pins if pins and definition.grant is not None else {}
    if together:
        yield together
    for what, value in desired.items():
        if what not in together:
            yield {what: value}


def _refusal(
    desired: Mapping[Target, Value], definition: Definition, host: Host, rules: Rules
) -> exception.Refused | None:
    try:
        check_request(desired, definition, host, rules)
    except exception.Refused as refusal:
        return refusal
    return None


def check_cpus(requested: CpuSet, host: Host, rules: Rules, own: CpuSet = _NONE) -> None:
    """Refuse CPUs that do not exist, and CPUs that Kongming must not use.

    libvirt drops a CPU that the host lacks without an error.

    :param own: the CPUs that Nova gave this guest.
    :raises CpuUnknown: if the host has no such CPU.
    :raises CpuReserved: if the operator reserves a CPU.
    :raises CpuDedicated: if Nova gives a CPU to guests with dedicated CPUs.
    :raises CpuNotAllowed: if a CPU is not among the allowed ones.
    """
    if unknown := requested - host.present:
        raise exception.CpuUnknown(
            f"CPU {listed(unknown)} does not exist: this host's CPUs are {host.present}"
        )
    if reserved := requested & rules.reserved_cpus:
        raise exception.CpuReserved(
            f"CPU {reserved} is reserved ([guard] reserved_cpus is {rules.reserved_cpus}); "
            "request other CPUs"
        )
    if dedicated := requested & rules.dedicated_cpus - own:
        raise exception.CpuDedicated(
            f"CPU {dedicated} is for guests with dedicated CPUs (nova.conf's [compute] "
            f"cpu_dedicated_set is {rules.dedicated_cpus}); request other CPUs"
        )
    if rules.allowed_cpus is not None and (barred := requested - rules.allowed_cpus):
        raise exception.CpuNotAllowed(
            f"CPU {barred} is not allowed ([guard] allowed_cpus is {rules.allowed_cpus}); "
            "request others"
        )


def check_usable(requested: CpuSet, host: Host) -> None:
    """Refuse CPUs on which the guest can't run now.

    The kernel drops them without an error, as long as any other is left.

    :param host: as the guest has it.
    :raises CpuOffline: if a CPU is offline now.
    :raises CpuNotInSlice: if a control group above the guest's lacks a CPU.
    """
    if offline := requested - host.online:
        raise exception.CpuOffline(
            f"CPU {offline} is offline: online are {host.online}; request those, or bring it "
            "online"
        )
    for group, cpus in host.barred:
        if missing := CpuSet(requested & cpus):
            raise exception.CpuNotInSlice(
                f"CPU {missing} is not in the control group {group}, which the guest belongs "
                "to: request other CPUs, or widen the group (AllowedCPUs= of a slice)"
            )


def check_nodes(requested: CpuSet, host: Host, rules: Rules) -> None:
    """Refuse NUMA nodes without memory for guests, or not allowed for Kongming.

    :raises NodeUnknown: if the host has no such node with memory.
    :raises NodeNotAllowed: if a node is not among the allowed ones.
    """
    if unknown := requested - host.nodes:
        raise exception.NodeUnknown(
            f"NUMA node {listed(unknown)} does not exist, or has no memory: this host's nodes are "
            f"{host.nodes}"
        )
    if rules.allowed_nodes is not None and (barred := requested - rules.allowed_nodes):
        raise exception.NodeNotAllowed(
            f"NUMA node {barred} is not allowed ([guard] allowed_nodes is {rules.allowed_nodes}); "
            "request others"
        )


def check_memory_mode(definition: Definition) -> None:
    """Refuse to move memory that libvirt can't move.

    :raises MemoryFixed: if it was bound in another mode than restrictive.
    """
    if definition.memory_mode not in (None, RESTRICTIVE):
        raise exception.MemoryFixed(
            f"the guest's memory is bound in mode {definition.memory_mode} (<numatune>), which "
            "libvirt can't change while the guest runs; only guests without numatune, or with "
            "mode restrictive, can be moved"
        )


def check_shares(shares: int, cgroup: int) -> None:
    """Refuse a weight that the kernel or some libvirt would not accept.

    :raises SharesOutOfRange: naming the range of this host.
    """
    allowed = CPU_SHARES[cgroup]
    if shares not in allowed:
        raise exception.SharesOutOfRange(
            f"{shares} CPU shares: this host has cgroup v{cgroup}, which accepts {allowed[0]} to "
            f"{allowed[-1]}"
        )


def requested_cpus(desired: Mapping[Target, Value]) -> CpuSet:
    """Return all requested host CPUs, of any threads."""
    return CpuSet.union(
        cast(CpuSet, value) for (aspect, _), value in desired.items() if aspect in CPU_ASPECTS
    )
