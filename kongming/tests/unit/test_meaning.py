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

from kongming.notification import event
from kongming.notification.meaning import Meaning, meaning
from kongming.tests import captures

UUID = "5a6e9b1e-0000-4000-8000-000000000001"


def of(name, *, host, publisher="here"):
    return meaning(event.InstanceEvent(name, UUID, host, publisher, {}, None, 0.0), "here")


@pytest.mark.parametrize(
    "operation",
    [
        "create", "unshelve", "power_on", "reboot", "rebuild", "resize_finish", "resize_revert",
        "rescue", "unrescue", "restore", "resume", "live_migration_post_dest", "snapshot",
        "live_migration_rollback", "unpause", "power_off", "suspend", "shelve", "shutdown",
        "operation_of_a_later_nova",
    ],
)  # fmt: skip
def test_the_end_of_an_operation_on_this_host_says_what_is_wanted(operation):
    assert of(f"instance.{operation}.end", host="here") is Meaning.WANTED
    elsewhere = of(f"instance.{operation}.end", host="there", publisher="there")
    assert elsewhere is not Meaning.WANTED
    assert of(f"instance.{operation}.end", host=None) is Meaning.NOTHING
    assert of(f"instance.{operation}.start", host="here") is Meaning.NOTHING


def test_a_metadata_edit_names_the_api_host_as_publisher():
    assert of("instance.update", host="here", publisher="controller") is Meaning.WANTED
    assert of("instance.update", host="there", publisher="here") is Meaning.GONE


@pytest.mark.parametrize("operation", ["delete", "soft_delete", "live_migration_post"])
def test_the_end_of_the_stay(operation):
    assert of(f"instance.{operation}.end", host="here") is Meaning.GONE
    assert of(f"instance.{operation}.end", host="here", publisher="api") is Meaning.GONE
    # Who left another host by live migration may have come here.
    elsewhere = Meaning.NOTHING if operation == "live_migration_post" else Meaning.GONE
    assert of(f"instance.{operation}.end", host="there") is elsewhere


def test_offloading_is_told_by_the_publisher():
    assert of("instance.shelve_offload.end", host=None) is Meaning.GONE
    assert of("instance.shelve_offload.end", host=None, publisher="there") is Meaning.NOTHING


def test_evacuation_names_the_old_host():
    assert of("instance.rebuild.end", host="there", publisher="here") is Meaning.WANTED
    assert of("instance.rebuild.end", host="here", publisher="there") is Meaning.GONE
    assert of("instance.rebuild.end", host="here", publisher="here") is Meaning.WANTED


def test_the_end_of_the_first_half_of_a_resize_comes_before_the_domain():
    assert of("instance.resize.end", host="here") is Meaning.NOTHING


def test_a_confirmed_migration_ends_the_stay_on_the_source():
    assert of("instance.resize_confirm.end", host="there", publisher="here") is Meaning.GONE
    assert of("instance.resize_confirm.end", host="here", publisher="here") is Meaning.WANTED


def story(host, *steps):
    """Follow the captured steps as one host: the last thing each meant to it."""
    last = []
    for step in steps:
        meanings = [
            meaning(read, host)
            for message in captures.messages(step)
            if (read := event.read(message)) is not None
        ]
        last.append(next((m for m in reversed(meanings) if m is not Meaning.NOTHING), None))
    return last


def test_the_captured_life_on_one_host():
    kept = story("compute-1", *(s for s in captures.STEPS if s[0] not in "F2"))
    assert set(kept) == {Meaning.WANTED}
    assert story("compute-1", "20-shelve-offload", "28-delete") == [Meaning.GONE] * 2


def test_the_captured_migrations_between_two_hosts():
    steps = ["F-01-create", "F-04-live-migrate", "F-06-cold-migrate", "F-07-migrate-confirm"]
    assert story("fake1", *steps) == [Meaning.WANTED, Meaning.GONE, Meaning.WANTED, Meaning.WANTED]
    assert story("fake2", *steps)[1:] == [Meaning.WANTED, Meaning.GONE, Meaning.GONE]


def test_the_captured_revert_brings_the_instance_back():
    forth, back = story("fake1", "F-08-cold-migrate2", "F-09-migrate-revert")
    assert (forth, back) == (Meaning.GONE, Meaning.WANTED)
