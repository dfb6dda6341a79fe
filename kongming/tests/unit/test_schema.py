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
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
import jsonschema
import pytest

import kongming
from kongming import exception, metadata
from kongming.allocation import Allocation
from kongming.schema import ALLOCATION, read

NIGHT = {"name": "night", "start": "0 22 * * *", "duration_s": 28800}


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(ALLOCATION)


def test_the_documented_schema_is_up_to_date():
    file = Path(kongming.__file__).parents[1] / "doc/source/reference/allocation.schema.json"
    assert json.loads(file.read_text()) == ALLOCATION, f"python -m kongming.schema > {file}"


def test_all_that_can_be_asked():
    asked = metadata.parse(
        {
            "kongming-vcpu-pinning": "0:1;1:2",
            "kongming-emulator-pinning": "0",
            "kongming-iothread-pinning": "0",
            "kongming-numa-nodes": "0",
            "kongming-cpu-shares": "200",
            "kongming-vcpu-quota": "50%",
        }
    )
    assert read(asked.to_json()) == asked
    written = {**asked.to_json(), "windows": [{**NIGHT, "vcpu_quota": "none"}]}
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
        ({"windows": [{**NIGHT, "windows": []}]}, r"windows\[0\]: Additional properties"),
        ({"windows": [{**NIGHT, "numa_nodes": "x"}]}, r"windows\[0\].numa_nodes: "),
        ({"windows": [NIGHT, NIGHT]}, "windows: two have the same name"),
    ],
)
def test_what_can_not_be_read_is_refused_with_its_place(value, words):
    with pytest.raises(exception.RequestInvalid, match=f"^{words}"):
        read(value)


keys = st.sampled_from([*ALLOCATION["properties"], "name", "start", "duration_s", "x", "0"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just("0-3") | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_anything_is_read_or_refused(value):
    try:
        allocation = read(value)
    except exception.RequestInvalid as refusal:
        assert "\n" not in str(refusal)
        return
    assert read(allocation.to_json()) == allocation


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
