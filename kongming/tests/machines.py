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

"""Machines as their kernels report them, and as libvirt does.

A machine is a dict of what its kernel reports, in the kernel's words: ``possible``,
``present``, ``online``, ``isolated``, ``nohz_full``, ``has_memory`` are lists of ids;
``cores`` has for each core socket, die, core id, capacity and CPUs that are online;
``caches`` has level, kind, KiB and CPUs; ``nodes`` has for each id the CPUs, the memory in
KiB and the distances; ``types`` has the CPUs of each folder of counters, as ``cpu_atom``;
``homes`` has the node of CPUs that no node lists. What is left out is not reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from kongming.allocation.cpuset import CpuSet, parse_ids
from kongming.host.topology import Topology
from kongming.hypervisor import host, sysfs
from kongming.hypervisor.kernel_files import KernelFiles

Machine = Mapping[str, Any]

#: The machines of hwloc's tests; see kongming/tests/data/README.rst.
HWLOC: dict[str, Machine] = json.loads((Path(__file__).parent / "data" / "hosts.json").read_text())


def _cores(*siblings: str, capacity: int | None = None) -> list[list[Any]]:
    return [[0, -1, number, capacity, cpus] for number, cpus in enumerate(siblings)]


#: Others, each odd in its own way.
ODD: dict[str, Machine] = {
    "numbers with holes": {
        "possible": "0-15",
        "present": "0-3,8-11",
        "online": "0-2,8-11",
        "cores": _cores("0-1", "2", "8-9", "10-11"),
        # Of the CPUs that are there only some are online, and more could be plugged in.
        "nodes": {0: ["0-7", 4 << 20, [10, 21]], 1: ["8-15", 4 << 20, [21, 10]]},
        "has_memory": "0-1",
    },
    "offline CPUs that only their own links name": {
        "present": "0-7",
        "online": "0,2,4-5",
        "cores": _cores("0,4", "2", "5"),
        "nodes": {0: ["0,4", 1 << 20, [10, 20]], 8: ["2,5", 1 << 20, [20, 10]]},
        "homes": {1: 0, 3: 8, 6: 8},
        "has_memory": "0,8",
        "isolated": "",
        "nohz_full": "  (null)",
    },
    "a node without memory": {
        "present": "0-5",
        "online": "0-5",
        "cores": _cores("0-1", "2-3", "4-5"),
        "nodes": {
            0: ["0-1", 1 << 20, [10, 40, 20]],
            1: ["2-3", 0, [30, 10, 20]],
            2: ["4-5", 1 << 20, [20, 12, 10]],
        },
        "has_memory": "0,2",
    },
    "memory without CPUs": {
        "present": "0-3",
        "online": "0-3",
        "cores": _cores("0-1", "2-3"),
        "nodes": {
            0: ["0-1", 1 << 20, [10, 21, 14, 24]],
            1: ["2-3", 1 << 20, [21, 10, 24, 14]],
            2: ["", 4 << 20, [14, 24, 10, 26]],
            3: ["", 4 << 20, [24, 14, 26, 10]],
        },
        "has_memory": "0-3",
    },
    "memory that the firmware keeps": {
        "present": "0-3",
        "online": "0-3",
        "cores": _cores("0", "1", "2", "3"),
        "nodes": {0: ["0-1", 1 << 20, []], 1: ["2-3", 0, []]},
        "has_memory": "0-1",
    },
    "threads switched off": {
        "present": "0-7",
        "online": "0-3",
        "cores": _cores("0", "1", "2", "3"),
        "nodes": {0: ["0-3", 1 << 20, [10]]},
        "has_memory": "0",
    },
    "cores of two types": {
        "present": "0-7",
        "online": "0-7",
        "cores": [*_cores("0-1", "2-3", capacity=1024), *_cores("4", "5", "6", "7", capacity=610)],
        "types": {"cpu_core": "0-3", "cpu_atom": "4-6", "cpu_lowpower": "7"},
        "caches": [[3, "both", 24 << 10, "0-6"]],
        "nodes": {0: ["0-7", 1 << 20, [10]]},
        "has_memory": "0",
        "isolated": "2-3",
        "nohz_full": "3-5",
    },
    "cores that are rated": {
        "present": "0-7",
        "online": "0-6",
        "cores": [
            *_cores("0", "1", capacity=1024),
            *_cores("2", "3", capacity=998),
            *_cores("4", "5", "6", capacity=446),
        ],
        "nodes": {},
    },
    "8,192 CPUs": {
        "present": "0-8191",
        "online": "0-8191",
        "cores": _cores(*(f"{first}-{first + 7}" for first in range(0, 8192, 8))),
        "nodes": {
            node: [f"{node * 128}-{node * 128 + 127}", 1 << 28, [10] * 64] for node in range(64)
        },
        "has_memory": "0-63",
    },
}

_KINDS = {"both": "Unified", "data": "Data", "code": "Instruction"}
_IDS = ("physical_package_id", "die_id", "core_id")


def write(machine: Machine, root: Path) -> Path:
    """Write a machine's files below a folder, and return what stands for /sys/devices/system."""
    system = root / "devices/system"
    for path, text in _files(machine):
        (system / path).parent.mkdir(parents=True, exist_ok=True)
        (system / path).write_text(f"{text}\n")
    for cpu, node in machine.get("homes", {}).items():
        (system / f"cpu/cpu{cpu}").mkdir()
        (system / f"cpu/cpu{cpu}/node{node}").symlink_to(system / f"node/node{node}")
    return system


def _files(machine: Machine) -> Iterable[tuple[str, object]]:
    for name in ("possible", "present", "online", "isolated", "nohz_full"):
        if name in machine:
            yield f"cpu/{name}", machine[name]
    for name, cpus in machine.get("types", {}).items():
        yield f"../{name}/cpus", cpus
    yield from _files_of_cpus(machine)
    if machine["nodes"]:
        yield "node/online", CpuSet(map(int, machine["nodes"]))
    if "has_memory" in machine:
        yield "node/has_memory", machine["has_memory"]
    for node, (cpus, memory, distances) in machine["nodes"].items():
        yield f"node/node{node}/cpulist", cpus
        kinds = {"MemTotal": memory, "MemFree": memory // 2}
        lines = (f"Node {node} {kind}: {kib:11} kB" for kind, kib in kinds.items())
        yield f"node/node{node}/meminfo", "\n".join(lines)
        if distances:
            yield f"node/node{node}/distance", " ".join(map(str, distances))


def _files_of_cpus(machine: Machine) -> Iterable[tuple[str, object]]:
    # Of the CPUs that share a core or a cache the first one has the information of all.
    online = parse_ids(machine["online"])
    for *ids, capacity, cpus in machine["cores"]:
        folder = f"cpu/cpu{min(parse_ids(cpus))}"
        yield f"{folder}/topology/thread_siblings_list", cpus
        for name, number in zip(_IDS, ids, strict=True):
            if number is not None:
                yield f"{folder}/topology/{name}", number
        if capacity is not None:
            yield f"{folder}/cpu_capacity", capacity
    for number, (level, kind, size, cpus) in enumerate(machine.get("caches", ())):
        folder = f"cpu/cpu{min(parse_ids(cpus) & online)}/cache/index{number}"
        yield f"{folder}/level", level
        yield f"{folder}/type", _KINDS[kind]
        yield f"{folder}/size", f"{size}K"
        yield f"{folder}/shared_cpu_list", cpus


def topology(files: KernelFiles) -> Topology:
    """Return what the kernel reports of a machine."""
    system = files.system
    present = files.ids(f"{system}/cpu/present") or CpuSet()
    online = files.ids(f"{system}/cpu/online") or CpuSet()
    storing = host.memory_nodes(files) or CpuSet([0])
    return sysfs.read(files, present, online & present, storing)


class Libvirt:
    """A connection to the libvirt of a machine, as far as the host is concerned."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def getCPUMap(self) -> tuple[int, list[bool], int]:  # noqa: N802
        online = parse_ids(self._machine["online"])
        count = max(parse_ids(self._machine["present"])) + 1
        # Its map ends with a whole byte.
        return count, [cpu in online for cpu in range(-(-count // 8) * 8)], len(online)

    def getInfo(self) -> list[Any]:  # noqa: N802
        return ["", sum(memory for _, memory, _ in self._machine["nodes"].values()) >> 10]

    def getMemoryStats(self, cell: int) -> dict[str, int]:  # noqa: N802
        nodes = {int(node): memory for node, (_, memory, _) in self._machine["nodes"].items()}
        return {"free": nodes[cell] // 2}

    def getCapabilities(self) -> str:  # noqa: N802
        """Write what libvirt 9 does: it knows nodes and their CPUs, there or not, by libnuma."""
        machine = self._machine
        root = ET.Element("capabilities")
        told_of = ET.SubElement(root, "host")
        cells = ET.SubElement(ET.SubElement(told_of, "topology"), "cells")
        cores = {cpu: core for core in machine["cores"] for cpu in parse_ids(core[4])}
        ids = sorted(map(int, machine["nodes"]))
        for number, (cpus, memory, distances) in machine["nodes"].items():
            cell = ET.SubElement(cells, "cell", id=str(number))
            if memory:
                ET.SubElement(cell, "memory", unit="KiB").text = str(memory)
            distances_of = ET.SubElement(cell, "distances") if distances else cell
            for other, distance in zip(ids, distances, strict=False):
                if distance:
                    ET.SubElement(distances_of, "sibling", id=str(other), value=str(distance))
            listed = ET.SubElement(cell, "cpus")
            for cpu in parse_ids(cpus):
                socket, die, core, _capacity, siblings = cores.get(cpu, (0, 0, 0, None, cpu))
                ET.SubElement(
                    listed,
                    "cpu",
                    id=str(cpu),
                    socket_id=str(max(0, socket or 0)),
                    die_id=str(max(0, die or 0)),
                    core_id=str(core or 0),
                    siblings=str(siblings),
                )
        banks = ET.SubElement(told_of, "cache")
        for level, kind, size, cpus in machine.get("caches", ()):
            attributes = {"level": str(level), "type": kind, "size": str(size), "unit": "KiB"}
            ET.SubElement(banks, "bank", attributes, cpus=cpus)
        return ET.tostring(root, encoding="unicode")
