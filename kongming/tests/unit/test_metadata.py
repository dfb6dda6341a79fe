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

"""What instance metadata requests."""

import json
import re

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from kongming import exception
from kongming.allocation import metadata, misspelt_keys, target
from kongming.allocation.allocation import Allocation
from kongming.allocation.cpuset import CpuSet
from kongming.allocation.pinning import Pinning
from kongming.allocation.target import NO_QUOTA, Quota
from kongming.tests.cost import cost, soon
from kongming.tests.thorough import examples
from kongming.tests.unit.strategies import WORST, cpusets, mappings

KEY = "kongming-vcpu-pinning"
VCPUS = [CpuSet(range(number)) for number in range(10)]

maps = st.dictionaries(st.integers(0, 300), cpusets, min_size=1, max_size=6)


def pinning(value):
    return metadata.parse({KEY: value}).vcpu_pinning


def test_a_cpuset_is_for_all_vcpus():
    assert pinning("5-6,9-11,^10").resolve(VCPUS[2]) == {0: {5, 6, 9, 11}, 1: {5, 6, 9, 11}}


def test_a_map_names_vcpus():
    assert pinning(" 0:5 ; 1 : 6;2-3:9-11,^10").resolve(VCPUS[8]) == {
        0: {5}, 1: {6}, 2: {9, 11}, 3: {9, 11},
    }  # fmt: skip


def test_the_vcpu_side_of_a_map_is_a_cpuset_too():
    assert set(pinning("0-5,^2:1;2:3").resolve(VCPUS[6])) == {0, 1, 2, 3, 4, 5}


@given(maps)
def test_a_written_map_reads_back(pins):
    written = ";".join(f"{vcpu}:{cpus}" for vcpu, cpus in pins.items())
    assert metadata.parse_vcpu_pinning(written) == Pinning.of_map(pins)


@given(maps.map(Pinning.of_map) | cpusets.map(lambda cpus: Pinning(every=cpus)))
def test_the_json_form_reads_back(value):
    allocation = Allocation(vcpu_pinning=value)
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
    ("value", "expected"),
    [
        ("", "the value is empty"),
        (" \t", "the value is empty"),
        (None, "not a string but a NoneType"),
        (5, "not a string but a int"),
        (["5"], "not a string but a list"),
        ("5" * 256, "256 characters, more than the limit of 255: use a run such as 0-63=4-67"),
        ("0-3=4-6", "item '0-3=4-6' at position 1 names 4 vCPUs and 3 CPUs"),
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
def test_refusal_names_key_item_and_position(value, expected):
    with pytest.raises(exception.RequestInvalid) as refusal:
        metadata.parse({KEY: value})
    assert str(refusal.value).startswith(f"metadata {KEY}: ")
    assert expected in str(refusal.value)


def test_keys_of_other_services_make_no_request():
    assert not metadata.parse({})
    assert not metadata.parse({"other": "x", "kongming": "z"})


def test_a_misspelt_key_is_refused_with_the_known_ones():
    with pytest.raises(exception.RequestKeyUnknown, match=r"'kongming-vcpu-pining'.*vcpu-pinning"):
        metadata.parse({"kongming-vcpu-pining": "1", KEY: "1"})


def lacking(requested, vcpus, iothreads):
    return [(type(each), str(each)) for each in requested.lacking(vcpus, CpuSet(iothreads))]


def test_vcpus_that_the_guest_lacks_are_reported_and_left_out():
    requested = metadata.parse({KEY: "0:1;4,7:2"})
    ((refusal, message),) = lacking(requested, 4, [])
    assert refusal is exception.VcpuUnknown
    assert re.match("vCPU 4,7 does not exist.*0 to 3", message)
    assert requested.resolve(4, CpuSet()) == {target.vcpu(0): {1}}
    assert lacking(requested, 8, []) == []


def test_iothreads_that_the_guest_lacks_are_reported_and_left_out():
    requested = metadata.parse({"kongming-iothread-pinning": "1:1;3:2"})
    assert set(requested.resolve(1, CpuSet([1, 2, 3]))) == {target.iothread(1), target.iothread(3)}
    assert lacking(requested, 1, [1, 2, 3]) == []
    ((refusal, message),) = lacking(requested, 1, [1])
    assert refusal is exception.IothreadUnknown
    assert re.match("iothread 3 does not.*the iothreads 1;", message)
    assert set(requested.resolve(1, CpuSet([1]))) == {target.iothread(1)}
    ((_, message),) = lacking(requested, 1, [])
    assert "iothread 1,3 does not exist: the guest has no iothreads" in message
    every = metadata.parse({"kongming-iothread-pinning": "1"})
    assert (every.resolve(1, CpuSet()), lacking(every, 1, [])) == ({}, [])


def test_vcpus_and_iothreads_that_a_guest_lacks_are_reported_together():
    requested = metadata.parse({KEY: "2:1", "kongming-iothread-pinning": "1:1"})
    assert [refusal for refusal, _ in lacking(requested, 2, [])] == [
        exception.VcpuUnknown,
        exception.IothreadUnknown,
    ]


IOTHREADS = "kongming-iothread-pinning"


def test_a_map_may_take_several_keys():
    values = {KEY: "0:5;1-3=6-8", f"{KEY}-2": "4-5:5", f"{KEY}-3": "6=9"}
    assert metadata.parse(values) == metadata.parse({KEY: "0,4-5:5;1-3=6-8;6=9"})
    more = {f"{IOTHREADS}-{number}": f"{number}:5" for number in range(2, 17)}
    requested = metadata.parse({IOTHREADS: "1:5", **more})
    assert requested == metadata.parse({IOTHREADS: "1-16:5"})


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({f"{KEY}-3": "4:5"}, f"{KEY}-3: it continues {KEY}-2, which is missing"),
        ({f"{KEY}-2": "4:5", f"{KEY}-4": "x"}, f"{KEY}-4: it continues {KEY}-3, which is"),
        ({f"{IOTHREADS}-2": "4:5"}, f"{IOTHREADS}-2: it continues {IOTHREADS}, which is missing"),
        ({f"{KEY}-2": "4"}, f"{KEY}-2: a cpuset for all vCPUs can't be continued"),
        ({KEY: "4", f"{KEY}-2": "4:5"}, f"{KEY}-2: a cpuset for all vCPUs can't be continued"),
        ({IOTHREADS: "4", f"{IOTHREADS}-2": "1:5"}, "for all iothreads can't be continued"),
        ({f"{KEY}-2": "4:5;0:6"}, f"{KEY}-2: it names vCPU 0 again: name each vCPU once"),
        ({f"{KEY}-2": "4-9=0-5", f"{KEY}-3": "7:6"}, f"{KEY}-3: it names vCPU 7 again"),
        ({f"{KEY}-2": "4:5;5:x"}, f"{KEY}-2: item 'x' at position 7"),
        ({f"{KEY}-2": " "}, f"{KEY}-2: the value is empty"),
        ({f"{KEY}-2": "4:5" + " " * 253}, f"{KEY}-2: the value has 256 characters"),
    ],
)
def test_a_wrong_continuation_is_refused_with_its_key(more, expected):
    with pytest.raises(exception.RequestInvalid) as refusal:
        metadata.parse({KEY: "0:5", **more})
    assert expected in str(refusal.value)
    assert str(refusal.value).startswith("metadata kongming-")


@pytest.mark.parametrize(
    "key",
    [
        *(
            f"{KEY}-{number}"
            for number in ("0", "1", "02", "17", "100", "", "-2", "2-2", "x", "\u0662")
        ),
        "kongming-numa-nodes-2",
        "kongming-emulator-pinning-2",
        "kongming-cpu-shares-2",
        "kongming--2",
        "kongming-2",
    ],
)
def test_an_invalid_continuation_key_is_unknown(key):
    with pytest.raises(exception.RequestKeyUnknown, match=r"can be continued by -2 to -16"):
        metadata.parse({KEY: "0:5", "kongming-numa-nodes": "0", key: "1:5"})


@settings(max_examples=examples(50))
@given(st.lists(mappings(), min_size=1, max_size=4))
def test_a_value_of_several_keys_is_written_in_keys_that_nova_accepts(found):
    texts, named = [], set()
    for text, pins in found:
        if len(text) <= metadata.MAX_LENGTH and named.isdisjoint(pins):
            named |= set(pins)
            texts.append(text)
    keys = [KEY, *(f"{KEY}-{number}" for number in range(2, 17))]
    requested = metadata.parse(dict(zip(keys, texts, strict=False)))
    written = metadata.write(requested)
    assert all(len(value) <= metadata.MAX_LENGTH for value in written.values())
    assert metadata.parse(written) == requested


@given(maps, cpusets, cpusets, st.none() | st.integers(1, 262_144))
def test_a_written_value_is_read_back(pins, emulator, nodes, shares):
    requested = Allocation(
        vcpu_pinning=Pinning.of_map(pins),
        emulator_pinning=emulator,
        iothread_pinning=Pinning(every=emulator),
        numa_nodes=CpuSet(number % 1024 for number in nodes),
        cpu_shares=shares,
    )
    assert metadata.parse(metadata.write(requested)) == requested


def test_exclusions_are_written_only_where_space_is_short():
    def written(first, last):
        cpus = CpuSet(number for number in range(first, last + 1) if number % 10)
        requested = Allocation(emulator_pinning=cpus, vcpu_pinning=Pinning(every=cpus))
        found = metadata.write(requested)
        assert metadata.parse(found) == requested
        (text,) = {*found.values()}
        return text, str(cpus)

    text, plain = written(9, 342)
    assert len(plain) == metadata.MAX_LENGTH
    assert text == plain
    text, plain = written(9, 352)
    assert len(plain) > metadata.MAX_LENGTH
    assert text.startswith("9-352,^10,^20,")


def test_a_value_that_fills_all_keys_is_written_in_the_same_number():
    values = [""]
    for number in range(0, 4096, 7):
        pin = f"{number}={4 * number % 8191}"
        if len(values[-1]) + len(pin) < metadata.MAX_LENGTH:
            values[-1] += f";{pin}" if values[-1] else pin
        elif len(values) < metadata.MAX_KEYS:
            values.append(pin)
    assert len(values) == 16
    assert len(values[-1]) > 245
    keys = [KEY, *(f"{KEY}-{number}" for number in range(2, 17))]
    requested = metadata.parse(dict(zip(keys, values, strict=True)))
    assert metadata.write(requested) == dict(zip(keys, values, strict=True))


@pytest.mark.parametrize(
    "value",
    [
        "0-8191" + "".join(f",^{number}" for number in range(100, 4300, 100)),
        ";".join(f"{number}:0-999,^{number}" for number in range(0, 170, 10)),
        "1-4095:0-999" + "".join(f",^{number}" for number in range(10, 900, 20)),
        ",".join(map(str, range(0, 130, 2))) + ":5",
    ],
)
def test_a_value_that_is_short_only_with_exclusions_is_written_with_them(value):
    requested = metadata.parse({KEY: value})
    written = metadata.write(requested)
    assert all(len(each) <= metadata.MAX_LENGTH for each in written.values())
    assert metadata.parse(written) == requested


@pytest.mark.parametrize("text", [*WORST.values(), "0" * 255, "0," * 127 + "0"], ids=repr)
def test_the_cost_of_reading_a_value_is_bounded_by_its_length(text):
    requested = metadata.parse({KEY: text})

    def everything():
        assert metadata.parse({KEY: text}) == requested
        assert metadata.parse(metadata.write(requested)) == requested
        requested.resolve(4, CpuSet())
        requested.lacking(4, CpuSet())

    # Python keeps something of each function that is traced for the first time.
    cost(everything)
    assert cost(everything).within(lines=1000 + 300 * len(text), peak=16_000 + 400 * len(text))


@pytest.mark.parametrize("text", WORST.values(), ids=WORST)
def test_a_refusal_is_no_longer_than_two_lines(text):
    requested = metadata.parse({KEY: text})
    if requested.vcpu_pinning.every is None:
        (refusal,) = requested.lacking(4, CpuSet())
        assert len(str(refusal)) < 250


@pytest.mark.parametrize("key", [key for key in metadata.KEYS if key != KEY])
@pytest.mark.parametrize("value", ["1{}x", "{}x", "1{}%x", "1{}/{}x", "1/1{}x"])
def test_blanks_are_normalized_in_every_key(key, value):
    value = value.format(*[" " * 500_000] * 2)
    with soon(), pytest.raises(exception.RequestInvalid):
        metadata.parse({key: value}, max_length=len(value))


ALL_KEYS = {
    KEY: "0:5;1:6",
    "kongming-emulator-pinning": "0-1",
    "kongming-iothread-pinning": "1:2",
    "kongming-numa-nodes": "1",
    "kongming-cpu-shares": " 200 ",
    "kongming-vcpu-quota": "50%",
}


def test_all_keys_together_are_one_allocation():
    assert set(ALL_KEYS) == set(metadata.KEYS)
    allocation = metadata.parse(ALL_KEYS)
    assert allocation.resolve(3, CpuSet([1])) == {
        target.vcpu(0): {5},
        target.vcpu(1): {6},
        target.EMULATOR: {0, 1},
        target.iothread(1): {2},
        target.MEMORY: {1},
        target.SHARES: 200,
        target.QUOTA: Quota(50_000, 100_000),
    }
    assert Allocation.from_json(json.loads(json.dumps(allocation.to_json()))) == allocation


@pytest.mark.parametrize("key", sorted(ALL_KEYS))
def test_one_bad_key_refuses_the_whole(key):
    with pytest.raises(exception.RequestInvalid, match=f"metadata {key}: "):
        metadata.parse(ALL_KEYS | {key: "x:y"})


@pytest.mark.parametrize(
    ("value", "quota"),
    [
        ("none", NO_QUOTA),
        ("50%", Quota(50_000, 100_000)),
        ("100 %", Quota(100_000, 100_000)),
        ("12.5%", Quota(12_500, 100_000)),
        ("1.001%", Quota(1_001, 100_000)),
        ("20000/100000", Quota(20_000, 100_000)),
        (" 1000 / 1000 ", Quota(1_000, 1_000)),
    ],
)
def test_quotas(value, quota):
    assert metadata.parse_vcpu_quota(value) == quota
    allocation = Allocation(vcpu_quota=quota)
    assert Allocation.from_json(allocation.to_json()) == allocation
    assert metadata.parse(metadata.write(allocation)) == allocation


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("50", "is not a percentage like 50%"),
        ("-1", "is not a percentage"),
        ("0.0001%", "is not a percentage"),
        ("\u0665\u0660%", "is not a percentage"),
        ("None", "is not a percentage"),
        ("0%", "no less than 1000 µs"),
        ("999/100000", "no less than 1000 µs"),
        ("101%", "more than one whole CPU"),
        ("200000/100000", "more than one whole CPU"),
        ("1000/999", "from 1000 to 1000000"),
        ("1000/1000001", "from 1000 to 1000000"),
    ],
)
def test_unlimited_and_unsupported_quotas_are_handled(value, expected):
    with pytest.raises(exception.RequestInvalid, match=re.escape(expected)):
        metadata.parse({"kongming-vcpu-quota": value})


@pytest.mark.parametrize("value", ["0", "262145", "1.5", "-5", "\u0665", "x", "1 2", "9" * 200])
def test_shares_are_a_number_within_the_range_of_the_kernel(value):
    with pytest.raises(exception.RequestInvalid, match="whole number from 1 to 262144"):
        metadata.parse({"kongming-cpu-shares": value})


def test_nodes_are_called_nodes():
    with pytest.raises(exception.RequestInvalid, match="leave at least one node"):
        metadata.parse({"kongming-numa-nodes": "1,^1"})


def test_an_allocation_is_a_value():
    one = Allocation(Pinning(every=CpuSet([1])))
    assert one == metadata.parse({KEY: "1"})
    assert hash(one) == hash(metadata.parse({KEY: " 1"}))
    assert one
    assert not Allocation()


@pytest.mark.parametrize(
    "key",
    [
        "Kongming-vcpu-pinning",
        "KONGMING-VCPU-PINNING",
        "kongming_vcpu_pinning",
        "kongming:vcpu-pinning",
        "kongming.vcpu.pinning",
        "kongming vcpu pinning",
        " kongming-vcpu-pinning",
        "_kongming-vcpu-pinning_",
        "Kongming__vcpu:-pinning",
    ],
)
def test_a_misspelt_kongming_key_is_refused_with_the_likely_one(key):
    with pytest.raises(exception.RequestKeyUnknown) as refusal:
        metadata.parse({key: "0", "role": "db"})
    assert f"{key!r} is not known; did you mean kongming-vcpu-pinning?" in str(refusal.value)
    with pytest.raises(exception.RequestKeyUnknown):
        metadata.parse({key: "0", KEY: "0"})


@pytest.mark.parametrize(
    "key", ["vcpu-pinning", "kongming", "mykongming-vcpu-pinning", "kongming_vcpu", "-", ""]
)
def test_keys_of_other_services_are_ignored(key):
    assert not metadata.parse({key: "0"})


def test_a_continuation_key_can_be_misspelt_too():
    known = {KEY}
    assert misspelt_keys.suggest("kongming_vcpu_pinning_2", known) == f"{KEY}-2"
    assert misspelt_keys.suggest("kongming_vcpu_pinning_1000", known) is None
    assert misspelt_keys.suggest(f"{KEY}-2", known) is None
    assert misspelt_keys.suggest(KEY, known) is None
