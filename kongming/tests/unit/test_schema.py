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


import json
import re

from hypothesis import given
from hypothesis import strategies as st
import jsonschema
import pytest

from kongming import exception
from kongming.allocation import json_schema, metadata
from kongming.allocation.allocation import Allocation
from kongming.allocation.cpuset import CpuSet
from kongming.allocation.json_schema import (
    ALLOCATION,
    CPUSET_LENGTH,
    MAX_LENGTH,
    PROBLEMS_MAX,
    AllocationInvalid,
    read,
)
from kongming.tests.cost import cost
from kongming.tests.unit.strategies import WORST, mappings

NIGHT = {"name": "night", "start": "0 22 * * *", "duration_s": 28800}


def test_the_schema_is_valid():
    jsonschema.Draft202012Validator.check_schema(ALLOCATION)


def test_all_possible_requests_are_accepted():
    requested = metadata.parse(
        {
            "kongming-vcpu-pinning": "0:1;1:2",
            "kongming-emulator-pinning": "0",
            "kongming-iothread-pinning": "0",
            "kongming-numa-nodes": "0",
            "kongming-cpu-shares": "200",
            "kongming-vcpu-quota": "50%",
        }
    )
    assert read(requested.to_json()) == requested
    written = {**requested.to_json(), "windows": [{**NIGHT, "vcpu_quota": "none"}]}
    assert read(written).to_json()["windows"] == [
        {**NIGHT, "timezone": "UTC", "vcpu_quota": "none"}
    ]
    assert read({}) == Allocation()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "the allocation: None is not of type 'object'"),
        ([], "the allocation: "),
        ({"vcpus": "1"}, "the allocation: Additional properties"),
        ({"vcpu_pinning": 5}, "vcpu_pinning: "),
        ({"vcpu_pinning": {}}, "vcpu_pinning: "),
        ({"vcpu_pinning": {"x": "1"}}, "vcpu_pinning"),
        ({"vcpu_pinning": {"0": "1-"}}, "vcpu_pinning: item '1-' at position 1"),
        ({"vcpu_pinning": {"0": 1}}, "vcpu_pinning.'0': 1 is not of type"),
        ({"vcpu_pinning": {"\x1b\n" * 99: 1}}, r"vcpu_pinning.'(\\x1b\\n)+[^ ]*\.\.\.': 1 is not"),
        ({"vcpu_pinning": "0-3=4-6"}, "vcpu_pinning: item '0-3=4-6' at position 1 names 4 vCPUs"),
        ({"vcpu_pinning": "4096:1"}, "vcpu_pinning: item '4096' at position 1 has an id above"),
        ({"iothread_pinning": "1:x"}, "iothread_pinning: item 'x' at position 3"),
        ({"numa_nodes": "1024"}, "numa_nodes: item '1024' at position 1 has an id above 1023"),
        ({"vcpu_quota": {"quota_us": 1000001, "period_us": 1000000}}, "vcpu_quota"),
        ({"emulator_pinning": ""}, "emulator_pinning: "),
        ({"emulator_pinning": "^1"}, "emulator_pinning: "),
        ({"cpu_shares": 0}, "cpu_shares: 0 is less than the minimum"),
        ({"cpu_shares": True}, "cpu_shares: True is not of type"),
        ({"cpu_shares": "200"}, "cpu_shares: "),
        ({"vcpu_quota": "50%"}, "vcpu_quota: "),
        ({"vcpu_quota": {"quota_us": 2000, "period_us": 1000}}, "vcpu_quota: more than one whole"),
        ({"windows": [{}]}, r"windows\[0\]: "),
        ({"windows": [{**NIGHT, "duration_s": 1}]}, r"windows\[0\].duration_s: "),
        ({"windows": [{**NIGHT, "start": "x"}]}, "window night: start 'x'"),
        ({"windows": [{**NIGHT, "start": "0 0 * * ".ljust(257, "*")}]}, r"windows\[0\].start: "),
        ({"windows": [{**NIGHT, "start": ""}]}, r"windows\[0\].start: "),
        ({"windows": [{**NIGHT, "timezone": "x" * 65}]}, r"windows\[0\].timezone: "),
        ({"windows": [{**NIGHT, "timezone": ""}]}, r"windows\[0\].timezone: "),
        ({"windows": [{**NIGHT, "timezone": "localtime"}]}, "window night: 'localtime'"),
        ({"windows": [{**NIGHT, "name": "a b"}]}, "window name 'a b'"),
        ({"windows": [{**NIGHT, "name": str(number)} for number in range(33)]}, "windows: "),
        ({"windows": [{**NIGHT, "windows": []}]}, r"windows\[0\]: Additional properties"),
        ({"windows": [{**NIGHT, "numa_nodes": "x"}]}, r"windows\[0\].numa_nodes: "),
        ({"windows": [NIGHT, NIGHT]}, "windows: two have the same name"),
    ],
)
def test_an_unreadable_value_is_refused_with_its_place(value, words):
    with pytest.raises(exception.RequestInvalid, match=f"^{words}"):
        read(value)


def test_all_problems_of_an_allocation_are_named():
    window = {**NIGHT, "name": "a b", "numa_nodes": "x", "cpu_shares": 0}
    with pytest.raises(AllocationInvalid) as refusal:
        read({"x": 1, "vcpu_pinning": "1-", "cpu_shares": "a", "windows": [window]})
    problems = (refusal.value, *refusal.value.others)
    assert sorted(str(each).partition(": ")[0] for each in problems) == [
        "cpu_shares", "the allocation", "vcpu_pinning", "windows[0].cpu_shares",
        "windows[0].numa_nodes",
    ]  # fmt: skip
    with pytest.raises(AllocationInvalid) as refusal:
        read({"windows": [{**NIGHT, "start": "x"}, {**NIGHT, "timezone": "Nowhere"}]})
    assert len(refusal.value.others) == 2


def test_only_the_first_problems_are_named():
    with pytest.raises(AllocationInvalid) as refusal:
        read({"vcpu_pinning": {str(number): 1 for number in range(PROBLEMS_MAX + 1)}})
    assert len(refusal.value.others) == PROBLEMS_MAX - 1


keys = st.sampled_from([*ALLOCATION["properties"], "name", "start", "duration_s", "x", "0"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just("0-3") | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_any_value_is_read_or_refused(value):
    try:
        allocation = read(value)
    except exception.RequestInvalid as refusal:
        assert "\n" not in str(refusal)
        return
    assert read(allocation.to_json()) == allocation


def test_a_stored_request_is_read_whatever_the_rules_are_later():
    kept = {
        "vcpu_pinning": "1",
        "windows": [
            {
                "name": "night",
                "start": "0 22 * * *".ljust(300),
                "duration_s": 60,
                "timezone": "Mars/Olympus",
                "cpu_shares": 7,
            }
        ],
    }
    assert Allocation.from_json(kept).to_json() == kept
    with pytest.raises(exception.RequestInvalid):
        read(kept)
    for field in ("name", "start", "timezone"):
        with pytest.raises(TypeError):
            Allocation.from_json({"windows": [{**kept["windows"][0], field: 5}]})


def test_whole_numbers_are_whole_however_they_are_written():
    floats = read(
        {
            "vcpu_quota": {"quota_us": 10000.0, "period_us": 100000.0},
            "windows": [{"name": "night", "start": "0 22 * * *", "duration_s": 3600.0}],
        }
    )
    integers = read(
        {
            "vcpu_quota": {"quota_us": 10000, "period_us": 100000},
            "windows": [{"name": "night", "start": "0 22 * * *", "duration_s": 3600}],
        }
    )
    assert json.dumps(floats.to_json()) == json.dumps(integers.to_json())


@given(mappings())
def test_a_string_has_the_meaning_of_the_metadata(mapping):
    text, pins = mapping
    requested = read({"vcpu_pinning": text})
    assert requested == Allocation(vcpu_pinning=metadata.parse_vcpu_pinning(text))
    assert requested.vcpu_pinning.resolve(CpuSet(pins)) == pins
    assert (
        read(requested.to_json()) == read(json.loads(json.dumps(requested.to_json()))) == requested
    )


def test_two_names_of_the_same_vcpu_are_refused_however_they_are_written():
    for names in ("0", "00"), ("0", "0\n"), ("0-1", "1"), ("3", "0-9,^4"), ("7", "0007"):
        for kind in ("vcpu_pinning", "iothread_pinning"):
            with pytest.raises(exception.RequestInvalid, match=f"^{kind}: item "):
                read({kind: dict(zip(names, ("1", "2"), strict=True))})
    with pytest.raises(exception.RequestInvalid, match="white space"):
        read({"vcpu_pinning": {"0\n": "2"}})


def texts_of(part):
    """Everything in a schema of which the length is the caller's, with its place."""
    kinds = part.get("type", ())
    if "string" in kinds:
        yield part, "maxLength"
    if "array" in kinds:
        yield part, "maxItems"
    if "object" in kinds and part.get("additionalProperties", True) is not False:
        yield part, "maxProperties"
        yield part["propertyNames"], "maxLength"
    for name in ("items", "additionalProperties"):
        if isinstance(part.get(name), dict):
            yield from texts_of(part[name])
    for inner in (*part.get("properties", {}).values(), *part.get("oneOf", ())):
        yield from texts_of(inner)


def test_every_value_has_a_maximum_length():
    found = [*texts_of(json_schema.ALLOCATION)]
    assert len(found) >= 20
    assert [part for part, limit in found if limit not in part] == []


@pytest.mark.parametrize(
    ("name", "longest", "too_long"),
    [
        ("emulator_pinning", "0" * CPUSET_LENGTH, "0" * (CPUSET_LENGTH + 1)),
        ("numa_nodes", "0" * CPUSET_LENGTH, "0" * (CPUSET_LENGTH + 1)),
        ("vcpu_pinning", "0" * MAX_LENGTH, "0" * (MAX_LENGTH + 1)),
        ("vcpu_pinning", {"0": "0" * CPUSET_LENGTH}, {"0": "0" * (CPUSET_LENGTH + 1)}),
        ("iothread_pinning", {"0" * CPUSET_LENGTH: "0"}, {"0" * (CPUSET_LENGTH + 1): "0"}),
        (
            "vcpu_pinning",
            {str(number): "0" for number in range(4096)},
            {f"0{number}": "0" for number in range(4097)},
        ),
    ],
)
def test_a_value_that_is_too_long_is_refused_in_short(name, longest, too_long):
    assert read({name: longest})
    with pytest.raises(exception.RequestInvalid, match="too (long|many properties)") as refusal:
        read({name: too_long})
    assert len(str(refusal.value)) < 500


def test_every_cpuset_has_a_written_form_that_is_read():
    longest = CpuSet(number for number in range(8192) if number % 3)
    assert len(str(longest)) <= CPUSET_LENGTH
    assert read({"emulator_pinning": str(longest)}).emulator_pinning == longest


def test_an_allocation_is_no_longer_than_its_limit():
    cpus = CpuSet(number for number in range(8192) if number % 3)
    pins = {str(number): str(cpus - CpuSet([number * 3 + 1])) for number in range(4)}
    assert len(json.dumps(read({"vcpu_pinning": pins}).to_json())) <= MAX_LENGTH
    with pytest.raises(exception.RequestInvalid, match=f"more than {MAX_LENGTH}"):
        read({"vcpu_pinning": pins | {"10": str(cpus)}})


def test_an_allocation_may_be_as_long_as_its_limit(monkeypatch):
    requested = {"emulator_pinning": "0-8191", "cpu_shares": 200}
    monkeypatch.setattr(json_schema, "MAX_LENGTH", len(json.dumps(requested)))
    assert read(requested).to_json() == requested
    with pytest.raises(exception.RequestInvalid, match="has 50 characters .* more than 49"):
        read({**requested, "cpu_shares": 2000})


def test_a_quota_may_be_the_whole_period():
    assert read({"vcpu_quota": {"quota_us": 1000, "period_us": 1000}})
    with pytest.raises(exception.RequestInvalid, match="more than one whole CPU"):
        read({"vcpu_quota": {"quota_us": 1001, "period_us": 1000}})


def test_a_refusal_quotes_the_beginning_and_the_end_and_shows_the_expected_form():
    with pytest.raises(exception.RequestInvalid) as refusal:
        read({"numa_nodes": "7" * (CPUSET_LENGTH + 1)})
    quoted = f"'{'7' * 99}...{'7' * 87}' is too long"
    assert str(refusal.value) == f'numa_nodes: {quoted}; examples: "5-6,9-11,^10"'
    with pytest.raises(exception.RequestInvalid) as refusal:
        read({"cpu_shares": "1" * 170})
    assert str(refusal.value) == f"cpu_shares: '{'1' * 170}' is not of type 'integer'"


@pytest.mark.parametrize("text", WORST.values(), ids=WORST)
def test_the_cost_of_reading_an_allocation_is_bounded_by_its_length(text):
    written = {"vcpu_pinning": text}
    bound = {"lines": 4000 + 400 * len(text), "peak": 64_000 + 600 * len(text)}
    assert cost(lambda: read(read(written).to_json())).within(**bound)
    assert cost(lambda: Allocation.from_json(written).to_json()).within(**bound)


def test_no_pattern_ends_with_a_dollar():
    """Python's would let a newline through behind it."""
    assert not re.findall(r'"pattern": "[^"]*\$"', json.dumps(json_schema.ALLOCATION))
