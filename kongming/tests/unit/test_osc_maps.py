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
"""Map files of ``openstack kongming``: what applying one changes, and that one written is read."""

import json
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from osc_lib import exceptions
import pytest

from kongming import exception
from kongming.allocation import json_schema
from kongming.osc import columns, map_changes, map_file
from kongming.tests.databases import instance
from kongming.tests.thorough import examples

#: What YAML of some version takes for something else than text.
ODD = (
    "010",
    "1e3",
    "yes",
    "null",
    "0x1F",
    "0o17",
    "1_000",
    "2026-01-01",
    "off",
    "0b1",
    "NaN",
    "y",
)
CPUSETS = st.sampled_from(["0", "1-3", "010", "5-6,9-11,^10", "7,8", "12"])
PINNINGS = CPUSETS | st.dictionaries(st.integers(0, 63).map(str), CPUSETS, min_size=1)
QUOTAS = st.just("none") | st.fixed_dictionaries(
    {"quota_us": st.integers(1000, 9_999), "period_us": st.integers(10_000, 100_000)}
)
PARTS = st.fixed_dictionaries(
    {},
    optional={
        "vcpu_pinning": PINNINGS,
        "emulator_pinning": CPUSETS,
        "iothread_pinning": st.dictionaries(st.integers(1, 8).map(str), CPUSETS, min_size=1),
        "numa_nodes": CPUSETS,
        "cpu_shares": st.integers(2, 262144),
        "vcpu_quota": QUOTAS,
    },
)
NAMES = st.sampled_from(ODD) | st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True)
STARTS = st.sampled_from(["0 22 * * *", "30 1 * * mon-fri", "0 0 1 1 *", "*/30 * * * *"])
WINDOWS = st.builds(
    lambda name, start, duration_s, parts: {
        "name": name,
        "start": start,
        "duration_s": duration_s,
        **parts,
    },
    NAMES,
    STARTS,
    st.integers(60, 86_400),
    PARTS.filter(bool),
)


@st.composite
def allocations(draw):
    """Return an allocation as the API shows it."""
    written = draw(PARTS)
    windows = draw(st.lists(WINDOWS, max_size=2, unique_by=lambda window: window["name"]))
    if windows:
        written["windows"] = windows
    return json_schema.read(written).to_json()


MAPS = st.dictionaries(st.integers(1, 999).map(instance), allocations().filter(bool), max_size=4)


def a_map(requested, *, status="applied", **more):
    """Return a map as the API shows it."""
    return {
        "name": "blue",
        "generation": 3,
        "allocations": [
            {"instance_uuid": uuid, "status": status, "allocation": allocation}
            for uuid, allocation in requested.items()
        ],
        **more,
    }


@settings(max_examples=examples(50))
@given(requested=MAPS, form=st.sampled_from([map_file.YAML, map_file.JSON]))
def test_an_export_is_read_back_as_the_same_map(tmp_path_factory, requested, form):
    path = Path(tmp_path_factory.getbasetemp(), "map")
    path.write_text(map_file.write(a_map(requested), form))
    found = map_file.read(str(path))
    assert found == requested
    changes = map_changes.of(a_map(requested), found)
    assert changes.unchanged == sorted(requested)
    assert not changes.added + changes.changed + changes.released


@pytest.mark.parametrize("name", ODD)
def test_an_ambiguous_name_stays_a_string(tmp_path, name):
    window = {"name": name, "start": "0 1 * * *", "duration_s": 60, "cpu_shares": 5}
    requested = json_schema.read({"windows": [window]}).to_json()
    (tmp_path / "map").write_text(map_file.write(a_map({instance(): requested}), map_file.YAML))
    assert map_file.read(str(tmp_path / "map")) == {instance(): requested}


def test_an_export_names_the_generation():
    text = map_file.write(a_map({}), map_file.YAML)
    assert text.startswith("# The allocation map blue, generation 3.\n")
    assert json.loads(map_file.write(a_map({}), map_file.JSON)) == {"allocations": {}}


def test_allocations_in_release_are_not_exported_and_unreadable_ones_are_refused():
    assert "5a6e" not in map_file.write(a_map({instance(): None}, status="releasing"), "yaml")
    with pytest.raises(exceptions.CommandError, match=f"instance {instance()} can't be read"):
        map_file.write(a_map({instance(): None, instance(2): {"cpu_shares": 5}}), "yaml")


@pytest.mark.parametrize(
    "text", ["", "null", "---", "- ", "# nothing\n", "[]", '""', "allocations:", "allocations: []"]
)
def test_an_empty_document_is_no_map(tmp_path, text):
    (tmp_path / "map").write_text(text)
    with pytest.raises(exception.RequestInvalid, match="is not an object"):
        map_file.read(str(tmp_path / "map"))


@pytest.mark.parametrize("requested", ["{}", "{windows: []}", "{vcpu_pinning: {}}", "null"])
def test_an_instance_without_a_request_is_refused(tmp_path, requested):
    (tmp_path / "map").write_text(f"{instance()}: {requested}")
    with pytest.raises(exception.RequestInvalid, match=instance()):
        map_file.read(str(tmp_path / "map"))


def numbered(first, last, shares=5):
    return {instance(number): {"cpu_shares": shares} for number in range(first, last)}


def test_changes_are_the_differences():
    changes = map_changes.of(
        a_map(numbered(1, 4)), numbered(2, 3, 6) | numbered(3, 4) | numbered(7, 8)
    )
    assert changes.added == [instance(7)]
    assert changes.changed == [instance(2)]
    assert changes.released == [instance(1)]
    assert changes.unchanged == [instance(3)]
    shown = columns.of_changes("blue", 3, changes)
    assert shown["added"].human_readable() == f"{instance(7)}: cpu-shares=5"
    assert shown["changed"].human_readable() == f"{instance(2)}: cpu-shares=5 -> cpu-shares=6"
    assert shown["changed"].machine_readable() == {
        instance(2): {"from": {"cpu_shares": 5}, "to": {"cpu_shares": 6}}
    }
    assert shown["released"].machine_readable() == {instance(1): {"cpu_shares": 5}}
    assert shown["unchanged"].human_readable() == "1 instances"


def test_plans_are_shown_by_instance():
    step = {"target": "vCPU 0", "from": "0-7", "to": "1"}
    planned = {"instance_uuid": instance(1), "host": "compute-1", "outcome": "planned"}
    planned |= {"reason": "", "message": "", "warnings": ["shared"], "steps": [step, step]}
    refused = {
        **planned,
        "outcome": "refused",
        "reason": "overlap",
        "message": "CPU 1",
        "steps": [],
    }
    found = [planned, {**planned, "steps": [], "warnings": []}, {**refused, "host": None}]
    shown = columns.of_plans({"counts": {"planned": 2, "refused": 1}, "plans": found})
    assert shown["outcomes"].human_readable() == "2 planned, 1 refused"
    assert shown["plans"].human_readable().splitlines() == [
        f"{instance(1)} on compute-1: planned: vCPU 0 0-7 -> 1; vCPU 0 0-7 -> 1",
        "  warning: shared",
        f"{instance(1)} on compute-1: planned: nothing would be changed",
        f"{instance(1)}: refused (overlap): CPU 1",
        "  warning: shared",
    ]


def test_the_same_in_another_form_is_no_change():
    before = a_map({instance(): {"vcpu_pinning": "0-1,3"}})
    after = {instance(): json_schema.read({"vcpu_pinning": "3,1,0"}).to_json()}
    assert map_changes.of(before, after).unchanged == [instance()]


def test_an_unreadable_allocation_counts_as_changed_and_one_in_release_as_missing():
    changes = map_changes.of(a_map({instance(): None}), numbered(1, 2))
    assert changes.changed == [instance()]
    assert columns.of_changes("x", 1, changes)["changed"].human_readable() == (
        f"{instance()}: (can't be read) -> cpu-shares=5"
    )
    changes = map_changes.of(a_map({instance(): None}, status="releasing"), numbered(1, 2))
    assert changes.added == [instance()]


@pytest.mark.parametrize(
    ("before", "after", "empties", "most"),
    [
        (0, 0, False, False),
        (1, 0, True, False),
        (3000, 0, True, True),
        (9, 0, True, False),
        (10, 0, True, True),
        (10, 1, False, False),
        (11, 1, False, True),
        (20, 10, False, False),
        (21, 10, False, True),
    ],
)
def test_a_release_of_all_or_of_many_is_detected(before, after, empties, most):
    changes = map_changes.of(a_map(numbered(0, before)), numbered(0, after))
    assert (changes.empties, changes.releases_most) == (empties, most)


def test_a_map_that_is_replaced_as_a_whole_releases_all():
    changes = map_changes.of(a_map(numbered(0, 10)), numbered(50, 90))
    assert (changes.empties, changes.releases_most) == (False, True)


def test_every_allocation_of_a_missing_map_is_added():
    changes = map_changes.of(None, numbered(1, 3))
    assert changes.added == [instance(1), instance(2)]
