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

"""What Nova's events mean to a host: the table, and the captured stories."""

import pytest

from kongming.executor.store.residence import Place
from kongming.notification import event
from kongming.notification.meaning import meaning, named_host
from kongming.tests import captures

UUID = "5a6e9b1e-0000-4000-8000-000000000001"
HERE, ELSEWHERE, NOWHERE = Place.HERE, Place.ELSEWHERE, Place.NOWHERE


def made(name, *, host, publisher="here", state="active"):
    return event.InstanceEvent(name, UUID, host, publisher, {}, None, 0.0, state=state)


def of(name, *, host, publisher="here", state="active"):
    return meaning(made(name, host=host, publisher=publisher, state=state), "here")


@pytest.mark.parametrize(
    "operation",
    [
        "create", "unshelve", "power_on", "reboot", "rebuild", "resize_finish", "resize_revert",
        "rescue", "unrescue", "restore", "resume", "live_migration_post_dest", "snapshot",
        "live_migration_rollback", "unpause", "power_off", "suspend", "shelve", "shutdown",
        "operation_of_a_later_nova",
    ],
)  # fmt: skip
def test_the_end_of_an_operation_names_the_host_of_the_instance(operation):
    assert of(f"instance.{operation}.end", host="here") is HERE
    assert of(f"instance.{operation}.end", host="there", publisher="there") is ELSEWHERE
    assert of(f"instance.{operation}.end", host=None, publisher="there") is NOWHERE
    assert of(f"instance.{operation}.start", host="here") is None
    assert of(f"instance.{operation}.start", host=None) is None


def test_a_metadata_edit_names_the_api_host_as_publisher():
    assert of("instance.update", host="here", publisher="controller") is HERE
    assert of("instance.update", host="there", publisher="here") is ELSEWHERE


def test_an_instance_that_could_not_be_built_is_on_no_host():
    assert of("instance.update", host=None, state="error") is NOWHERE
    assert of("instance.update", host=None, publisher="conductor", state="error") is NOWHERE


def test_an_instance_that_is_being_built_may_come_to_any_host():
    assert of("instance.update", host=None, state="building") is None
    assert of("instance.create.end", host=None, state="building") is None
    assert of("instance.update", host="here", state="building") is HERE
    assert of("instance.update", host="there", state="building") is ELSEWHERE
    assert of("instance.shelve_offload.end", host=None, state="building") is NOWHERE
    assert of("instance.delete.end", host=None, state="building") is NOWHERE


@pytest.mark.parametrize("operation", ["delete", "soft_delete"])
@pytest.mark.parametrize("host", ["here", "there", None])
@pytest.mark.parametrize("publisher", ["here", "api"])
def test_a_deletion_counts_whatever_its_host(operation, host, publisher):
    assert of(f"instance.{operation}.end", host=host, publisher=publisher) is NOWHERE


def test_the_end_event_of_a_live_migration_names_the_destination():
    assert of("instance.live_migration_post.end", host="here") is ELSEWHERE
    assert of("instance.live_migration_post.end", host="here", publisher="api") is ELSEWHERE
    # Who left another host by live migration may have come here.
    assert of("instance.live_migration_post.end", host="there") is None
    assert of("instance.live_migration_post.end", host=None) is None


def test_an_offloaded_instance_is_on_no_host():
    assert of("instance.shelve_offload.end", host=None) is NOWHERE
    assert of("instance.shelve_offload.end", host=None, publisher="there") is NOWHERE
    assert of("instance.shelve_offload.end", host="here") is NOWHERE


def test_evacuation_names_the_old_host():
    assert of("instance.rebuild.end", host="there", publisher="here") is HERE
    assert of("instance.rebuild.end", host="here", publisher="there") is ELSEWHERE
    assert of("instance.rebuild.end", host="here", publisher="here") is HERE
    assert of("instance.rebuild.end", host=None, publisher="here") is HERE
    assert of("instance.rebuild.end", host="there", publisher="there") is ELSEWHERE


def test_the_named_host_is_that_of_the_payload_except_for_an_evacuation():
    def named(name, host, publisher="controller"):
        return named_host(made(name, host=host, publisher=publisher))

    assert named("instance.update", "there") == "there"
    assert named("instance.update", None) == ""
    assert named("instance.rebuild.end", "here", "there") == "there"
    # It is the one that was left.
    assert named("instance.live_migration_post.end", "here") == ""


def test_the_end_of_the_first_half_of_a_resize_comes_before_the_domain():
    assert of("instance.resize.end", host="here") is None


def test_a_confirmed_migration_ends_the_stay_on_the_source():
    assert of("instance.resize_confirm.end", host="there", publisher="here") is ELSEWHERE
    assert of("instance.resize_confirm.end", host="here", publisher="here") is HERE


def story(host, *steps):
    """Follow the captured steps as one host: the last thing each meant to it."""
    last = []
    for step in steps:
        places = [
            meaning(read, host)
            for message in captures.messages(step)
            if (read := event.read(message)) is not None
        ]
        last.append(next((each for each in reversed(places) if each is not None), None))
    return last


def test_the_captured_life_on_one_host():
    kept = story("compute-1", *(s for s in captures.STEPS if s[0] not in "F2"))
    assert set(kept) == {HERE}
    assert story("compute-1", "20-shelve-offload", "28-delete") == [NOWHERE] * 2


@pytest.mark.parametrize(
    ("read", "topic"),
    [(event.read, "versioned_notifications"), (event.read_legacy, "notifications")],
)
def test_a_captured_build_is_on_no_host_at_no_time(read, topic):
    events = [read(message) for message in captures.messages("01-create", topic)]
    events = [each for each in events if each is not None]
    assert [each for each in events if each.host is None]
    assert NOWHERE not in {meaning(each, "compute-1") for each in events}


def test_the_captured_migrations_between_two_hosts():
    steps = ["F-01-create", "F-04-live-migrate", "F-06-cold-migrate", "F-07-migrate-confirm"]
    assert story("fake1", *steps) == [HERE, ELSEWHERE, HERE, HERE]
    assert story("fake2", *steps)[1:] == [HERE, ELSEWHERE, ELSEWHERE]


def test_the_captured_revert_brings_the_instance_back():
    forth, back = story("fake1", "F-08-cold-migrate2", "F-09-migrate-revert")
    assert (forth, back) == (ELSEWHERE, HERE)
