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

"""Pinnings: sets that are shared, runs, and what both cost."""

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from kongming import exception
from kongming.allocation.cpuset import IOTHREAD, VCPU, CpuSet
from kongming.allocation.pinning import Pinning
from kongming.tests.cost import cost
from kongming.tests.thorough import THOROUGH, examples
from kongming.tests.unit.strategies import WORST, mappings, runs, spaces


def parse(text, of=VCPU):
    return Pinning.parse(text, of)


def resolved(text, vcpus=4096):
    return parse(text).resolve(CpuSet(range(vcpus)))


@given(runs())
def test_a_run_equals_its_entries_one_by_one(run):
    text, pins = run
    assert resolved(text) == {number: {cpu} for number, cpu in pins.items()}


@given(mappings(), st.integers(0, 400))
def test_a_mapping_equals_its_entries(mapping, vcpus):
    text, pins = mapping
    there = {number: cpus for number, cpus in pins.items() if number < vcpus}
    assert resolved(text) == pins
    assert resolved(text, vcpus) == there
    missing = parse(text).missing(CpuSet(range(vcpus)))
    # Written as a run has its numbers: in no order, with steps.
    named = parse(f"{missing}={missing}").resolve(CpuSet(range(4096))) if missing else {}
    assert set(named) == set(pins) - set(there)


@given(mappings())
def test_the_written_form_and_the_json_form_read_back(mapping):
    text, _ = mapping
    pinning = parse(text)
    for form in (text, str(pinning), pinning.to_json()):
        read = Pinning.from_json(form, VCPU)
        assert (read, hash(read)) == (pinning, hash(pinning))
        assert Pinning.from_json(form) == pinning
        assert read.to_json() == pinning.to_json()


@given(runs(), st.data())
def test_a_run_is_written_in_no_more_characters_than_before(run, data):
    text, _ = run
    spaced = "".join(
        data.draw(spaces) + character if character in ",=-/" else character for character in text
    )
    assert parse(spaced) == parse(text)
    assert len(str(parse(spaced))) <= len(text)


@pytest.mark.parametrize(
    ("text", "pins"),
    [
        ("0-3=4-7", {0: 4, 1: 5, 2: 6, 3: 7}),
        ("0-62/2=0-31;1-63/2=64-95", {0: 0, 1: 64, 2: 1, 3: 65, 62: 31, 63: 95}),
        ("0-3=0,64,1,65", {0: 0, 1: 64, 2: 1, 3: 65}),
        ("3,0-2=5,8-20/12,9", {3: 5, 0: 8, 1: 20, 2: 9}),
        (" 0 - 3 / 3 = 7 , 6 ", {0: 7, 3: 6}),
        ("0-5/2=1-3", {0: 1, 2: 2, 4: 3}),
        ("00=007", {0: 7}),
        ("4095=8191", {4095: 8191}),
        ("0=5;1=5", {0: 5, 1: 5}),
    ],
)
def test_runs(text, pins):
    found = resolved(text)
    assert {number: found[number] for number in pins} == {
        number: {cpu} for number, cpu in pins.items()
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0-3=4-6", "item '0-3=4-6' at position 1 names 4 vCPUs and 3 CPUs"),
        ("0:5;1-2=4-6", "item '1-2=4-6' at position 5 names 2 vCPUs and 3 CPUs"),
        ("0,0=1,2", "item '0,0=1,2' at position 1 names vCPU 0 again: name each vCPU once"),
        ("0-4/2,4=1-4", "names vCPU 4 again"),
        ("0-4/2,1-9/4=1-7", "names 6 vCPUs and 7 CPUs: a run has a CPU for each vCPU"),
        ("0-3=1-4;2:6", "item '2:6' at position 9 names vCPU 2 again"),
        ("2:6;0-4/2=1-3", "item '0-4/2=1-3' at position 5 names vCPU 2 again"),
        ("0-1=5,5", "item '0-1=5,5' at position 1 names CPU 5 again: name each CPU once"),
        ("0-1=4-8/2,8", "names CPU 8 again"),
        ("0-1=1-2,^3", "item '^3' at position 9 excludes: a run has no exclusions"),
        ("0-2,^1=1-2", "item '^1' at position 5 excludes"),
        ("0-4/0=1", "item '0-4/0' at position 1 has a step of 0"),
        ("5/2=1", "item '5/2' at position 1 is not one of N, N-M and N-M/S"),
        ("0-3/x=1", "item '0-3/x' at position 1 is not one of N, N-M and N-M/S"),
        ("0-3/=1", "item '0-3/' at position 1 is not one of"),
        ("0-3/2/2=1", "item '0-3/2/2' at position 1 is not one of"),
        ("0-3/-1=1", "item '0-3/-1' at position 1 is not one of"),
        ("3-0=1", "item '3-0' at position 1 runs backwards: write 0-3"),
        ("0=1-8192", "item '1-8192' at position 3 has an id above 8191"),
        ("4096=1", "item '4096' at position 1 has an id above 4095"),
        ("0-9/9999=1,2", "item '0-9/9999' at position 1 has an id above 4095"),
        ("0=", "empty item at position 3: remove the superfluous comma or name a CPU"),
        ("=1", "empty item at position 1: remove the superfluous comma or name a vCPU"),
        ("0=1,,2", "empty item at position 5"),
        ("0=1=2", "item '1=2' at position 3 is not one of N, N-M and N-M/S"),
        ("0:1=2", "item '1=2' at position 3 is not one of N, N-M, ^N and ^N-M"),
        ("0=1;5", "item '5' at position 5 is not of the form vcpus:cpuset or vcpus=CPUs"),
        ("0=1;", "item '' at position 5 is not of the form"),
    ],
)
def test_refusals_name_item_and_position(text, expected):
    with pytest.raises(exception.RequestInvalid) as refusal:
        parse(text)
    assert expected in str(refusal.value)


def test_numbers_end_where_those_of_a_guest_do():
    assert parse("8191:0", IOTHREAD).missing(CpuSet()) == "8191"
    for text, of in (("4096:0", VCPU), ("0-4096=0-4096", VCPU), ("8192:0", IOTHREAD)):
        with pytest.raises(exception.RequestInvalid, match="above"):
            parse(text, of)


def test_an_accepted_mapping_is_read_whatever_the_rules_are_later():
    kept = {"0": "1", "0\n": "2", "9000": "3", "999999": "0-8191"}
    assert Pinning.from_json(kept).resolve(CpuSet([0, 9000])) == {0: {2}, 9000: {3}}
    for name in ("9000", "0\n", " 0"):
        with pytest.raises(exception.RequestInvalid):
            Pinning.from_json({name: "1"}, VCPU)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"0": "1", "0\n": "2"}, r"item '0\n' has white space in it"),
        ({"0": "1", "00": "2"}, "item '00' names vCPU 0 again"),
        ({"0-1": "1", "1": "2"}, "item '1' names vCPU 1 again"),
        ({"0-3": "1", "0-9,^4-9": "2"}, "item '0-9,^4-9' names vCPU 0 again"),
        ({"0=1": "1"}, "item '0=1' at position 1 is not one of"),
        ({"": "1"}, "empty item at position 1"),
        ({"0": "=1"}, "item '=1' at position 1 is not one of"),
    ],
)
def test_names_in_json_are_disjoint_sets(value, expected):
    with pytest.raises(exception.RequestInvalid) as refusal:
        Pinning.from_json(value, VCPU)
    assert expected in str(refusal.value)


def test_json_keeps_sets_apart_and_runs_together():
    assert parse("0:5;1:6").to_json() == {"0": "5", "1": "6"}
    assert parse("1:5;0:6;2:5").to_json() == {"0": "6", "1-2": "5"}
    assert parse("5-6").to_json() == "5-6"
    assert parse("2=7;0-1:5-6").to_json() == "0-1:5-6;2=7"
    assert Pinning.from_json({"0-63": "4-67"}, VCPU) == parse("0-63:4-67")
    assert Pinning.from_json("0-63=4-67", VCPU) == parse("0-63=4-67") != parse("0-63:4-67")


@pytest.mark.parametrize(
    "forms",
    [
        ("0-3=4-7", "0:4;1:5;2:6;3:7", "0,1-3=4,5-7", "3=7;0-2=4-6", "0-1=4-5;2:6;3=7"),
        ("0-1:5", "0=5;1=5", "0:5;1:5", "1:5;0=5"),
        ("0-3=3,2,1,0", "0:3;1:2;2:1;3:0", "3=0;0-2=3,2,1"),
        ("0-4/2=1-3", "4=3;0-2/2=1-2", "0:1;2:2;4:3"),
        ("0=9;1-3=0-2", "0:9;1:0;2:1;3:2", "0-1=9,0;2-3=1-2"),
        ("0-2=0-2;3-4=4-6/2", "0-1=0-1;2-4=2-6/2", "0:0;1:1;2:2;3:4;4:6"),
        ("0-62/2=0-31;1-63/2=64-95", "1-63/2,0-62/2=64-95,0-31"),
        ("0-1:5-6;2=7", "2:7;0:6,5;1:5-6"),
    ],
)
def test_the_same_mapping_is_equal_in_every_form(forms):
    pinnings = [parse(form) for form in forms]
    assert len({*pinnings}) == 1
    assert all(pinning == pinnings[0] for pinning in pinnings)


@settings(max_examples=examples(50))
@given(mappings())
def test_mappings_that_name_each_vcpu_are_equal_unless_runs_are_interleaved(mapping):
    text, pins = mapping
    singly = Pinning.of_map({number: CpuSet(cpus) for number, cpus in pins.items()})
    other = Pinning.of_map({number: CpuSet(cpus) ^ {8191} for number, cpus in pins.items()})
    assert parse(text) != other
    if singly == parse(text):
        assert hash(singly) == hash(parse(text))
    assert singly.resolve(CpuSet(range(4096))) == pins


@pytest.mark.parametrize(
    "other", ["0-3=4-6,8", "0-3=5-8", "0-2=4-6", "0-3:4-7", "4-7", "0-3=7,6,5,4", "0-3=4-10/2"]
)
def test_other_mappings_are_not_equal(other):
    assert parse("0-3=4-7") != parse(other)


def test_vcpus_that_the_guest_lacks_are_named_in_short():
    vcpus = CpuSet(range(4))
    assert parse("0-3=4-7").missing(vcpus) == ""
    assert parse("0-4=4-8").missing(vcpus) == "4"
    assert parse("0-63=4-67").missing(vcpus) == "4-63"
    assert parse("0-62/2=0-31;1-63/2=64-95;70,90:5").missing(vcpus) == "70,90,4-62/2,5-63/2"
    assert parse("0-5=0-5", IOTHREAD).missing(CpuSet([1, 3])) == "0,2,4-5"
    assert parse("5").missing(vcpus) == ""


def test_pinnings_are_joined():
    joined = parse("0:5;1-2=6-7").joined(parse("3:5;4=8"), VCPU)
    assert joined == parse("0,3:5;1-2=6-7;4=8")
    with pytest.raises(exception.RequestInvalid, match="names vCPU 2 again"):
        joined.joined(parse("2:5"), VCPU)
    for one, other in (("5", "0:5"), ("0:5", "5"), ("5", "5")):
        with pytest.raises(exception.RequestInvalid, match="for all vCPUs can't be continued"):
            parse(one).joined(parse(other), VCPU)


@pytest.mark.parametrize("text", WORST.values(), ids=WORST)
def test_cost_is_bounded_by_the_length(text):
    guest = CpuSet(range(4))
    pinning = parse(text)

    def everything():
        again = Pinning.from_json(parse(text).to_json(), VCPU)
        assert again == pinning
        assert hash(again) == hash(pinning)
        assert again != parse("0:1")
        assert len(pinning.missing(guest)) <= 2 * len(text)
        pinning.resolve(guest)

    assert cost(everything).within(lines=1000 + 200 * len(text), peak=40_000 + 400 * len(text))


LONG = {
    "pairs": lambda count: ";".join(f"{number}:{8191 - number}" for number in range(count)),
    "runs": lambda count: ";".join(f"{number}={8191 - number}" for number in range(count)),
    "a list": lambda count: "=".join(2 * [",".join(map(str, range(0, 2 * count, 2)))]),
    "steps": lambda count: ";".join(f"{n}-{n + 2048}/2048=0-1" for n in range(count)),
    "sets": lambda count: ";".join(f"{number}:0-8191,^{number}" for number in range(count)),
    "one set": lambda count: ";".join(f"{2 * number}:0-8191" for number in range(count)),
    "exclusions": lambda count: "0-4095" + "".join(f",^{3 * n}" for n in range(count)) + ":1",
}


COUNTS = (100, 1000) if THOROUGH else (20, 200)


@pytest.mark.parametrize("made", LONG.values(), ids=LONG)
def test_cost_grows_with_the_length_and_no_faster(made):
    def everything(text):
        pinning = parse(text)
        assert Pinning.from_json(pinning.to_json(), VCPU) == pinning
        assert hash(parse(str(pinning))) == hash(pinning)
        assert pinning.missing(CpuSet(range(0, 32, 2)))
        pinning.resolve(CpuSet(range(64)))

    few, many = (cost(lambda count=count: everything(made(count))) for count in COUNTS)
    # Quadratic would be a hundred times as much.
    assert many.within(lines=12 * few.lines, peak=25 * few.peak)
