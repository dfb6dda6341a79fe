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

"""What the suite requests for its guests, and how a guest looks that has got it.

This is the place for more keys: describe one as an Aspect and add it to ASPECTS. Then
each step of a guest's life requests it and checks it, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kongming.tests.testbed import memory, threads

if TYPE_CHECKING:
    from kongming.tests.nova.server import Server

CPUS = threads.online_cpus()
LOW, HIGH = min(CPUS), max(CPUS)


@dataclass(frozen=True)
class Wish:
    """A value of one key.

    :ivar looks: what is observed of a guest with so many vCPUs that has got it
    """

    value: str
    looks: Callable[[int], Any]


@dataclass(frozen=True)
class Aspect:
    """One key: two values that look different, and where to look.

    :ivar untouched: what is observed of a guest with so many vCPUs and without a request
    :ivar observe: reads it of a guest that runs, from the kernel rather than from libvirt
    """

    key: str
    first: Wish
    second: Wish
    untouched: Callable[[int], Any]
    observe: Callable[[Server], Any]


@dataclass(frozen=True)
class Request:
    """The values of all keys together, and how a guest with so many vCPUs looks then."""

    metadata: dict[str, str]
    looks: Callable[[int], dict[str, Any]]


def _everywhere(vcpus: int) -> dict[int, frozenset[int]]:
    return dict.fromkeys(range(vcpus), CPUS)


def _crossed(vcpus: int) -> dict[int, frozenset[int]]:
    crossed = _everywhere(vcpus) | {0: frozenset({HIGH}), 1: frozenset({LOW})}
    return {vcpu: cpus for vcpu, cpus in crossed.items() if vcpu < vcpus}


def _together(vcpus: int) -> dict[int, frozenset[int]]:
    return dict.fromkeys(range(vcpus), frozenset({HIGH}))


VCPU_PINNING = Aspect(
    key="kongming-vcpu-pinning",
    # Names vCPUs that a guest must have: two.
    first=Wish(f"0:{HIGH};1:{LOW}", _crossed),
    second=Wish(str(HIGH), _together),
    untouched=_everywhere,
    observe=lambda server: threads.vcpu_affinity(server.uuid),
)

EMULATOR_PINNING = Aspect(
    key="kongming-emulator-pinning",
    first=Wish(str(HIGH), lambda _vcpus: {HIGH}),
    second=Wish(str(LOW), lambda _vcpus: {LOW}),
    untouched=lambda _vcpus: CPUS,
    observe=lambda server: threads.affinity(threads.emulator_thread(server.uuid)),
)

IOTHREAD_PINNING = Aspect(
    key="kongming-iothread-pinning",
    # Nova gives each guest one.
    first=Wish(f"1:{LOW}", lambda _vcpus: {1: {LOW}}),
    second=Wish(str(HIGH), lambda _vcpus: {1: {HIGH}}),
    untouched=lambda _vcpus: {1: CPUS},
    observe=lambda server: {
        number: threads.affinity(thread)
        for number, thread in threads.iothreads(server.uuid).items()
    },
)

VCPU_QUOTA = Aspect(
    key="kongming-vcpu-quota",
    first=Wish("50%", lambda vcpus: dict.fromkeys(range(vcpus), (50_000, 100_000))),
    second=Wish("20000/40000", lambda vcpus: dict.fromkeys(range(vcpus), (20_000, 40_000))),
    untouched=lambda vcpus: dict.fromkeys(range(vcpus), (-1, 100_000)),
    observe=lambda server: threads.vcpu_quotas(server.uuid),
)

# With one node nothing of it can be observed, but that the guest lives through it all.
NUMA_NODES = Aspect(
    key="kongming-numa-nodes",
    first=Wish("0", lambda _vcpus: "0"),
    second=Wish("0", lambda _vcpus: "0"),
    untouched=lambda _vcpus: "0",
    observe=lambda server: memory.allowed_nodes(threads.emulator_thread(server.uuid)),
)

ASPECTS = (VCPU_PINNING, EMULATOR_PINNING, IOTHREAD_PINNING, VCPU_QUOTA, NUMA_NODES)

FIRST = Request(
    {aspect.key: aspect.first.value for aspect in ASPECTS},
    lambda vcpus: {aspect.key: aspect.first.looks(vcpus) for aspect in ASPECTS},
)
SECOND = Request(
    {aspect.key: aspect.second.value for aspect in ASPECTS},
    lambda vcpus: {aspect.key: aspect.second.looks(vcpus) for aspect in ASPECTS},
)
# The memory of a guest with a NUMA topology stays where Nova bound it.
WITHIN = Request(
    {key: value for key, value in FIRST.metadata.items() if key != NUMA_NODES.key}, FIRST.looks
)
NOTHING = Request({}, lambda vcpus: {aspect.key: aspect.untouched(vcpus) for aspect in ASPECTS})
