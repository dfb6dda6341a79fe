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

"""Decisions of an exchange: who holds an instance, and who gets its desired allocation."""

from hypothesis import given
from hypothesis import strategies as st
import pytest

from kongming.conductor.claims import LAPSE_S, lapsed_hosts, not_on, of_other_holders
from kongming.conductor.delivery import report_without_host
from kongming.conductor.exchange import answer, released
from kongming.db.values import Host
from kongming.rpc.messages import Desired, Exchange, ExecutorInfo, Refusal
from kongming.tests.databases import instance
from kongming.tests.unit.entries import HERE, OTHER, THERE, UUID, entry


def exchange(guests=(), known=None, *, host=HERE, digest="", left_out=()):
    executor = ExecutorInfo("1", 5.0, 60.0)
    return Exchange(
        host, executor, True, tuple(guests), known or {}, (), digest, left_out=left_out
    )


def decide(entries, guests=(), known=None, *, digest=""):
    by_uuid = {each.instance_uuid: each for each in entries}
    return answer(exchange(guests, known, digest=digest), by_uuid, (), "a")


@pytest.mark.parametrize(
    ("there", "guests", "known", "gets_it"),
    [
        # The holder gets another generation than it knows.
        (entry(HERE), (UUID,), {}, True),
        (entry(HERE), (), {}, True),
        (entry(HERE), (UUID,), {UUID: 1}, True),
        (entry(HERE), (UUID,), {UUID: 2}, False),
        (entry(HERE, requested=False), (UUID,), {UUID: 1}, True),
        (entry(HERE, requested=False), (UUID,), {}, False),
        # So does the last holder of an instance on no host, unless it has nothing of it.
        (entry(None, HERE), (), {}, True),
        (entry(None, HERE, project="p"), (UUID,), {}, True),
        (entry(None, HERE, project="p"), (), {}, False),
        # Other hosts do not, whatever they report.
        (entry(THERE), (UUID,), {}, False),
        (entry(THERE), (UUID,), {UUID: 1}, False),
        (entry(THERE, HERE), (UUID,), {UUID: 1}, False),
        (entry(None, THERE), (UUID,), {}, False),
        (entry(), (UUID,), {}, False),
        (entry(None, "", project="p"), (UUID,), {}, False),
        # An instance that Nova does not know belongs to the host that runs it.
        (entry(None, ""), (UUID,), {}, True),
        (entry(None, ""), (), {UUID: 1}, False),
    ],
)
def test_only_the_holder_gets_the_desired_allocation(there, guests, known, gets_it):
    desired = decide([there], guests, known).desired
    assert (UUID in desired) is gets_it
    if gets_it:
        allocation = there.allocation.to_json() if there.allocation else None
        assert desired[UUID] == Desired(2, allocation, "mano")


@pytest.mark.parametrize(
    ("there", "guests", "elsewhere", "unknown"),
    [
        ([entry(THERE)], (), True, False),
        ([entry(THERE)], (UUID,), False, False),
        ([entry(HERE)], (), False, False),
        ([entry()], (), False, False),
        ([entry(None, None, project="p")], (), True, False),
        ([], (), True, False),
        ([], (UUID,), False, True),
    ],
)
def test_a_host_forgets_instances_that_are_on_another_host(there, guests, elsewhere, unknown):
    found = decide(there, guests, {UUID: 2})
    assert found.elsewhere == ((UUID,) if elsewhere else ())
    assert found.desired == ({UUID: Desired(0, None)} if unknown else {})


@pytest.mark.parametrize(
    ("there", "known", "is_complete"),
    [
        (entry(HERE, requested=False), {}, True),
        (entry(HERE, requested=False), {UUID: 1}, False),
        (entry(HERE), {}, False),
        (entry(None, HERE, requested=False), {}, True),
        (entry(THERE, requested=False), {}, False),
        (entry(THERE, HERE, requested=False), {}, False),
        (entry(requested=False), {}, False),
    ],
)
def test_a_release_is_complete_when_the_holder_does_not_know_the_instance(
    there, known, is_complete
):
    reports = released(exchange((UUID,), known), {UUID: there}, 7.0)
    assert [(each.instance_uuid, each.status, each.generation) for each in reports] == (
        [(UUID, "released", 2)] if is_complete else []
    )


@pytest.mark.parametrize(("digest", "send"), [("b", True), ("a", False), ("", False)])
def test_a_snapshot_that_differs_is_to_be_sent(digest, send):
    assert decide([], digest=digest).send_snapshot is send


def test_the_answer_names_contested_and_skipped_instances():
    refusal = Refusal("reports", UUID, "x")
    found = answer(exchange(left_out=(refusal,)), {}, {OTHER, UUID}, "")
    assert (found.contested, found.refused) == ((UUID, OTHER), (refusal,))


UUIDS = [instance(number) for number in range(4)]
hosts = st.sampled_from([None, HERE, THERE])
entries = st.fixed_dictionaries(
    {},
    optional={
        uuid: st.builds(
            entry,
            hosts,
            st.sampled_from([None, "", HERE, THERE]),
            project=st.sampled_from([None, "p"]),
            requested=st.booleans(),
            generation=st.integers(1, 3),
            uuid=st.just(uuid),
        )
        for uuid in UUIDS
    },
)
running = st.sets(st.sampled_from(UUIDS))
generations = st.dictionaries(st.sampled_from(UUIDS), st.integers(0, 3))


@given(entries, running, generations)
def test_a_host_gets_only_what_it_holds_whatever_it_sends(found, guests, known):
    decided = answer(exchange(guests, known), found, (), "")
    assert not decided.desired.keys() & set(decided.elsewhere)
    for uuid, desired in decided.desired.items():
        if uuid not in found:
            assert desired == Desired(0, None)
            assert uuid in known
        else:
            assert found[uuid].holder == HERE or (found[uuid].unknown and uuid in guests)
            assert known.get(uuid) != desired.generation
    for each in released(exchange(guests, known), found, 1.0):
        assert found[each.instance_uuid].allocation is None
        assert found[each.instance_uuid].holder == HERE


@given(entries, running, generations)
def test_a_host_that_is_up_to_date_gets_no_changes(found, guests, known):
    decided = answer(exchange(guests, known), found, (), "")
    after = {uuid: number for uuid, number in known.items() if uuid not in decided.elsewhere}
    for uuid, desired in decided.desired.items():
        after.pop(uuid, None)
        if desired.allocation is not None:
            after[uuid] = desired.generation
    again = answer(exchange(guests, after), found, (), "")
    assert (again.desired, again.elsewhere) == ({}, ())


class TestClaims:
    """Claims of a host to guests of which the database has another host."""

    def test_only_guests_on_another_host_or_on_none_are_claimed(self):
        found = {UUID: entry(HERE), OTHER: entry(THERE, uuid=OTHER)}
        found[instance(3)] = entry(uuid=instance(3))
        claimed = not_on(HERE, [UUID, OTHER, instance(3), instance(4)], found)
        assert set(claimed) == {OTHER, instance(3)}

    @pytest.mark.parametrize(
        ("claimed", "is_contested"),
        [
            (entry(THERE), True),
            (entry(THERE, HERE), True),
            (entry(), True),
            (entry(None, HERE), False),
            (entry(None, THERE), True),
            # Neither Nova nor another host has it.
            (entry(None, ""), False),
            (entry(None, "", project="p"), True),
        ],
    )
    def test_with_nova_a_claim_to_an_instance_of_another_holder_is_contested(
        self, claimed, is_contested
    ):
        assert bool(of_other_holders(HERE, {UUID: claimed})) is is_contested

    @pytest.mark.parametrize(
        ("heartbeat_at", "has_lapsed"), [(1000.0 - LAPSE_S, True), (1001.0 - LAPSE_S, False)]
    )
    def test_a_host_without_a_heartbeat_for_long_loses_its_claims(self, heartbeat_at, has_lapsed):
        host = Host(THERE, heartbeat_at, 0.0, "1", 60.0, None, "", None, 0, 0)
        assert lapsed_hosts({THERE}, [host], 1000.0) == ({THERE} if has_lapsed else set())

    def test_an_unknown_host_has_no_claims(self):
        assert lapsed_hosts({THERE}, [], 1000.0) == {THERE}


@pytest.mark.parametrize(
    ("there", "status"),
    [
        (entry(), "absent"),
        (entry(requested=False), "released"),
        (entry(None, "", requested=False), "released"),
        # Its status is known.
        (entry(None, ""), None),
    ],
)
def test_an_instance_on_no_host_is_reported_once(there, status):
    found = report_without_host(there, 7.0)
    assert (found and (found.status, found.generation)) == (status and (status, 2))
