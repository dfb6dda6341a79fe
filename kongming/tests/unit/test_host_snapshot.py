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

"""Snapshots of hosts as received or stored: the usable parts of them are used."""

import json

from hypothesis import given
from hypothesis import strategies as st
import pytest

from kongming import exception
from kongming.host.rules import Rules
from kongming.host.snapshot import to_json
from kongming.rpc import host_snapshot
from kongming.rpc.fields import Partial
from kongming.terminal import host_snapshot as drawing
from kongming.tests.databases import instance
from kongming.tests.hosts import guest, host
from kongming.tests.unit.strategies import json_values

GOOD = json.loads(json.dumps(to_json(host(2, 2, 2), [guest(1, "0:1"), guest(2)], Rules())))


def test_a_snapshot_of_an_executor_is_accepted_unchanged():
    assert host_snapshot.read(GOOD) == GOOD
    assert host_snapshot.fitted(GOOD) == GOOD


# Objects by number, which have no fields.
NUMBERED = {"pins", "distances", "vcpu_pinning", "iothread_pinning", "vcpu_cells"}


def newer(value, name=""):
    """Add fields of a newer executor to each object."""
    if isinstance(value, list):
        return [newer(each) for each in value]
    if not isinstance(value, dict) or name in NUMBERED:
        return value
    return {key: newer(each, key) for key, each in value.items()} | {"later": {"than": [1.5]}}


def older(value):
    """Remove them again."""
    if isinstance(value, list):
        return [older(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {key: older(each) for key, each in value.items() if key != "later"}


def test_additional_fields_of_a_newer_executor_are_kept_and_harmless():
    grant = {
        "vcpu_pinning": {"0": "1"},
        "emulator_pinning": "1",
        "iothread_pinning": {"1": "2"},
        "numa_nodes": "0",
        "vcpu_cells": {"0": 0},
        "realtime_vcpus": "",
    }
    good = GOOD | {"guests": [guest | {"grant": grant} for guest in GOOD["guests"]]}
    sent = newer(good)
    # At each level of objects.
    places = (sent, sent["cells"][0], sent["cells"][0]["cpus"][0], sent["guests"][0])
    assert all("later" in place for place in (*places, places[3]["grant"], sent["rules"]))
    read = host_snapshot.read(sent)
    assert read == sent
    assert older(read) == good
    assert drawing.draw(read) == drawing.draw(good)


def test_bad_parts_are_skipped_individually_and_named():
    bad = json.loads(json.dumps(GOOD))
    bad["guests"] += [
        {},
        {"instance_uuid": "x"},
        5,
        {"instance_uuid": instance(), "pins": {"a": "0"}},
    ]
    bad["cells"][0]["cpus"][0]["id"] = "0"
    bad["cells"][1]["caches"] = None
    bad["rules"]["overlap"] = 3
    bad["violations"] = "none"
    taken = host_snapshot.read(bad)
    assert isinstance(taken, Partial)
    assert [key for key, _ in taken.left_out] == [
        ".cells[0].cpus[0]",
        ".cells[1].caches",
        ".guests[2]",
        ".guests[3]",
        ".guests[4]",
        f".guests{instance()}.pins",
        ".rules.overlap",
        ".violations",
    ]
    assert [each["name"] for each in taken.value["guests"]] == [
        *(each["name"] for each in GOOD["guests"]),
        "",
    ]
    assert len(taken.value["cells"][0]["cpus"]) == 3
    assert taken.value["rules"]["overlap"] == "warn"


@pytest.mark.parametrize(
    ("cpus", "fit"),
    [
        ("", True),
        ("0-3,8", True),
        ("8191", True),
        ("3-3", True),
        ("8192", False),
        ("0-8192", False),
        ("3-2", False),
        ("0,", False),
        ("0-", False),
        ("^1", False),
        (" 1", False),
        ("1\n", False),
        (0, False),
        (None, False),
    ],
)
def test_a_set_of_ids_is_accepted_or_refused(cpus, fit):
    shown = {"guests": [{"instance_uuid": instance(), "pins": {"0": cpus}}]}
    assert host_snapshot.fitted(shown)["guests"][0]["pins"] == ({"0": cpus} if fit else {})


@pytest.mark.parametrize("value", [None, 5, "snapshot", [], [GOOD]])
def test_an_invalid_snapshot_is_refused(value):
    with pytest.raises(exception.MessageInvalid):
        host_snapshot.read(value)
    assert host_snapshot.fitted(value)["guests"] == []


def test_a_snapshot_longer_than_that_of_any_host_is_refused():
    with pytest.raises(exception.MessageInvalid, match="the limit of a host's snapshot"):
        host_snapshot.read({"later": "x" * (8 * 2**20)})


@given(json_values)
def test_any_value_can_be_drawn(value):
    for whole in (value, {"cells": [value]}, {"guests": [value]}, {"rules": value}):
        fitted = host_snapshot.fitted(whole)
        assert drawing.draw(fitted)
        assert all(each.human_readable() is not None for each in drawing.columns(fitted).values())


def test_a_snapshot_without_some_sets_is_drawn():
    kept = {
        "cells": [{"id": 0, "cpus": [{"id": 1}], "caches": [{"level": 3}]}],
        "guests": [{"instance_uuid": instance(), "pins": {"0": ""}, "cpuset": ""}],
        "rules": {"allowed_cpus": "", "allowed_nodes": ""},
    }
    assert "│ 1 XN" in drawing.draw(kept)
    assert drawing.columns(kept)["cells"].human_readable() == "0: CPUs 1, no memory"


@given(st.dictionaries(st.sampled_from(sorted(GOOD)), json_values))
def test_any_stored_snapshot_is_drawn_with_its_remaining_parts(changed):
    kept = host_snapshot.load(json.dumps(GOOD | changed))
    assert drawing.draw(kept)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (None, None),
        ("", None),
        ("{", None),
        ("[1]", None),
        ("5", None),
        ("[" * 100_000, None),
        ('{"a": 1e400, "b": NaN, "c": -Infinity}', {"a": None, "b": None, "c": None}),
        ('{"a": 1.5, "b": 2}', {"a": 1.5, "b": 2}),
        ('{"guests": [{}]}', {"guests": [{}]}),
    ],
)
def test_a_stored_snapshot_is_loaded_or_absent(text, value):
    assert host_snapshot.load(text) == value


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (json.dumps(GOOD), [each["instance_uuid"] for each in GOOD["guests"]]),
        ('{"guests": [{}, 5, null, {"instance_uuid": 7}]}', []),
        (json.dumps({"guests": [{}, {"instance_uuid": instance()}]}), [instance()]),
        ('{"guests": 5}', []),
        ("{}", []),
        ("[]", []),
        ("{", []),
    ],
)
def test_the_guests_of_a_stored_snapshot_are_the_named_ones(text, found):
    assert host_snapshot.guests(text) == found


def test_a_missing_field_has_a_default():
    fitted = host_snapshot.fitted(
        {
            "cells": [{"id": 0, "cpus": [{"id": 1}], "caches": [{"level": 3}]}],
            "guests": [{"instance_uuid": instance()}],
            "violations": [{"kind": "overlap"}],
        }
    )
    assert fitted == {
        "cells": [
            {
                "id": 0,
                "memory_kib": 0,
                "free_kib": None,
                "distances": {},
                "cpus": [
                    {
                        "id": 1,
                        **dict.fromkeys(("socket", "die", "core")),
                        "siblings": "",
                        "online": False,
                        "isolated": False,
                        **dict.fromkeys(("core_type", "capacity")),
                    }
                ],
                "caches": [{"level": 3, "kind": "", "size_kib": 0, "cpus": ""}],
            }
        ],
        "unassigned_cpus": [],
        "guests": [
            {
                "instance_uuid": instance(),
                "name": "",
                **dict.fromkeys(("project_id", "cpuset", "memory_nodes", "grant")),
                "nova": False,
                "pins": {},
                "has_baseline": False,
            }
        ],
        "rules": {
            "allowed_cpus": None,
            "reserved_cpus": "",
            "dedicated_cpus": "",
            "shared_cpus": "",
            "allowed_nodes": None,
            "allowed_projects": [],
            "overlap": "warn",
            "smt": "allow",
            "numa_guests": "refuse",
            "numa_across_cells": False,
        },
        "violations": [
            {"kind": "overlap", "instance_uuids": [], "cpus": "", "nodes": "", "message": ""}
        ],
    }


@pytest.mark.parametrize(
    ("part", "value", "fit"),
    [
        ("memory_kib", 2**53, True),
        ("memory_kib", 2**53 + 1, False),
        ("memory_kib", -1, False),
        ("memory_kib", 1.0, False),
        ("distances", {"9999": 2**32}, True),
        ("distances", {"9999": 2**32 + 1}, False),
        ("distances", {"0": -(2**31)}, True),
        ("distances", {"0": -(2**31) - 1}, False),
        ("distances", {"10000": 1}, False),
        ("distances", {"": 1}, False),
    ],
)
def test_numbers_of_a_cell_are_accepted_or_refused(part, value, fit):
    (cell,) = host_snapshot.fitted({"cells": [{"id": 0, part: value}]})["cells"]
    assert (cell[part] == value) is fit


@pytest.mark.parametrize(("number", "fit"), [(0, True), (8191, True), (8192, False), (-1, False)])
def test_ids_of_cells_are_those_that_linux_has(number, fit):
    assert bool(host_snapshot.fitted({"cells": [{"id": number}]})["cells"]) is fit


def test_names_and_messages_of_a_snapshot_are_cleaned_and_cut():
    violation = {"kind": "x" * 300, "message": "a\x1b" + "y" * 5_000}
    (shown,) = host_snapshot.fitted({"violations": [violation]})["violations"]
    assert (shown["kind"], shown["message"]) == (
        "x" * 255,
        "a\N{REPLACEMENT CHARACTER}" + "y" * 3_998,
    )
    many = {str(number): 1 for number in range(101)}
    assert host_snapshot.fitted({"guests": [{"instance_uuid": instance()} | many]})["guests"] == []
