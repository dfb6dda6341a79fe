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

"""Desired allocations: generations, maps, and which reports of hosts count."""

import pytest
import sqlalchemy

from kongming import exception
from kongming.allocation.allocation import Allocation
from kongming.allocation.statuses import Status
from kongming.db import locking, models
from kongming.db.allocations import Allocations
from kongming.db.purge import purge
from kongming.db.values import Location
from kongming.tests.databases import BY, asking, instance, report

UUID = instance()
OTHER = instance(2)
THIRD = instance(3)


@pytest.fixture
def allocations(db):
    return Allocations(db)


def put(allocations, uuid, value, generation=None):
    return allocations.put(uuid, asking(value), generation=generation, **BY)[0]


def put_map(allocations, name, uuids, value=1, generation=None):
    return allocations.put_map(
        name, dict.fromkeys(uuids, asking(value)), generation=generation, **BY
    )


def delete(allocations, uuid, generation=None):
    return allocations.delete(uuid, generation=generation, **BY)


def place(allocations, *uuids, host="here"):
    return allocations.locate(dict.fromkeys(uuids, Location("project", host)))


def statuses(allocations, uuid):
    return [(each.generation, each.status) for each in allocations.history(uuid)]


def test_the_same_again_keeps_its_generation(allocations):
    first = put(allocations, UUID, "1-3")
    entry, created = allocations.put(UUID, asking(" 1,2,3 "), generation=1, **BY)
    assert (entry, created) == (first, False)
    assert len(allocations.history(UUID)) == 1


def test_the_same_pins_in_another_form_keep_their_generation(allocations):
    for form in ("0:4;1:5;2:6", "0-2=4-6", "2=6;0-1=4,5"):
        assert put(allocations, UUID, form).generation == 1
    assert put(allocations, UUID, "0-2=4,6,5").generation == 2


def test_a_row_of_an_older_version_in_another_form_is_the_same_request(allocations, db):
    put(allocations, UUID, 1)
    with db.writer() as session:
        session.execute(
            sqlalchemy.update(models.ALLOCATION).values(requested='{ "vcpu_pinning" : "1" }')
        )
    assert put(allocations, UUID, 1).generation == 1


@pytest.mark.parametrize("generation", [1, 5])
def test_an_absent_allocation_has_no_generation(allocations, generation):
    with pytest.raises(exception.GenerationConflict, match="does not exist"):
        put(allocations, UUID, 1, generation)


@pytest.mark.parametrize("generation", [0, 1, 3])
def test_another_generation_is_a_conflict(allocations, generation):
    put(allocations, UUID, 1)
    put(allocations, UUID, 2)
    with pytest.raises(exception.GenerationConflict, match="has generation 2, not"):
        put(allocations, UUID, 3, generation)
    with pytest.raises(exception.GenerationConflict):
        delete(allocations, UUID, generation)
    assert allocations.get(UUID).allocation == asking(2)


def test_an_empty_request_is_not_a_release(allocations):
    entry, _ = allocations.put(UUID, Allocation(), generation=0, **BY)
    assert (entry.allocation, entry.status) == (Allocation(), Status.PENDING)


def test_an_allocation_that_no_host_can_have_is_deleted_at_once(allocations):
    put(allocations, UUID, 1)
    assert delete(allocations, UUID, 1) is None
    assert allocations.get(UUID) is None
    assert statuses(allocations, UUID) == [(1, "pending"), (2, "released")]
    with pytest.raises(exception.AllocationUnknown):
        delete(allocations, UUID)


def test_generations_go_on_where_they_ended(allocations):
    put(allocations, UUID, 1)
    delete(allocations, UUID)
    entry, created = allocations.put(UUID, asking(1), generation=0, **BY)
    assert (entry.generation, created) == (3, True)


@pytest.mark.parametrize("of_a_map", [False, True])
def test_a_generation_that_was_read_before_others_had_theirs_is_read_again(
    allocations, monkeypatch, of_a_map
):
    read = locking.last_generations
    answers = [lambda *_: {}]

    def meanwhile(*arguments):
        return (answers.pop() if answers else read)(*arguments)

    put(allocations, UUID, 1)
    delete(allocations, UUID)
    # What another transaction has added and removed since, this one did not see.
    monkeypatch.setattr(locking, "last_generations", meanwhile)
    if of_a_map:
        put_map(allocations, "blue", [UUID])
    else:
        put(allocations, UUID, 1)
    assert not answers
    assert allocations.get(UUID).generation == 3


@pytest.mark.parametrize("generation", [None, 0, 2])
def test_an_allocation_in_release_can_be_requested_again(allocations, generation):
    put(allocations, UUID, 1)
    place(allocations, UUID)
    assert delete(allocations, UUID).status == Status.RELEASING
    entry, created = allocations.put(UUID, asking(1), generation=generation, **BY)
    assert (created, entry.generation, entry.status) == (True, 3, Status.PENDING)
    # The host has released it too late.
    allocations.report("here", [report(UUID, 2, "released")], 1.0)
    assert allocations.get(UUID) == entry


def test_deleting_twice_has_no_effect(allocations):
    put(allocations, UUID, 1)
    place(allocations, UUID)
    assert delete(allocations, UUID) == delete(allocations, UUID)
    with pytest.raises(exception.GenerationConflict):
        put(allocations, UUID, 1, 1)


def test_an_outcome_of_another_generation_has_no_effect(allocations):
    put(allocations, UUID, 1)
    put(allocations, UUID, 2)
    allocations.report("here", [report(UUID, 1), report(OTHER, 1)], 1.0)
    entry = allocations.get(UUID)
    assert (entry.status, entry.outcome) == (Status.PENDING, None)
    assert allocations.instance_uuids() == [UUID]


def test_an_outcome_is_kept_when_the_request_changes(allocations):
    put(allocations, UUID, 1)
    allocations.report("here", [report(UUID, 1, "failed", "step_failed", "no")], 5.0)
    entry = put(allocations, UUID, 2)
    assert (entry.status, entry.reporter, entry.outcome.status) == ("pending", "here", "failed")


def test_an_outcome_that_was_reported_before_is_not_written_again(allocations, db):
    put(allocations, UUID, 1)
    allocations.report("here", [report(UUID, drift="vCPU 0 on 3")], 5.0)
    before = db.statements
    allocations.report("here", [report(UUID, drift="vCPU 0 on 3")], 6.0)
    assert db.statements - before == 2
    outcome = allocations.get(UUID).outcome
    assert (outcome.reported_at, outcome.drift, outcome.drift_at) == (5.0, "vCPU 0 on 3", 9.0)
    allocations.report("here", [report(UUID, drift="vCPU 0 on 4")], 7.0)
    assert allocations.get(UUID).outcome.reported_at == 7.0


def test_the_history_has_one_entry_until_the_status_changes(allocations):
    put(allocations, UUID, 1)
    allocations.report("here", [report(UUID, 1, "pending")], 1.0)
    allocations.report("here", [report(UUID, 1, "failed", "step_failed", "one")], 2.0)
    allocations.report("here", [report(UUID, 1, "failed", "step_failed", "two")], 3.0)
    allocations.report("here", [report(UUID, 1, "applied", changed_at=20.0)], 4.0)
    first, second = allocations.history(UUID)
    assert (first.requested_by, first.request_id, first.message) == ("mano", "req-1", "one")
    assert (second.requested_by, second.status, second.generation) == ("", "applied", 1)
    assert (second.allocation, second.changed_at, second.host) == (asking(1), 20.0, "here")
    assert allocations.history(UUID, limit=1) == [first]
    assert allocations.history(UUID, marker=first.id) == [second]


@pytest.mark.parametrize("status", ["applied", "refused", "failed", "drifted", "absent"])
def test_a_report_counts_only_from_the_host_that_has_the_instance(allocations, status):
    put(allocations, UUID, 1)
    place(allocations, UUID, host="there")
    allocations.report("here", [report(UUID, 1, status)], 1.0)
    assert (allocations.get(UUID).status, allocations.get(UUID).outcome) == ("pending", None)
    allocations.report("there", [report(UUID, 1, status)], 2.0)
    assert allocations.get(UUID).status == status
    # A host that it has left, or was never at.
    allocations.report("here", [report(UUID, 1, "failed", "step_failed", "a lie")], 3.0)
    assert (allocations.get(UUID).status, allocations.get(UUID).outcome.host) == (status, "there")


def test_the_last_host_may_report_an_instance_that_has_no_host(allocations):
    put(allocations, UUID, 1)
    place(allocations, UUID, host="there")
    allocations.report("there", [report(UUID, 1)], 1.0)
    allocations.locate({UUID: Location("p", None)})
    allocations.report("here", [report(UUID, 1, "failed")], 2.0)
    assert allocations.get(UUID).status == "applied"
    allocations.report("there", [report(UUID, 1, "absent")], 3.0)
    assert allocations.get(UUID).status == "absent"


def test_no_host_may_report_an_instance_before_nova_has_named_its_host(allocations):
    put(allocations, UUID, 1)
    allocations.report("here", [report(UUID, 1)], 1.0, nova=True)
    assert allocations.get(UUID).outcome is None
    # Once a conductor has looked for it in vain, and without Nova, the first one to speak has it.
    put(allocations, other := instance(2), 1)
    allocations.report("", [report(other, 1, "absent")], 1.0, nova=True)
    allocations.report("here", [report(other, 1)], 1.0, nova=True)
    allocations.report("there", [report(other, 1, "failed")], 1.0, nova=True)
    assert allocations.get(other).outcome.host == "here"
    put(allocations, known := instance(3), 1)
    allocations.locate({known: Location("p", None)})
    allocations.report("", [report(known, 1, "absent")], 1.0, nova=True)
    allocations.report("here", [report(known, 1)], 1.0, nova=True)
    assert allocations.get(known).status == "absent"
    allocations.report("here", [report(UUID, 1)], 2.0)
    allocations.report("there", [report(UUID, 1, "failed")], 3.0)
    assert allocations.get(UUID).status == "applied"


def test_a_release_is_confirmed_only_by_the_host_that_has_the_instance(allocations):
    put(allocations, UUID, 1)
    place(allocations, UUID, host="there")
    delete(allocations, UUID)
    allocations.report("here", [report(UUID, 2, "released")], 1.0)
    assert allocations.get(UUID).status == Status.RELEASING
    allocations.report("there", [report(UUID, 2, "released")], 2.0)
    assert allocations.get(UUID) is None


def test_a_report_of_a_conductor_counts_only_where_no_host_has_the_instance(allocations):
    put(allocations, UUID, 1)
    allocations.report("", [report(UUID, 1, "absent")], 1.0, nova=True)
    assert allocations.get(UUID).status == "absent"
    place(allocations, UUID, host="there")
    allocations.report("there", [report(UUID, 1)], 2.0, nova=True)
    allocations.report("", [report(UUID, 1, "absent")], 3.0, nova=True)
    assert allocations.get(UUID).status == "applied"


def test_the_first_host_that_claims_an_instance_has_it(allocations):
    put(allocations, UUID, 1)
    assert allocations.claim("here", [UUID], ()) == [UUID]
    assert allocations.claim("there", [UUID], ()) == []
    assert allocations.get(UUID).host == "here"
    # Claimed once more by itself, and one that was never requested.
    assert allocations.claim("here", [UUID, instance(9)], ()) == [UUID]


def test_a_claim_passes_on_when_the_host_that_has_the_instance_reports_it_as_absent(allocations):
    put(allocations, UUID, 1)
    allocations.claim("here", [UUID], ())
    allocations.report("here", [report(UUID, 1)], 1.0)
    assert allocations.claim("there", [UUID], ()) == []
    allocations.report("here", [report(UUID, 1, "absent")], 2.0)
    put(allocations, UUID, 2)
    assert allocations.claim("there", [UUID], ()) == [UUID]
    assert allocations.get(UUID).host == "there"
    # The report of the former host is not one of the new host.
    assert allocations.claim("here", [UUID], ()) == []


def test_a_claim_passes_on_when_the_host_that_has_the_instance_is_given_up(allocations):
    put(allocations, UUID, 1)
    allocations.claim("here", [UUID], ())
    allocations.report("here", [report(UUID, 1)], 1.0)
    assert allocations.claim("there", [UUID], {"elsewhere"}) == []
    assert allocations.claim("there", [UUID], {"here"}) == [UUID]


def test_an_allocation_in_progress_is_no_entry_of_the_history(allocations):
    put(allocations, UUID, 1)
    allocations.report("here", [report(UUID, 1, "pending")], 1.0)
    (entry,) = allocations.history(UUID)
    assert (entry.status, entry.host) == ("pending", None)


def test_the_history_starts_again_after_it_was_purged(db, allocations):
    put(allocations, UUID, 1)
    purge(db, 1e12)
    allocations.report("here", [report(UUID, 1)], 1.0)
    (later,) = allocations.history(UUID)
    assert (later.status, later.host, later.requested_by) == ("applied", "here", "")


def test_a_failed_release_is_reported(allocations):
    put(allocations, UUID, 1)
    place(allocations, UUID)
    delete(allocations, UUID)
    allocations.report("here", [report(UUID, 2, "failed", "step_failed", "no")], 1.0)
    entry = allocations.get(UUID)
    assert (entry.status, entry.outcome.message) == (Status.RELEASING, "no")
    allocations.report("here", [report(UUID, 1, "released")], 2.0)
    assert allocations.get(UUID) is not None
    allocations.report("here", [report(UUID, 3, "released")], 2.0)
    assert allocations.get(UUID) is None


def test_an_unrequested_release_has_no_effect(allocations):
    put(allocations, UUID, 1)
    allocations.report("here", [report(UUID, 1, "released")], 1.0)
    assert allocations.get(UUID).status == Status.PENDING


def test_lists_are_filtered_and_paged(allocations):
    for number in range(1, 7):
        put(allocations, instance(number), number)
    # There before it was here.
    allocations.report("there", [report(instance(1), 1, "refused", "overlap")], 1.0)
    place(allocations, instance(1), instance(2))
    allocations.locate({instance(3): Location("another", "there")})
    allocations.report("there", [report(instance(3)), report(instance(4))], 1.0)
    put(allocations, instance(3), 0)
    delete(allocations, instance(2))

    def numbers(**filters):
        return [int(entry.instance_uuid[-12:]) for entry in allocations.list(**filters)]

    assert numbers() == [1, 2, 3, 4, 5, 6]
    assert numbers(limit=2, marker=instance(2)) == [3, 4]
    assert numbers(host="here") == [1, 2]
    # Only the host has reported where 4 is.
    assert numbers(host="there") == [3, 4]
    assert sorted(allocations.desired_on("there")) == [instance(1), instance(3), instance(4)]
    assert numbers(project_id="another") == [3]
    assert numbers(project_id="project", status="releasing") == [2]
    for status in Status:
        expected = [
            int(entry.instance_uuid[-12:])
            for entry in allocations.list()
            if entry.status == status
        ]
        assert numbers(status=status) == expected
    assert numbers(status="pending") == [3, 5, 6]


def test_allocations_that_no_host_has_placed_are_counted(allocations):
    put(allocations, UUID, 1)
    put(allocations, OTHER, 1)
    assert allocations.without_project() == [UUID, OTHER]
    found = {
        UUID: Location("project", None),
        OTHER: Location("project", "here"),
        THIRD: Location("project", "here"),
    }
    assert allocations.locate(found) == [OTHER]
    assert allocations.without_project() == []
    assert allocations.instance_uuids() == [UUID, OTHER]
    assert allocations.locate({OTHER: Location("project", None)}) == [OTHER]


def test_a_server_that_is_gone_leaves_its_history(allocations):
    put_map(allocations, "map", [UUID, OTHER])
    place(allocations, UUID)
    allocations.report("here", [report(UUID)], 1.0)
    allocations.forget([UUID, THIRD], 2.0)
    assert allocations.get(UUID) is None
    assert statuses(allocations, UUID) == [(1, "applied"), (1, "gone")]
    assert allocations.get_map("map").instances == 1
    assert allocations.history(THIRD) == []
    put(allocations, UUID, 1)
    assert allocations.get(UUID).outcome is None


def test_a_map_bumps_only_what_changes(allocations):
    made, created, changed = put_map(allocations, "map", [UUID, OTHER], generation=0)
    assert (made.generation, made.instances, created) == (1, 2, True)
    assert changed == [UUID, OTHER]
    made, created, changed = put_map(allocations, "map", [UUID, OTHER], generation=1)
    assert (made.generation, created, changed) == (1, False, [])
    both = {UUID: asking(1), OTHER: asking(2)}
    made, created, changed = allocations.put_map("map", both, generation=1, **BY)
    assert (made.generation, created, changed) == (2, False, [OTHER])
    entries = allocations.desired([UUID, OTHER])
    assert [entries[uuid].generation for uuid in (UUID, OTHER)] == [1, 2]
    for generation in (0, 1, 3):
        with pytest.raises(exception.GenerationConflict, match="the allocation map map"):
            put_map(allocations, "map", [UUID], generation=generation)
    with pytest.raises(exception.GenerationConflict, match="does not exist"):
        put_map(allocations, "other", [THIRD], generation=1)


def test_an_allocation_that_a_map_no_longer_names_is_released(allocations):
    put_map(allocations, "map", [UUID, OTHER, THIRD])
    place(allocations, UUID)
    allocations.report("here", [report(OTHER)], 1.0)
    made, _, changed = put_map(allocations, "map", [])
    assert (made.generation, made.instances, changed) == (2, 0, [UUID, OTHER, THIRD])
    assert [entry.status for entry in allocations.list()] == ["releasing", "releasing"]
    assert allocations.get(THIRD) is None
    assert allocations.history(UUID)[-1].map_name == "map"
    assert allocations.get_map("map") is not None


def test_a_map_adopts_single_allocations(allocations):
    put(allocations, UUID, 1)
    put(allocations, OTHER, 2)
    made, _, changed = put_map(allocations, "map", [UUID, OTHER], 1)
    assert (made.instances, changed) == (2, [OTHER])
    entries = allocations.list(map_name="map")
    assert [entry.generation for entry in entries] == [1, 2]
    put(allocations, THIRD, 1)
    made, _, changed = put_map(allocations, "map", [UUID, OTHER, THIRD], 1)
    assert (made.generation, made.instances, changed) == (2, 3, [])


def test_an_instance_belongs_to_one_map(allocations):
    put_map(allocations, "one", [UUID])
    with pytest.raises(exception.MapConflict) as conflict:
        put_map(allocations, "two", [OTHER, UUID])
    for name in (UUID, "one", "two"):
        assert name in str(conflict.value)
    assert allocations.get(OTHER) is None
    assert allocations.get_map("two") is None


def test_a_single_change_belongs_to_its_map(allocations):
    put_map(allocations, "map", [UUID, OTHER])
    assert put(allocations, UUID, 2).map_name == "map"
    assert allocations.get_map("map").generation == 2
    put(allocations, UUID, 2)
    assert allocations.get_map("map").generation == 2
    delete(allocations, UUID)
    made = allocations.get_map("map")
    assert (made.generation, made.instances, made.deleting) == (3, 1, False)


def test_a_map_goes_with_its_last_instance(allocations):
    put_map(allocations, "map", [UUID, OTHER, THIRD])
    place(allocations, UUID, OTHER)
    with pytest.raises(exception.GenerationConflict):
        allocations.delete_map("map", generation=2, **BY)
    assert allocations.delete_map("map", generation=1, **BY) == [UUID, OTHER, THIRD]
    made = allocations.get_map("map")
    assert (made.deleting, made.instances, made.generation) == (True, 2, 2)
    assert allocations.delete_map("map", generation=None, **BY) == []
    assert allocations.get_map("map") == made
    allocations.report("here", [report(UUID, 2, "released")], 1.0)
    assert allocations.get_map("map").instances == 1
    allocations.report("here", [report(OTHER, 2, "released")], 1.0)
    assert allocations.get_map("map") is None
    with pytest.raises(exception.MapUnknown):
        allocations.delete_map("map", generation=None, **BY)


def test_a_map_without_an_allocation_to_release_is_deleted_at_once(allocations):
    put_map(allocations, "map", [UUID])
    assert allocations.delete_map("map", generation=None, **BY) == [UUID]
    assert allocations.maps() == []
    assert allocations.instance_uuids() == []


@pytest.mark.parametrize("end", ["gone", "put", "map"])
def test_a_map_that_is_to_go_loses_its_last_instance_otherwise(allocations, end):
    put_map(allocations, "map", [UUID])
    place(allocations, UUID)
    allocations.delete_map("map", generation=None, **BY)
    if end == "gone":
        allocations.forget([UUID], 1.0)
    elif end == "put":
        assert put(allocations, UUID, 1).map_name is None
    else:
        put_map(allocations, "another", [UUID])
        assert allocations.get(UUID).map_name == "another"
    assert allocations.get_map("map") is None


@pytest.mark.parametrize("generation", [None, 0, 2])
def test_a_map_in_release_can_be_put_again(allocations, generation):
    put_map(allocations, "map", [UUID, OTHER])
    place(allocations, UUID, OTHER)
    allocations.delete_map("map", generation=None, **BY)
    made, created, changed = put_map(allocations, "map", [UUID], generation=generation)
    assert (made.generation, made.deleting, made.instances) == (3, False, 1)
    assert (created, changed) == (True, [UUID])
    other = allocations.get(OTHER)
    assert (other.status, other.generation, other.map_name) == (Status.RELEASING, 2, None)


def test_maps_are_paged(allocations):
    for name in "cab":
        put_map(allocations, name, [])
    assert [each.name for each in allocations.maps(limit=2)] == ["a", "b"]
    assert [each.name for each in allocations.maps(marker="b")] == ["c"]


def test_an_empty_report_has_no_effect(allocations, db):
    before = db.statements
    allocations.report("here", [], 1.0)
    assert allocations.locate({}) == []
    allocations.forget([], 1.0)
    assert allocations.desired([]) == {}
    assert db.statements - before <= 2
