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

"""What instance metadata asks for."""

from hypothesis import given
from hypothesis import strategies as st
import pytest

from kongming import exception, metadata
from kongming.allocation import Allocation, VcpuPinning
from kongming.cpuset import CpuSet
from kongming.tests.unit.test_cpuset import cpusets

KEY = "kongming-vcpu-pinning"

maps = st.dictionaries(st.integers(0, 300), cpusets, min_size=1, max_size=6)


def pinning(value):
    return metadata.parse({KEY: value}).vcpu_pinning


def test_a_cpuset_is_for_all_vcpus():
    assert pinning("5-6,9-11,^10").resolve(2) == {0: {5, 6, 9, 11}, 1: {5, 6, 9, 11}}


def test_a_map_names_vcpus():
    assert pinning(" 0:5 ; 1 : 6;2-3:9-11,^10").resolve(8) == {
        0: {5}, 1: {6}, 2: {9, 11}, 3: {9, 11},
    }  # fmt: skip


def test_the_vcpu_side_of_a_map_is_a_cpuset_too():
    assert set(pinning("0-5,^2:1;2:3").resolve(6)) == {0, 1, 2, 3, 4, 5}


@given(maps)
def test_a_written_map_reads_back(pins):
    written = ";".join(f"{vcpu}:{cpus}" for vcpu, cpus in pins.items())
    assert metadata.parse_vcpu_pinning(written) == VcpuPinning.of_map(pins)


@given(maps.map(VcpuPinning.of_map) | cpusets.map(lambda cpus: VcpuPinning(every=cpus)))
def test_the_json_form_reads_back(wanted):
    allocation = Allocation(vcpu_pinning=wanted)
    assert Allocation.from_json(allocation.to_json()) == allocation


@given(st.text("0123456789-^,:; x", max_size=80) | st.text(max_size=80))
def test_any_text_is_a_pinning_or_refused(text):
    try:
        assert pinning(text)
    except exception.RequestInvalid as refusal:
        assert str(refusal).startswith(f"metadata {KEY}: ")
        assert str(refusal).isprintable()


@given(
    st.dictionaries(
        st.text(max_size=20) | st.just(KEY),
        st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text()),
    )
)
def test_any_metadata_is_an_allocation_or_refused(whatever):
    try:
        allocation = metadata.parse(whatever)
    except exception.Refused as refusal:
        assert refusal.reason in {"request_invalid", "request_key_unknown"}
    else:
        assert bool(allocation) == (KEY in whatever)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("", "the value is empty"),
        (" \t", "the value is empty"),
        (None, "not a text but a NoneType"),
        (5, "not a text but a int"),
        (["5"], "not a text but a list"),
        ("5" * 256, "256 characters"),
        (";", "item '' at position 1 is not of the form vcpus:cpuset"),
        ("0:5;", "item '' at position 5 is not of the form"),
        ("0:5;6", "item '6' at position 5 is not of the form"),
        ("0:5;x:6", "item 'x' at position 5"),
        ("0:5;1:6,x", "item 'x' at position 9"),
        ("0:", "empty item at position 3"),
        (":5", "empty item at position 1"),
        ("0:1:2", "item '1:2' at position 3"),
        ("0:5;0:6", "item '0:6' at position 5 names vCPU 0 again"),
        ("0-3:5;2:6", "names vCPU 2 again"),
        ("^1:5", "only excludes"),
    ],
)
def test_refusal_names_key_item_and_position(value, says):
    with pytest.raises(exception.RequestInvalid) as refusal:
        metadata.parse({KEY: value})
    assert str(refusal.value).startswith(f"metadata {KEY}: ")
    assert says in str(refusal.value)


def test_what_is_not_ours_asks_for_nothing():
    assert not metadata.parse({})
    assert not metadata.parse({"other": "x", "Kongming-vcpu-pinning": "y", "kongming": "z"})


def test_a_misspelt_key_is_refused_with_the_known_ones():
    with pytest.raises(exception.RequestKeyUnknown, match=r"'kongming-vcpu-pining'.*vcpu-pinning"):
        metadata.parse({"kongming-vcpu-pining": "1", KEY: "1"})


def test_a_vcpu_that_the_guest_lacks_is_refused():
    with pytest.raises(exception.VcpuUnknown, match="vCPU 4,7 does not exist.*0 to 3"):
        pinning("0:1;4,7:2").resolve(4)


def test_an_allocation_is_a_value():
    one = Allocation(VcpuPinning(every=CpuSet([1])))
    assert one == metadata.parse({KEY: "1"})
    assert hash(one) == hash(metadata.parse({KEY: " 1"}))
    assert one
    assert not Allocation()
