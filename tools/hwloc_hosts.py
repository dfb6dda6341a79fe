#!/usr/bin/env python3
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

"""Condense the machines of hwloc's tests to what Kongming reads of a host.

    tools/hwloc_hosts.py HWLOC > kongming/tests/data/hosts.json

``tests/hwloc/linux`` of hwloc's sources has trees of sysfs, ``tests/hwloc/xml`` what hwloc
made of other machines. ``kongming/tests/machines.py`` says what the fields mean.
"""

from __future__ import annotations

from collections.abc import Iterator
import json
from pathlib import Path
import re
import sys
import tarfile
import tempfile
from typing import Any
from xml.etree import ElementTree as ET

from kongming.allocation.cpuset import CpuSet

_Host = dict[str, Any]
_IDS = ("physical_package_id", "die_id", "core_id")
_KINDS = {"Unified": "both", "Data": "data", "Instruction": "code", "0": "both", "1": "data"}


def of_tree(system: Path) -> _Host:
    """Condense a tree; kernels of long ago wrote masks, and no lists."""
    folders = dict(_numbered(system / "cpu", "cpu"))
    running = {cpu for cpu, each in folders.items() if _text(each / "online") != "0"}
    online = _text(system / "cpu/online") or str(CpuSet(running))
    names = ("cpu/possible", "cpu/isolated", "cpu/nohz_full", "node/has_memory")
    cores: dict[str, list[Any]] = {}
    caches: dict[str, list[Any]] = {}
    for cpu in CpuSet.parse(online):
        ids = [_number(folders[cpu] / "topology" / name) for name in _IDS]
        siblings = _listed(folders[cpu] / "topology/thread_siblings") or str(cpu)
        cores.setdefault(siblings, [*ids, _number(folders[cpu] / "cpu_capacity"), siblings])
        for index in sorted(folders[cpu].glob("cache/index*")):
            level, size = _number(index / "level") or 0, _text(index / "size")
            if level > 2:
                kind, cpus = _KINDS[_text(index / "type")], _listed(index / "shared_cpu")
                if cpus:
                    caches[f"{level} {kind} {cpus}"] = [level, kind, int(size[:-1]), cpus]
    return {
        **{Path(name).name: text for name in names if (text := _text(system / name))},
        "present": _text(system / "cpu/present") or str(CpuSet(folders)),
        "online": online,
        "cores": list(cores.values()),
        "caches": list(caches.values()),
        "nodes": {number: _node(folder) for number, folder in _numbered(system / "node", "node")},
    }


def _numbered(parent: Path, stem: str) -> list[tuple[int, Path]]:
    found = parent.glob(f"{stem}[0-9]*")
    return sorted((int(each.name.removeprefix(stem)), each) for each in found)


def _node(folder: Path) -> list[Any]:
    memory = re.search(r"MemTotal: *([0-9]+)", _text(folder / "meminfo"))
    distances = [int(each) for each in _text(folder / "distance").split()]
    return [_listed(folder / "cpu"), int(memory[1]) if memory else 0, distances]


def _listed(path: Path) -> str:
    """Read a set of CPUs: its list, or its mask."""
    folder, stem = path.parent, path.name
    for name in (f"{stem}_list", f"{stem}_cpu_list", f"{stem}list"):
        if (folder / name).exists():
            return _text(folder / name)
    return _of_mask("".join(_text(folder / name) for name in (stem, f"{stem}_map", f"{stem}map")))


def _of_mask(text: str) -> str:
    words = [f"{int(word or '0', 16):08x}" for word in text.split(",")]
    bits = int("".join(words), 16)
    return str(CpuSet(cpu for cpu in range(bits.bit_length()) if bits >> cpu & 1))


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text else None


def _text(path: Path) -> str:
    return path.read_text(errors="replace").strip("\0\n ") if path.is_file() else ""


def of_xml(root: ET.Element) -> _Host:
    """Condense what hwloc made of a machine."""
    nodes: dict[int, list[Any]] = {}
    cores: list[list[Any]] = []
    caches: list[list[Any]] = []
    for each, socket in _objects(root, None):
        kind, cpus = each.get("type", ""), _of_mask(each.get("cpuset", "0"))
        if kind == "NUMANode":
            memory = int(each.get("local_memory", "0")) >> 10
            nodes[int(each.get("os_index", ""))] = [cpus, memory, []]
        elif kind == "Core":
            cores.append([socket, None, int(each.get("os_index", "0")), None, cpus])
        elif kind == "L3Cache":
            size = int(each.get("cache_size", "0")) >> 10
            caches.append([3, _KINDS[each.get("cache_type", "0")], size, cpus])
    # hwloc says beside which CPUs memory is; the kernel gives each CPU to one node.
    seen: set[str] = set()
    for _number, node in sorted(nodes.items()):
        node[0] = "" if node[0] in seen else node[0]
        seen.add(node[0])
    machine = next(each for each, _socket in _objects(root, None))
    return {
        "present": _of_mask(machine.get("complete_cpuset", "0")),
        "online": _of_mask(machine.get("cpuset", "0")),
        "cores": cores,
        "caches": caches,
        "nodes": dict(sorted(nodes.items())),
    }


def _objects(parent: ET.Element, socket: int | None) -> Iterator[tuple[ET.Element, int | None]]:
    for each in parent.iterfind("object"):
        if each.get("type") in ("Package", "Socket"):
            socket = int(each.get("os_index", "0"))
        yield each, socket
        yield from _objects(each, socket)


def main(sources: Path) -> None:
    """Write each different one, one a line."""
    hosts: dict[str, _Host] = {}
    for path in sorted(sources.glob("tests/hwloc/linux/*.tar.bz2")):
        with tempfile.TemporaryDirectory() as folder, tarfile.open(path) as archive:
            archive.extractall(folder, filter="tar")
            for system in Path(folder).glob("*/sys/devices/system"):
                hosts[f"linux/{path.name.removesuffix('.tar.bz2')}"] = of_tree(system)
    for path in sorted(sources.glob("tests/hwloc/xml/*.xml")):
        hosts[f"xml/{path.stem}"] = of_xml(ET.fromstring(path.read_text()))
    different = {json.dumps(host): json.dumps(name) for name, host in reversed(hosts.items())}
    lines = (f"{name}: {host}" for host, name in reversed(different.items()))
    print("{", ",\n".join(lines), "}", sep="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
