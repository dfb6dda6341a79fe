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

"""Reading the host's topology from what libvirt and the kernel say."""

import json
from pathlib import Path

import pytest

from kongming.cpuset import CpuSet
from kongming.hypervisor import capabilities
from kongming.hypervisor.host import Host
from kongming.hypervisor.topology import Cache, Cpu

REAL = (Path(__file__).parents[1] / "data/libvirt-9.0.0/capabilities.xml").read_text()
REAL_CPUS = Host(CpuSet(range(8)), CpuSet.parse("0-2,4-7"))


def written(*cells, cache=""):
    listed = "".join(f"<cell id='{number}'>{content}</cell>" for number, content in cells)
    cells = f"<topology><cells>{listed}</cells></topology>" if cells else ""
    return f"<capabilities><host>{cells}<cache>{cache}</cache></host></capabilities>"


def cpus(*ids):
    return "<cpus>" + "".join(f"<cpu id='{number}'/>" for number in ids) + "</cpus>"


def ids(listed):
    return [cpu.id for cpu in listed]


def test_a_real_host():
    host = capabilities.parse(REAL, REAL_CPUS, free_kib={0: 900996})
    first, second = host.cells
    assert (first.id, first.memory_kib, first.free_kib) == (0, 984716, 900996)
    assert (second.id, second.memory_kib, second.free_kib) == (1, 1030832, None)
    assert second.distances == {0: 20, 1: 10}
    assert second.cpus[1] == Cpu(5, 1, 1, 1, CpuSet([5]), True)
    assert host.homeless == ()


def test_what_is_told_of_an_offline_cpu_is_not_believed():
    host = capabilities.parse(REAL, REAL_CPUS)
    assert host.cells[0].cpus[3] == Cpu(3, None, None, None, CpuSet([3]), False)


def test_a_cache_is_one_however_often_it_is_told_of():
    host = capabilities.parse(REAL, REAL_CPUS)
    assert host.cells[0].caches == (Cache(3, "both", 16 << 10, CpuSet.parse("0-3")),)
    assert host.cells[1].caches == (Cache(3, "both", 16 << 10, CpuSet.parse("4-7")),)


def test_siblings_and_caches_are_read():
    cell = (
        "<memory unit='GiB'>2</memory><cpus>"
        "<cpu id='0' socket_id='1' core_id='4' siblings='0,2'/>"
        "<cpu id='2' socket_id='1' core_id='4' siblings='0,2'/></cpus>"
    )
    bank = "<bank id='0' level='2' type='data' size='{}' unit='KiB' cpus='{}'/>"
    told = written((0, cell), cache=bank.format(512, "0,2") + bank.format(256, "1"))
    host = capabilities.parse(told, Host(CpuSet(range(3)), CpuSet([0, 2])))
    (read,) = host.cells
    assert read.memory_kib == 2 << 20
    assert read.cpus[2] == Cpu(2, 1, 0, 4, CpuSet([0, 2]), True)
    assert [cache.size_kib for cache in read.caches] == [512, 256]


def test_a_cpu_that_is_left_out_is_at_home_where_the_kernel_says():
    told = written((0, cpus(0)), (1, cpus(2)))
    host = capabilities.parse(told, Host(CpuSet(range(4)), CpuSet([0, 2])), home={1: 1})
    assert [ids(cell.cpus) for cell in host.cells] == [[0], [1, 2]]
    assert ids(host.homeless) == [3]
    assert ids(host.cpus) == [0, 1, 2, 3]


@pytest.mark.parametrize("home", [{}, {1: 7}])
def test_or_homeless_where_nothing_is_known(home):
    told = written((0, cpus(0)), (1, cpus(2)))
    host = capabilities.parse(told, Host(CpuSet(range(3)), CpuSet([0, 2])), home=home)
    assert host.homeless == (Cpu(1, None, None, None, CpuSet([1]), False),)


def test_all_are_at_home_in_the_only_cell():
    host = capabilities.parse(written((0, cpus(0))), Host(CpuSet(range(2)), CpuSet([0])))
    assert ids(host.cells[0].cpus) == [0, 1]


def test_a_host_without_numa_is_one_cell():
    host = capabilities.parse(
        written(), Host(CpuSet(range(2)), CpuSet([0])), memory_kib=4096, free_kib={0: 1024}
    )
    (cell,) = host.cells
    assert (cell.id, cell.memory_kib, cell.free_kib) == (0, 4096, 1024)
    assert [cpu.online for cpu in cell.cpus] == [True, False]


def test_cells_need_no_cpus_and_no_order():
    told = written((3, "<memory unit='KiB'>7</memory>"), (0, cpus(0)))
    host = capabilities.parse(told, Host(CpuSet(range(1)), CpuSet([0])))
    assert [(cell.id, ids(cell.cpus)) for cell in host.cells] == [(0, [0]), (3, [])]


def test_the_kernel_tells_where_offline_cpus_are(tmp_path):
    for path in ("cpu0/node0", "cpu1/node0", "cpu10/node1", "cpuidle/node5", "cpu2/topology"):
        (tmp_path / path).mkdir(parents=True)
    assert capabilities.read_homes(tmp_path) == {0: 0, 1: 0, 10: 1}


def test_its_json_names_the_units():
    told = capabilities.parse(REAL, REAL_CPUS, free_kib={0: 1, 1: 2}).to_json()
    assert json.loads(json.dumps(told)) == told
    cell = told["cells"][0]
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
    }
    assert told["homeless_cpus"] == []
