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

"""Hosts to draw: topologies as machines have them, and guests on them."""

from collections.abc import Collection
from uuid import UUID

from kongming.allocation.cpuset import CpuSet
from kongming.host.occupant import Occupant
from kongming.host.topology import Cache, Cell, Cpu, Topology

GIB = 1 << 20


def host(
    cells: int,
    cores: int,
    threads: int,
    *,
    l3: int = 1,
    offline: Collection[int] = (),
    memory_gib: int = 8,
    interleaved: bool = False,
) -> Topology:
    """A host of equal cells, one socket each, whose siblings are numbered last.

    :param cores: of each cell
    :param l3: L3 caches of each cell
    :param interleaved: neighbouring ids are in different cells
    """
    total = cells * cores

    def ids(cell: int, core: int) -> list[int]:
        first = core * cells + cell if interleaved else cell * cores + core
        return [first + thread * total for thread in range(threads)]

    def cpu(number: int, cell: int, core: int) -> Cpu:
        if number in offline:
            return Cpu(number, None, None, None, CpuSet([number]), False)
        siblings = CpuSet(ids(cell, core)) - CpuSet(offline)
        return Cpu(number, cell, 0, core, CpuSet(siblings), True)

    def cache(cell: int, bank: int) -> Cache:
        of_bank = range(bank * cores // l3, (bank + 1) * cores // l3)
        return Cache(
            3, "both", 32 << 10, CpuSet(number for core in of_bank for number in ids(cell, core))
        )

    return Topology(
        tuple(
            Cell(
                id=cell,
                memory_kib=memory_gib * GIB,
                free_kib=memory_gib * GIB // (cell + 2),
                distances={other: 10 if other == cell else 21 for other in range(cells)},
                cpus=tuple(
                    sorted(
                        (
                            cpu(number, cell, core)
                            for core in range(cores)
                            for number in ids(cell, core)
                        ),
                        key=lambda cpu: cpu.id,
                    )
                ),
                caches=tuple(cache(cell, bank) for bank in range(l3)),
            )
            for cell in range(cells)
        )
    )


def guest(
    number: int,
    pins: str = "",
    *,
    name: str | None = None,
    nova: bool = True,
    cpuset: str | None = None,
    nodes: str | None = None,
) -> Occupant:
    """A guest; its pins are written as its metadata would request them."""
    pinned: dict[int, CpuSet] = {}
    for entry in filter(None, pins.split(";")):
        vcpus, cpus = entry.split(":")
        pinned |= dict.fromkeys(CpuSet.parse(vcpus), CpuSet.parse(cpus))
    return Occupant(
        instance_uuid=str(UUID(int=(number + 1) * 0x1F3D5B79 << 64 | number, version=4)),
        name=name or f"instance-{number:08x}",
        project_id="0f2b9b9e3d1c4c4e8f3a7d5b6c1e2f30" if nova else None,
        nova=nova,
        pins=pinned,
        cpuset=CpuSet.parse(cpuset) if cpuset else None,
        memory_nodes=CpuSet.parse(nodes) if nodes else None,
    )
