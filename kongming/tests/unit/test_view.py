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
"""A host's view: what the API shows of it is what the host was."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st
import libvirt

from kongming.allocation.cpuset import CpuSet
from kongming.host import snapshot
from kongming.host.occupant import Occupant
from kongming.host.rules import Overlap, Rules
from kongming.host.topology import EFFICIENCY, PERFORMANCE, Cache, Cell, Cpu, Topology
from kongming.hypervisor import capabilities, occupancy
from kongming.terminal import host_snapshot, picture
from kongming.tests.hosts import guest, host
from kongming.tests.thorough import examples

cpusets = st.frozensets(st.integers(0, 300), min_size=1).map(CpuSet)
known = st.none() | st.integers(0, 7)
cpus = st.builds(
    Cpu,
    st.integers(0, 300),
    known,
    known,
    known,
    cpusets,
    st.booleans(),
    isolated=st.booleans(),
    core_type=st.none() | st.sampled_from([PERFORMANCE, EFFICIENCY]),
    capacity=st.none() | st.integers(1, 1024),
)
cells = st.builds(
    Cell,
    id=st.integers(0, 63),
    memory_kib=st.integers(0),
    free_kib=st.none() | st.integers(0),
    distances=st.dictionaries(st.integers(0, 63), st.integers(10, 255)),
    cpus=st.lists(cpus).map(tuple),
    caches=st.lists(st.builds(Cache, st.integers(1, 4), st.text(), st.integers(0), cpusets)).map(
        tuple
    ),
)
topologies = st.builds(Topology, st.lists(cells).map(tuple), st.lists(cpus).map(tuple))
occupants = st.builds(
    Occupant,
    instance_uuid=st.uuids().map(str),
    name=st.text(),
    project_id=st.none() | st.text(),
    nova=st.booleans(),
    pins=st.dictionaries(st.integers(0, 300), cpusets),
    cpuset=st.none() | cpusets,
    memory_nodes=st.none() | cpusets,
    touched=st.booleans(),
)
rules = st.builds(
    Rules,
    allowed_cpus=st.none() | cpusets,
    reserved_cpus=cpusets | st.just(CpuSet()),
    dedicated_cpus=cpusets | st.just(CpuSet()),
    allowed_nodes=st.none() | cpusets,
    allowed_projects=st.frozensets(st.text()),
    overlap=st.sampled_from(Overlap),
    smt=st.sampled_from(Overlap),
)


def sent(value):
    """What arrives of a value's JSON, with a field that a later version may have."""
    return json.loads(json.dumps(value.to_json())) | {"later": 1}


@settings(max_examples=examples(25))
@given(topologies)
def test_a_topology_is_read_back(topology):
    assert Topology.from_json(sent(topology)) == topology


@given(occupants)
def test_an_occupant_is_read_back(occupant):
    assert Occupant.from_json(sent(occupant)) == occupant


@given(rules)
def test_the_rules_are_read_back(rules):
    assert Rules.from_json(sent(rules)) == rules


def test_a_view_is_drawn_as_the_host_was():
    there = host(2, 2, 2, offline=[7]), [guest(1, "0:1", nodes="0"), guest(2)]
    rules = Rules(reserved_cpus=CpuSet([0]))
    shown = json.loads(json.dumps(snapshot.to_json(*there, rules)))
    assert host_snapshot.draw(shown, 90) == picture.draw(*there, rules, 90)
    wrong = json.loads(json.dumps(snapshot.to_json(*there, Rules(reserved_cpus=CpuSet([1])))))
    assert "\n\nViolations\n  instance " in host_snapshot.draw(wrong)


def test_the_digest_covers_stable_fields_only():
    def digest(rules=Rules(), **more):  # noqa: B008
        return snapshot.digest(snapshot.to_json(host(2, 2, 1), [guest(1, "0:1", **more)], rules))

    shown = snapshot.to_json(host(2, 2, 1), [guest(1, "0:1")], Rules())
    shown["cells"][1]["free_kib"] += 4
    assert snapshot.digest(shown) == digest()
    assert len({digest(), digest(nodes="0"), digest(Rules(reserved_cpus=CpuSet([0])))}) == 3


def test_a_snapshot_of_libvirts_default_host_is_complete():
    connection = libvirt.openReadOnly("test:///default")

    def look():
        return snapshot.to_json(
            capabilities.read(connection), occupancy.Occupancy().read(connection), Rules()
        )

    shown = look()
    assert set(shown) == {"cells", "unassigned_cpus", "guests", "rules", "violations"}
    assert [each["name"] for each in shown["guests"]] == ["test"]
    assert snapshot.digest(shown) == snapshot.digest(look())
    assert host_snapshot.columns(shown)["guests"].human_readable().endswith(" test: floating")
