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

"""The host's topology, read from what the kernel reports, or libvirt."""

from dataclasses import replace
import functools
import json
import os
from pathlib import Path
import shutil
import tempfile

import libvirt
import pytest

from kongming.allocation.cpuset import CpuSet
from kongming.host.rules import Rules
from kongming.host.topology import Cache, Cell, Cpu, Topology
from kongming.hypervisor import capabilities, host
from kongming.hypervisor import files as kernel_text
from kongming.hypervisor.host import Host
from kongming.hypervisor.kernel_files import KernelFiles
from kongming.terminal import picture
from kongming.tests import machines
from kongming.tests.thorough import THOROUGH

REAL = (Path(__file__).parents[1] / "data/libvirt-9.0.0/capabilities.xml").read_text()
REAL_CPUS = Host(CpuSet(range(8)), CpuSet.parse("0-2,4-7"))
MACHINES = machines.HWLOC | machines.ODD
WALKED = [
    name
    for name, machine in MACHINES.items()
    if THOROUGH or len(CpuSet.parse(machine["present"])) <= 48
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Return a function that writes a machine's files, once each."""

    @functools.cache
    def written(name):
        return machines.write(MACHINES[name], Path(tempfile.mkdtemp(dir=folder)))

    # Trees of many small files are written much faster to memory.
    memory = Path("/dev/shm")
    home = memory if os.access(memory, os.W_OK) else tmp_path_factory.getbasetemp()
    with tempfile.TemporaryDirectory(dir=home, prefix="kongming-") as folder:
        yield written


@pytest.fixture(scope="module")
def read(tree, tmp_path_factory):
    """Return a function that reads a machine's topology by its kernel's words."""
    folder = tmp_path_factory.mktemp("no-numa")
    (folder / "meminfo").write_text("MemTotal:  2048 kB\nMemFree:   1024 kB\n")

    def read(name):
        return machines.topology(KernelFiles(system=tree(name), cgroup=folder, proc=folder))

    return functools.cache(read)


def written(*cells, cache=""):
    listed = "".join(f"<cell id='{number}'>{content}</cell>" for number, content in cells)
    cells = f"<topology><cells>{listed}</cells></topology>" if cells else ""
    return f"<capabilities><host>{cells}<cache>{cache}</cache></host></capabilities>"


def cpus(*ids):
    return "<cpus>" + "".join(f"<cpu id='{number}'/>" for number in ids) + "</cpus>"


def ids(listed):
    return [cpu.id for cpu in listed]


def listed(text):
    return set(CpuSet.parse(text)) if text else set()


def as_libvirt_knows_it(topology):
    """Return the topology without what libvirt does not report."""

    def known(cpu):
        return replace(
            cpu if cpu.online else Cpu.bare(cpu.id), isolated=False, core_type=None, capacity=None
        )

    cells = (replace(each, cpus=tuple(map(known, each.cpus))) for each in topology.cells)
    return Topology(tuple(cells), tuple(map(known, topology.unassigned)))


@pytest.mark.parametrize("name", WALKED)
def test_the_topology_of_a_machine_matches_its_files(read, name):
    machine, found = MACHINES[name], read(name)
    present, online = listed(machine["present"]), listed(machine["online"])
    assert ids(found.cpus) == sorted(present)
    assert {cpu.id for cpu in found.cpus if cpu.online} == online
    cores = {number: core for core in machine["cores"] for number in listed(core[4])}
    by_id = {cpu.id: cpu for cpu in found.cpus}
    for cpu in found.cpus:
        assert cpu.siblings == (listed(cores[cpu.id][4]) if cpu.id in cores else {cpu.id})
        assert all(by_id[other].siblings == cpu.siblings for other in cpu.siblings)
    for cell in found.cells:
        cpus, memory, distances = machine["nodes"].get(
            cell.id, machine["nodes"].get(str(cell.id), [machine["present"], 2048, []])
        )
        assert cell.memory_kib == memory
        known = distances if len(distances) == len(machine["nodes"]) else []
        assert list(cell.distances.values()) == [each for each in known if each]
        assert cell.distances.get(cell.id, 10) == 10
        # No kernel has a CPU on several nodes, but that of a buggy firmware.
        if name not in ("linux/8em64t-2s2ca2c-buggynuma", "linux/fakeheterocpunuma"):
            assert listed(cpus) & present <= set(ids(cell.cpus))
    assert sum(len(cell.cpus) for cell in found.cells) + len(found.unassigned) == len(present)
    caches = {cache for cell in found.cells for cache in cell.caches}
    assert len(caches) == len(machine.get("caches", ()))


@pytest.mark.parametrize("name", WALKED)
def test_the_topology_of_a_machine_can_be_sent_and_drawn(read, name):
    found = read(name)
    assert Topology.from_json(json.loads(json.dumps(found.to_json()))) == found
    drawn = picture.draw(found, [], Rules())
    assert drawn.startswith(f"{len(found.cpus)} CPU")


@pytest.mark.parametrize("name", [name for name in WALKED if MACHINES[name]["nodes"]])
def test_libvirt_and_the_kernel_report_the_same_for_a_machine(read, tree, tmp_path, name):
    connection = machines.Libvirt(MACHINES[name])
    by_kernel, by_libvirt = as_libvirt_knows_it(read(name)), capabilities.read(connection)
    files = KernelFiles(system=tree(name), cgroup=tmp_path)
    here, there = host.read(connection, files), host.read_libvirt(connection)
    assert not files.visibility.gaps()
    assert (there.online, there.nodes) == (here.online, here.nodes)
    assert ids(by_kernel.cpus) == list(here.present)
    assert ids(by_libvirt.cpus) == list(there.present)
    if here.present == there.present:
        assert by_libvirt.cells == by_kernel.cells


@pytest.mark.parametrize(
    ("name", "phantoms", "missing"),
    [
        # This libvirt lists CPUs of a node that only could be there, up to the last that is.
        ("linux/nvidiagpunumanodes", "16-87", ""),
        ("numbers with holes", "4-7", ""),
        # And this one does not list CPUs that are offline.
        ("threads switched off", "", "4-7"),
        ("linux/offline-cpu0-node0", "", "0,2,22"),
    ],
)
def test_details_of_offline_cpus_are_unknown_to_libvirt_alone(read, name, phantoms, missing):
    by_libvirt = set(host.read_libvirt(machines.Libvirt(MACHINES[name])).present)
    by_kernel = set(ids(read(name).cpus))
    assert by_libvirt - by_kernel == listed(phantoms)
    assert by_kernel - by_libvirt == listed(missing)


def test_possible_cpus_that_are_not_present_are_left_out(read, tree, tmp_path):
    found = read("numbers with holes")
    assert [ids(cell.cpus) for cell in found.cells] == [[0, 1, 2, 3], [8, 9, 10, 11]]
    assert found.cells[0].cpus[3] == Cpu.bare(3)
    files = KernelFiles(system=tree("numbers with holes"), cgroup=tmp_path)
    connection = machines.Libvirt(MACHINES["numbers with holes"])
    assert host.read(connection, files).present == listed("0-3,8-11")


def test_offline_cpus_stay_in_their_node_where_the_kernel_reports_it(read):
    found = read("offline CPUs that only their own links name")
    assert [(cell.id, ids(cell.cpus)) for cell in found.cells] == [
        (0, [0, 1, 4]),
        (8, [2, 3, 5, 6]),
    ]
    assert found.unassigned == (Cpu.bare(7),)
    assert found.cells[1].distances == {0: 20, 8: 10}
    assert found.isolated == CpuSet()


def test_a_cpu_of_no_node_has_a_core_and_may_be_isolated(read, monkeypatch):
    machine = machines.ODD["memory without CPUs"]
    nodes = {**machine["nodes"], 1: ["", *machine["nodes"][1][1:]]}
    changed = {**machine, "nodes": nodes, "isolated": "3"}
    monkeypatch.setitem(MACHINES, "CPUs of no node", changed)
    found = read("CPUs of no node")
    assert ids(found.unassigned) == [2, 3]
    assert found.isolated == {3}
    assert found.cores[2] == {2, 3}
    assert sorted(found.shared_cores, key=min) == [{0, 1}, {2, 3}]


def test_an_offline_cpu_that_the_kernel_still_reports_keeps_its_core(tmp_path):
    system = machines.write(MACHINES["threads switched off"], tmp_path)
    folder = system / "cpu/cpu5/topology"
    folder.mkdir(parents=True)
    for name, number in {"physical_package_id": 1, "die_id": 2, "core_id": 3}.items():
        (folder / name).write_text(f"{number}\n")
    cpu = machines.topology(KernelFiles(system=system, cgroup=tmp_path)).cpus[5]
    assert cpu == Cpu(5, 1, 2, 3, CpuSet([5]), online=False)


def test_shared_cores_are_those_of_several_cpus_only(read):
    assert sorted(read("cores of two types").shared_cores, key=min) == [{0, 1}, {2, 3}]
    assert read("threads switched off").shared_cores == []


def test_types_of_cores_are_those_of_their_counters(read):
    found = read("cores of two types")
    assert [cpu.core_type for cpu in found.cpus] == ["performance"] * 4 + ["efficiency"] * 4
    assert [cpu.capacity for cpu in found.cpus] == [1024] * 4 + [610] * 4


def test_isolated_cpus_are_those_of_either_kernel_option(read):
    assert read("cores of two types").isolated == {2, 3, 4, 5}


def test_cores_that_compute_clearly_less_are_efficient(read):
    found = read("cores that are rated")
    assert [cpu.core_type for cpu in found.cpus] == ["performance"] * 4 + ["efficiency"] * 3 + [
        None
    ]
    (cell,) = found.cells
    assert (cell.id, cell.memory_kib, cell.free_kib) == (0, 2048, 1024)


@pytest.mark.parametrize(("least", "kinds"), [(972, {"efficiency", "performance"}), (973, {None})])
def test_cores_that_compute_little_less_are_alike(read, monkeypatch, least, kinds):
    machine = machines.ODD["cores that are rated"]
    cores = [[0, 0, 0, 1024, "0-3"], [0, 0, 1, least, "4-6"]]
    monkeypatch.setitem(MACHINES, f"rated {least}", {**machine, "cores": cores, "present": "0-6"})
    assert {cpu.core_type for cpu in read(f"rated {least}").cpus} == kinds


def test_one_type_of_counters_is_no_difference(read, monkeypatch):
    machine = machines.ODD["cores of two types"]
    monkeypatch.setitem(MACHINES, "alike", {**machine, "types": {"cpu_core": "0-7"}})
    assert {cpu.core_type for cpu in read("alike").cpus} == {None}


def test_caches_of_single_cores_are_left_out(read, monkeypatch):
    machine = machines.ODD["threads switched off"]
    caches = [[2, "both", 1024, "0"], [3, "code", 2048, "0-2"], [4, "data", 4096, "0-3"]]
    monkeypatch.setitem(MACHINES, "cached", {**machine, "caches": caches})
    (cell,) = read("cached").cells
    assert cell.caches == (
        Cache(3, "code", 2048, CpuSet(range(3))),
        Cache(4, "data", 4096, CpuSet(range(4))),
    )


def test_a_cache_that_cores_share_is_read_once(tmp_path, monkeypatch):
    machine = machines.ODD["threads switched off"]
    caches = [[3, "both", 2048, "0-1"], [3, "both", 2048, "2-3"]]
    system = machines.write({**machine, "caches": caches}, tmp_path)
    for cpu in (0, 2):
        shutil.copytree(system / f"cpu/cpu{cpu}/cache", system / f"cpu/cpu{cpu + 1}/cache")
    read, opened = kernel_text.read_text, []

    def read_text(path):
        opened.append(Path(path).name)
        return read(path)

    monkeypatch.setattr(kernel_text, "read_text", read_text)
    (cell,) = machines.topology(KernelFiles(system=system, cgroup=tmp_path)).cells
    assert len(cell.caches) == opened.count("shared_cpu_list") == 2


def test_changing_values_are_read_again(tmp_path):
    system = machines.write(MACHINES["a node without memory"], tmp_path)
    files = KernelFiles(system=system, cgroup=tmp_path)
    free = [cell.free_kib for cell in machines.topology(files).cells]
    assert free == [1 << 19, 0, 1 << 19]
    (system / "node/node1/meminfo").write_text("Node 1 MemTotal: 8 kB\nNode 1 MemFree: 5 kB\n")
    (system / "node/has_memory").write_text("0-2\n")
    (system / "cpu/isolated").write_text("1\n")
    found = machines.topology(files)
    assert [(cell.memory_kib, cell.free_kib) for cell in found.cells][1] == (8, 5)
    assert found.isolated == {1}
    assert host.memory_nodes(files) == {0, 1, 2}
    (system / "cpu/online").write_text("0-3\n")
    assert [cpu.online for cpu in machines.topology(files).cpus] == [True] * 4 + [False] * 2


def test_values_that_the_kernel_does_not_report_are_read_from_libvirt(tmp_path):
    machine = MACHINES["a node without memory"]
    libvirt = machines.Libvirt(machine)
    libvirt_only = capabilities.read(libvirt, KernelFiles(system=tmp_path / "absent"))
    assert libvirt_only == capabilities.read(libvirt)
    both = capabilities.read(libvirt, KernelFiles(system=machines.write(machine, tmp_path)))
    assert ids(both.cpus) == ids(libvirt_only.cpus)


class Older:
    """A connection to a libvirt driver that has few functions, of a host without cells.

    :ivar answers: what the functions return that it has, or raise.
    """

    def __init__(self, xml, **answers):
        self.xml = xml
        self.answers = answers

    def _answer(self, name, *arguments):
        found = self.answers.get(name, unsupported())
        if isinstance(found, Exception):
            raise found
        return found[arguments[0]] if arguments else found

    def getCapabilities(self):  # noqa: N802
        return self.xml

    def getCPUMap(self):  # noqa: N802
        return 2, [True, False], 1

    def getInfo(self):  # noqa: N802
        return ["x86_64", 3, 2]

    def getFreeMemory(self):  # noqa: N802
        return self._answer("free")

    def getMemoryStats(self, cell):  # noqa: N802
        return self._answer("stats", cell)

    def getCellsFreeMemory(self, cell, count):  # noqa: N802
        return self._answer("cells", cell)[:count]


def unsupported(code=libvirt.VIR_ERR_NO_SUPPORT):
    error = libvirt.libvirtError("no")
    error.err = (code, 0, "no")
    return error


@pytest.mark.parametrize(("answers", "free"), [({"free": 5 << 10}, 5), ({}, None)])
def test_the_memory_of_a_host_without_cells_is_reported_by_libvirt(answers, free):
    (cell,) = capabilities.read(Older(written(), **answers)).cells
    assert (cell.id, cell.memory_kib, cell.free_kib) == (0, 3 << 10, free)
    assert [(cpu.id, cpu.online) for cpu in cell.cpus] == [(0, True), (1, False)]


@pytest.mark.parametrize(
    ("answers", "free"),
    [
        ({"stats": {0: {"free": 7}, 1: {"free": 8}}, "cells": {}}, [7, 8]),
        ({"cells": {0: [5 << 10, 0], 1: [6 << 10]}}, [5, 6]),
        ({}, [None, None]),
    ],
)
def test_free_memory_of_cells_is_requested_in_the_way_that_the_driver_supports(answers, free):
    xml = written((0, cpus(0)), (1, cpus(1)))
    found = capabilities.read(Older(xml, **answers))
    assert [cell.free_kib for cell in found.cells] == free


def test_an_error_of_libvirt_for_another_reason_is_not_taken_as_unsupported():
    refused = unsupported(libvirt.VIR_ERR_ACCESS_DENIED)
    for xml, name in ((written(), "free"), (written((0, cpus(0))), "stats")):
        with pytest.raises(libvirt.libvirtError):
            capabilities.read(Older(xml, **{name: refused}))


def test_a_real_host():
    found = capabilities.parse(REAL, REAL_CPUS, free_kib={0: 900996})
    first, second = found.cells
    assert (first.id, first.memory_kib, first.free_kib) == (0, 984716, 900996)
    assert (second.id, second.memory_kib, second.free_kib) == (1, 1030832, None)
    assert second.distances == {0: 20, 1: 10}
    assert second.cpus[1] == Cpu(5, 1, 1, 1, CpuSet([5]), True)
    assert found.unassigned == ()


def test_details_of_an_offline_cpu_are_ignored():
    found = capabilities.parse(REAL, REAL_CPUS)
    assert found.cells[0].cpus[3] == Cpu.bare(3)


def test_a_cache_counts_once_however_often_it_is_reported():
    found = capabilities.parse(REAL, REAL_CPUS)
    assert found.cells[0].caches == (Cache(3, "both", 16 << 10, CpuSet.parse("0-3")),)
    assert found.cells[1].caches == (Cache(3, "both", 16 << 10, CpuSet.parse("4-7")),)


def test_siblings_and_caches_are_read():
    cell = (
        "<memory unit='GiB'>2</memory><cpus>"
        "<cpu id='0' socket_id='1' core_id='4' siblings='0,2'/>"
        "<cpu id='2' socket_id='1' core_id='4' siblings='0,2'/></cpus>"
    )
    bank = "<bank id='0' level='{}' type='data' size='{}' unit='KiB' cpus='{}'/>"
    banks = ((3, 512, "0,2"), (3, 256, "1"), (2, 128, "0"))
    xml = written((0, cell), cache="".join(bank.format(*each) for each in banks))
    found = capabilities.parse(xml, Host(CpuSet(range(3)), CpuSet([0, 2])))
    (read,) = found.cells
    assert read.memory_kib == 2 << 20
    assert read.cpus[2] == Cpu(2, 1, 0, 4, CpuSet([0, 2]), True)
    assert [cache.size_kib for cache in read.caches] == [512, 256]


def test_offline_and_foreign_siblings_are_left_out():
    cpu = "<cpus><cpu id='{}' socket_id='0' core_id='1' siblings='{}'/></cpus>"
    there = Host(CpuSet(range(4)), CpuSet([0, 2]))
    for number, siblings, expected in ((0, "0-1", {0}), (2, "0", {2}), (2, "", {2})):
        found = capabilities.parse(written((0, cpu.format(number, siblings))), there)
        assert found.cores[number] == expected


def test_a_cpu_that_libvirt_lists_and_that_is_not_present_is_left_out():
    xml = written((0, cpus(0, 1)), (1, cpus(2, 3)))
    found = capabilities.parse(xml, Host(CpuSet([0, 2, 3]), CpuSet([0, 2])))
    assert [ids(cell.cpus) for cell in found.cells] == [[0], [2, 3]]


def test_a_cpu_without_a_cell_in_libvirt_belongs_to_no_cell():
    xml = written((0, cpus(0)), (1, cpus(2)))
    found = capabilities.parse(xml, Host(CpuSet(range(3)), CpuSet([0, 2])))
    assert found.unassigned == (Cpu.bare(1),)
    assert ids(found.cpus) == [0, 1, 2]


def test_all_cpus_belong_to_the_only_cell():
    found = capabilities.parse(written((0, cpus(0))), Host(CpuSet(range(2)), CpuSet([0])))
    assert ids(found.cells[0].cpus) == [0, 1]


def test_a_host_without_numa_is_one_cell():
    found = capabilities.parse(
        written(), Host(CpuSet(range(2)), CpuSet([0])), memory_kib=4096, free_kib={0: 1024}
    )
    (cell,) = found.cells
    assert (cell.id, cell.memory_kib, cell.free_kib) == (0, 4096, 1024)
    assert [cpu.online for cpu in cell.cpus] == [True, False]


def test_cells_need_no_cpus_and_no_order():
    xml = written((3, "<memory unit='KiB'>7</memory>"), (0, cpus(0)))
    found = capabilities.parse(xml, Host(CpuSet(range(1)), CpuSet([0])))
    assert [(cell.id, ids(cell.cpus)) for cell in found.cells] == [(0, [0]), (3, [])]


def test_a_host_without_cells_has_all_cpus_that_libvirt_counts():
    there = host.parse_libvirt(written(), (4, [True, False, True, False, False], 2))
    assert (there.present, there.online, there.nodes) == ({0, 1, 2, 3}, {0, 2}, {0})


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("numbers with holes", {0: "0", 1: "1"}),
        # By what its CPUs measure, not by what the others do.
        ("a node without memory", {0: "0", 1: "2", 2: "2"}),
        ("memory without CPUs", {0: "0,2", 1: "1,3"}),
        # No distance is reported.
        ("memory that the firmware keeps", {0: "0", 1: "0"}),
        ("linux/fakememinitiators-1np2c+1npp+gi", {0: "5,7", 1: "8,10", 2: "6-7", 3: "9-10"}),
        # Equally far from all, so near to all.
        ("linux/fakeheteromemtiers", {0: "0,4,6,8-9", 1: "1,4,6,8-9", 2: "2,4,6,8-9"}),
        ("linux/nvidiagpunumanodes", {0: "0,250-255", 8: "8,250-255"}),
    ],
)
def test_memory_is_near_to_cpus(read, name, near):
    assert {cell: str(nodes) for cell, nodes in read(name).near_memory().items()} == near


def test_memory_is_near_by_the_distance_of_the_other_cell_where_one_is_missing():
    (cpu,) = (Cpu.bare(0),)
    cells = (
        Cell(0, 0, cpus=(cpu,)),
        Cell(1, 1, distances={0: 30}),
        Cell(2, 1, distances={0: 20}),
    )
    # Both have no CPUs, so they are near to the only ones anyway.
    assert Topology(cells).near_memory() == {0: {1, 2}}
    with_cpus = tuple(replace(cell, cpus=(Cpu.bare(cell.id),)) for cell in cells)
    assert Topology(with_cpus).near_memory() == {0: {2}, 1: {1}, 2: {2}}


def test_a_host_that_reports_no_memory_has_memory_everywhere():
    cells = tuple(Cell(n, 0, cpus=(Cpu.bare(n),)) for n in range(2))
    assert Topology(cells).near_memory() == {0: {0}, 1: {1}}


def test_its_json_names_the_units():
    shown = capabilities.parse(REAL, REAL_CPUS, free_kib={0: 1, 1: 2}).to_json()
    assert json.loads(json.dumps(shown)) == shown
    cell = shown["cells"][0]
    assert (cell["memory_kib"], cell["free_kib"]) == (984716, 1)
    assert cell["distances"] == {"0": 10, "1": 20}
    assert cell["caches"] == [{"level": 3, "kind": "both", "size_kib": 16384, "cpus": "0-3"}]
    assert cell["cpus"][2] == {
        "id": 2,
        "socket": 0,
        "die": 0,
        "core": 2,
        "siblings": "2",
        "online": True,
        "isolated": False,
        "core_type": None,
        "capacity": None,
    }
    assert shown["unassigned_cpus"] == []


def test_the_json_of_an_older_host_is_read():
    (cpu,) = (Cpu(1, 0, 0, 0, CpuSet([1]), online=True),)
    shown = cpu.to_json()
    for name in ("isolated", "core_type", "capacity"):
        del shown[name]
    assert Cpu.from_json(shown) == cpu
