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
"""Following one's own request: what is reported of it, and what of other requests instead."""

import pytest

from kongming.client import watching
from kongming.client.progress import Progress
from kongming.client.requests import Unsettled
from kongming.client.responses import Fault
from kongming.osc import change, requests
from kongming.osc.requests import ApplyMap, DeleteMap, SetAllocation, UnsetAllocation
from kongming.tests.databases import instance

PIN, SHARES = {"vcpu_pinning": {"0": "1"}}, {"cpu_shares": 7}


def allocation(number=1, generation=1, requested=PIN, status="applied", **more):
    """An allocation, as the API shows it."""
    return {
        "instance_uuid": instance(number),
        "generation": generation,
        "allocation": requested,
        "status": status,
        "source": "api",
        **more,
    }


def releasing(number=1, generation=2):
    return allocation(number, generation, None, "releasing")


def a_map(*allocations, generation=1, deleting=False, created_at="today"):
    return {
        "name": "blue",
        "generation": generation,
        "deleting": deleting,
        "created_at": created_at,
        "instances": len(allocations),
        "counts": {},
        "allocations": list(allocations),
    }


class Api:
    """What the API has; what it does not have is answered as it answers that.

    :ivar requests: the instances that were requested one by one.
    """

    def __init__(self, *allocations, found=None, history=(), unavailable=()):
        self._allocations = {each["instance_uuid"]: each for each in allocations}
        self._map = found
        self._history = history
        self._unavailable = unavailable
        self.requests = []

    def _unless(self, name, found):
        if name in self._unavailable:
            raise Fault("unavailable")
        if found is None:
            raise Fault("none", status=404, code=f"{name}_unknown")
        return found

    def allocation(self, instance_uuid):
        self.requests.append(instance_uuid)
        return self._unless("allocation", self._allocations.get(instance_uuid))

    def allocations(self, **filters):
        assert filters == {"status": "releasing"}
        return [each for each in self._allocations.values() if each["status"] == "releasing"]

    def map(self, _name):
        return self._unless("map", self._map)

    def history(self, _instance_uuid):
        return self._unless("history", self._history)


def entry(generation, requested=SHARES, by="mano", name=None, status="pending"):
    return {
        "generation": generation,
        "allocation": requested,
        "requested_by": by,
        "map": name,
        "status": status,
    }


def test_an_allocation_is_shown_while_it_is_of_this_request():
    mine = allocation()
    for found in (mine, allocation(status="pending"), allocation(status="absent")):
        progress = watching.Placement(Api(found), mine).poll()
        assert (progress.allocations, progress.replaced) == ([found], "")


@pytest.mark.parametrize("found", [allocation(generation=2), releasing(), releasing(generation=1)])
def test_an_allocation_of_another_request_is_not_shown(found):
    api = Api(found, history=[entry(1, PIN), entry(2), entry(2, by="", status="applied")])
    progress = watching.Placement(api, allocation()).poll()
    assert progress.allocations == []
    assert progress.replaced == "mano requested generation 2: cpu-shares=7"


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([], "another request is in force"),
        ([entry(1)], "another request is in force"),
        ([entry(2), entry(3, None)], "mano requested generation 3: its release"),
        ([entry(2, name="green")], "mano requested generation 2 in the map green: cpu-sh"),
        ([entry(2, by="")], "another user requested generation 2: cpu-shares=7"),
        ([entry(1), entry(1, None, "", status="gone")], "the server was deleted in Nova"),
        ([entry(2, None), entry(2, None, "", status="released")], "mano requested generation"),
    ],
)
def test_the_history_names_the_requester_of_a_replacement(history, expected):
    progress = watching.Placement(Api(history=history), allocation()).poll()
    assert progress.replaced.startswith(expected)


def test_a_reader_without_the_history_learns_of_the_replacement():
    progress = watching.Placement(Api(unavailable=["history"]), allocation()).poll()
    assert progress.replaced == "another request is in force"


def test_a_404_of_another_service_does_not_mean_a_missing_allocation():
    for look in (
        watching.Placement(Api(unavailable=["allocation"]), allocation()).poll,
        watching.Releases(Api(unavailable=["allocation"]), {instance()}).poll,
        watching.map_releases(Api(unavailable=["map"]), "blue", [instance()]).poll,
    ):
        with pytest.raises(Fault, match="unavailable"):
            look()


def test_releases_are_complete_when_no_allocation_is_left():
    releases = watching.Releases(Api(releasing(1)), {instance(1), instance(2)}, generation=2)
    for _ in range(2):
        progress = releases.poll()
        assert (progress.text, progress.releasing) == ("1 of 2 released", [releasing(1)])
    releases.client = Api()
    assert releases.poll() == Progress([], "2 of 2 released", [])


@pytest.mark.parametrize(
    ("found", "generation"),
    [(allocation(generation=3), 2), (releasing(generation=4), 2), (allocation(), None)],
)
def test_a_release_that_was_replaced_is_not_this_request(found, generation):
    api = Api(found, history=[entry(found["generation"])])
    progress = watching.Releases(api, {instance()}, generation=generation).poll()
    assert progress.replaced.startswith(f"instance {instance()}: mano requested generation")


def test_any_generation_of_a_release_counts_if_none_is_known():
    assert watching.Releases(Api(releasing(generation=9)), {instance()}).poll().releasing


def test_listed_instances_are_not_requested_one_by_one():
    api = Api(found=a_map(releasing(1), releasing(2), deleting=True))
    releases = watching.map_releases(api, "blue", [instance(n) for n in (1, 2, 3)])
    assert releases.poll().text == "1 of 3 released"
    assert api.requests == [instance(3)]
    api = Api(releasing(1), allocation(2))
    dropped = watching.dropped_releases(api, [instance(n) for n in (1, 2, 3)])
    assert dropped.poll().text == "1 of 3 released (1 taken over)"
    assert api.requests == [instance(2), instance(3)]
    assert dropped.poll().text == "1 of 3 released (1 taken over)"
    assert len(api.requests) == 2


def placement(api, response, *dropped, numbers=(1, 2)):
    releases = watching.dropped_releases(api, [instance(number) for number in dropped])
    requested = {instance(number): PIN for number in numbers}
    return watching.MapPlacement(api, response, requested, releases).poll()


def test_a_map_is_shown_while_it_is_of_this_request():
    found = a_map(allocation(1), allocation(2, status="pending"))
    progress = placement(Api(found=found), found)
    assert progress.text == "1 of 2 applied (1 pending)"
    assert progress.open
    progress = placement(Api(releasing(3), found=found), found, 3, 4)
    assert progress.text == "1 of 2 applied (1 pending), 1 of 2 released"
    assert progress.releasing == [releasing(3)]


def test_an_instance_that_left_a_map_by_itself_is_gone():
    progress = placement(Api(found=a_map(allocation(1))), a_map())
    assert progress.text == "1 of 2 applied (1 gone)"
    assert [each["status"] for each in progress.undone] == ["gone"]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (None, "the map was deleted; 2 released; instance"),
        (a_map(releasing(1), generation=2, deleting=True), "generation 2 deletes the map; 2 rele"),
        (a_map(allocation(1), allocation(2), generation=2), "by generation 2; with the same al"),
        (
            a_map(allocation(1), allocation(2), created_at="later"),
            "by generation 1; with the same",
        ),
        (
            a_map(allocation(1), generation=2),
            f"by generation 2; 1 released; instance {instance(2)}",
        ),
        (
            a_map(allocation(1), allocation(2, requested=SHARES), allocation(3), generation=3),
            f"by generation 3; 1 changed, 1 added; instance {instance(2)}: mano requested",
        ),
    ],
)
def test_a_map_of_another_request_is_not_shown(found, expected):
    progress = placement(Api(found=found, history=[entry(5)]), a_map())
    assert progress.allocations == []
    assert progress.replaced.startswith(expected)


REQUESTS = {
    "set": SetAllocation(instance(), PIN, None),
    "unset": UnsetAllocation(instance(), None),
    "apply": ApplyMap("blue", {instance(): PIN}, None),
    "delete": DeleteMap("blue", None),
}


@pytest.mark.parametrize(
    ("name", "api", "accepted"),
    [
        ("set", Api(), False),
        ("set", Api(allocation()), True),
        ("set", Api(allocation(requested=SHARES)), False),
        ("set", Api(releasing()), False),
        ("unset", Api(), True),
        ("unset", Api(releasing()), True),
        ("unset", Api(allocation()), False),
        ("apply", Api(), False),
        ("apply", Api(found=a_map(allocation())), True),
        ("apply", Api(found=a_map(allocation(), deleting=True)), False),
        ("apply", Api(found=a_map(allocation(requested=SHARES))), False),
        ("apply", Api(found=a_map(allocation(), allocation(2))), False),
        ("apply", Api(found=a_map()), False),
        ("delete", Api(), True),
        ("delete", Api(found=a_map(deleting=True)), True),
        ("delete", Api(found=a_map()), False),
    ],
)
def test_a_get_settles_whether_a_change_was_accepted(name, api, accepted):
    if not accepted:
        with pytest.raises(Unsettled):
            REQUESTS[name].settle(api)
        return
    response = REQUESTS[name].settle(api)
    assert response is None or response["generation"]
    assert "allocations" not in (response or {})


@pytest.mark.parametrize("name", REQUESTS)
def test_a_replaced_request_is_shown_with_its_own_status(name):
    response = a_map() if name in ("apply", "delete") else allocation()
    fields = REQUESTS[name].fields(response, Progress([], "", [releasing()], "by mano"))
    assert (fields["status"], fields["message"]) == (requests.REPLACED, "by mano")
    assert fields["generation"] == response["generation"]


@pytest.mark.parametrize("name", ["unset", "delete"])
def test_an_allocation_in_release_is_shown_as_such(name):
    for response, progress in (
        (None, None),
        (a_map(), Progress([], "")),
        (allocation(), Progress([], "")),
    ):
        assert REQUESTS[name].fields(response, progress)["status"] == requests.RELEASED
    assert REQUESTS["unset"].fields(releasing(), None)["status"] == "releasing"
    left = Progress([], "", [releasing(2)])
    assert REQUESTS["unset"].fields(releasing(), left)["instance_uuid"] == instance(2)
    shown = REQUESTS["delete"].fields(a_map(), left)
    assert shown["not_released"].machine_readable() == [releasing(2)]


def test_the_status_of_a_map_is_shown():
    fields = REQUESTS["apply"].fields
    assert "not_applied" not in fields(a_map(), None)
    shown = fields(a_map(), Progress([allocation(), allocation(2, status="failed")], ""))
    assert shown["counts"].machine_readable() == {"applied": 1, "failed": 1}
    (missing,) = shown["not_applied"].machine_readable()
    assert missing["instance_uuid"] == instance(2)
    assert "not_released" not in shown
    assert "not_released" in fields(a_map(), Progress([], "", [releasing()]))


def test_the_last_known_status_of_an_allocation_is_shown():
    fields = REQUESTS["set"].fields
    assert fields(allocation(), None)["status"] == "applied"
    assert fields(allocation(), Progress([allocation(status="failed")], ""))["status"] == "failed"


def test_an_interruption_names_its_signal():
    assert isinstance(change.Interrupted(15), KeyboardInterrupt)
    assert change.Interrupted(15).number == 15
