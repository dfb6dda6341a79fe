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

"""Whether a host is as the last events request: what is kept, and what its threads may do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import json

from kongming.tests.soak.host import VCPUS, Row
from kongming.tests.soak.world import INVALID, NOTHING, PLACED, UNKNOWN_CPU, Ask, Instance
from kongming.tests.testbed import threads

# The CPUs of each vCPU; and how much of 100 ms each may use, -1 for all of it.
Allocation = tuple[dict[int, frozenset[int]], int]


def differences(kept: Mapping[str, Row], expected: Mapping[str, Instance]) -> dict[str, str]:
    """Return, by UUID, where a host is not as the last events request.

    :param expected: all instances that are here.
    """
    found = {uuid: f"kept, and not here: {kept[uuid]}" for uuid in kept.keys() - expected}
    for uuid, instance in expected.items():
        row, ask = kept.get(uuid), instance.asked
        assert ask is not None
        problems = [*_of_row(row, ask, real=instance.real)]
        if instance.real and not problems:
            problems += _of_threads(uuid, _in_force(row, ask))
        if problems:
            found[uuid] = f"{', '.join(problems)}: {ask}; {row}"
    return found


def _of_row(row: Row | None, ask: Ask, *, real: bool) -> Iterator[str]:
    if ask.kind == NOTHING:
        # Of a guest that is not there it is kept that it is to be released.
        if row is not None and (real or row.requested != "{}"):
            yield "kept"
    elif row is None:
        yield "lost"
    elif (row.status, row.reason) not in _outcomes(ask, real=real):
        yield "another outcome"
    elif ask.kind != INVALID and (
        row.requested is None or _read(row.requested) != _requested(ask)
    ):
        yield "another request"


def _outcomes(ask: Ask, *, real: bool) -> set[tuple[str, str]]:
    if ask.kind == INVALID or (ask.kind == UNKNOWN_CPU and real):
        return {("refused", ask.kind)}
    return {("applied", "")} if real else {("absent", "guest_absent")}


def _requested(ask: Ask) -> Allocation:
    return {vcpu: frozenset({cpu}) for vcpu, cpu in enumerate(ask.pins)}, ask.quota_us or -1


def _read(kept: str) -> Allocation:
    """Read an allocation as it is kept; it has no pins of vCPUs that all may run anywhere."""
    found = json.loads(kept)
    pins = {
        vcpu: threads.cpu_list(cpus)
        for vcpus, cpus in found.get("vcpu_pinning", {}).items()
        for vcpu in threads.cpu_list(vcpus)
    }
    return pins, found.get("vcpu_quota", {}).get("quota_us", -1)


def _in_force(row: Row | None, ask: Ask) -> Allocation:
    """Return what the guest is to have: a refusal leaves what was accepted before."""
    if ask.kind == PLACED:
        return _requested(ask)
    return ({}, -1) if row is None or row.accepted is None else _read(row.accepted)


def _of_threads(uuid: str, allocation: Allocation) -> Iterator[str]:
    pins, quota_us = allocation
    affinity, quotas = threads.vcpu_affinity(uuid), threads.vcpu_quotas(uuid)
    if affinity != {vcpu: pins.get(vcpu, threads.online_cpus()) for vcpu in range(VCPUS)}:
        yield f"its threads may run on {affinity}"
    if {found for found, _period in quotas.values()} != {quota_us}:
        yield f"its threads have {quotas}"
