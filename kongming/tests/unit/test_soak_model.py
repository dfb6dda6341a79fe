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

"""What a soak compares with: the newest event of each instance, and the differences from it."""

import random

import pytest

from kongming.tests.soak.comparison import differences
from kongming.tests.soak.host import Row
from kongming.tests.soak.world import (
    COMES,
    CREATED,
    INVALID,
    MEANINGLESS,
    NOTHING,
    PLACED,
    STAYS,
    UNKNOWN_CPU,
    Ask,
    Instance,
    World,
)

HERE = {CREATED, *STAYS, *COMES}


def events(world, number):
    yield from world.begin()
    for _ in range(number):
        yield from world.happen()
    yield from world.finish()


@pytest.mark.parametrize("in_order", [True, False])
def test_the_newest_event_of_its_publisher_decides_about_an_instance(in_order):
    world = World(random.Random(4), [0, 1], real=5, simulated=50)
    world.in_order = in_order
    newest, last, late = {}, {}, 0
    for event in events(world, 4000):
        source = (event.name, event.host, event.publisher)
        if source in MEANINGLESS:
            continue
        of = (event.instance_uuid, event.publisher)
        if event.sent_at < newest.get(of, 0):
            late += 1
            continue
        newest[of] = event.sent_at
        last[event.instance_uuid] = event.metadata if source in HERE else None
    expected = {uuid: each.asked.metadata() for uuid, each in world.expected().items()}
    assert expected == {
        uuid: requested for uuid, requested in last.items() if requested is not None
    }
    assert bool(late) is not in_order


def test_newcomers_leave_once_they_were_observed():
    world = World(random.Random(4), [0], real=1, simulated=10)
    list(events(world, 2000))
    there = set(world.expected())
    world.newcomers_were_observed()
    assert len(there - set(world.expected())) > 10
    gone = {event.instance_uuid for event in world.finish() if event.name == "instance.delete.end"}
    assert there - set(world.expected()) <= gone


PINS = '{"vcpu_pinning": {"0": "1", "1": "0"}}'
QUOTA = '{"vcpu_pinning": {"0-1": "1"}, "vcpu_quota": {"period_us": 100000, "quota_us": 30000}}'
PINNED, LIMITED = Ask(PLACED, (1, 0)), Ask(PLACED, (1, 1), 30_000)


def absent(requested):
    return Row(requested, None, "absent", "guest_absent")


@pytest.mark.parametrize(
    ("requested", "row", "problem"),
    [
        (PINNED, absent(PINS), ""),
        (LIMITED, absent(QUOTA), ""),
        (PINNED, None, "lost"),
        (PINNED, absent(QUOTA), "another request"),
        (PINNED, absent("{}"), "another request"),
        (LIMITED, absent(PINS), "another request"),
        (PINNED, Row(PINS, None, "pending", ""), "another outcome"),
        (PINNED, Row(None, None, "refused", "request_invalid"), "another outcome"),
        (Ask(INVALID), Row(None, None, "refused", "request_invalid"), ""),
        (Ask(INVALID), absent(PINS), "another outcome"),
        (Ask(UNKNOWN_CPU, (1, 0)), absent(PINS), ""),
        (Ask(NOTHING), None, ""),
        (Ask(NOTHING), absent("{}"), ""),
        (Ask(NOTHING), absent(PINS), "kept"),
    ],
)
def test_the_record_of_a_simulated_guest_is_compared(requested, row, problem):
    kept = {} if row is None else {"one": row}
    found = differences(kept, {"one": Instance("one", asked=requested)})
    assert found.get("one", "").partition(":")[0] == problem


def test_a_record_of_an_absent_guest_is_a_difference():
    assert differences({"one": absent(PINS)}, {})["one"].startswith("kept, and not here")
