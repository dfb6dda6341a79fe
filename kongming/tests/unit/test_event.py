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

"""Reading Nova's wire form: tolerant of its versions, strict with what we need."""

import copy
from datetime import datetime
import time

from hypothesis import given
from hypothesis import strategies as st
import pytest

from kongming import exception
from kongming.notification import event
from kongming.tests import captures

UUID = "5a6e9b1e-0000-4000-8000-000000000001"
CREATED = captures.message("01-create", "instance.create.end")

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner),
    max_leaves=3,
)


def changed(*path, to):
    """Return the captured creation with one field changed, or left out."""
    message = copy.deepcopy(CREATED)
    place = message
    for name in path[:-1]:
        place = place[name]
    if to is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return message


DATA = ("payload", "nova_object.data")
NEEDED = {"uuid", "metadata", "host", "action_initiator_user"}


@pytest.mark.parametrize("step", captures.STEPS)
def test_every_captured_notification_is_read(step):
    for message in captures.messages(step):
        read = event.read(message)
        if not message["event_type"].startswith("instance."):
            assert read is None
            continue
        data = message["payload"]["nova_object.data"]
        assert read == event.InstanceEvent(
            name=message["event_type"],
            instance_uuid=data["uuid"],
            host=data["host"],
            publisher_host=message["publisher_id"].split(":")[1],
            metadata=data["metadata"],
            user_id=data["action_initiator_user"],
            sent_at=datetime.fromisoformat(message["timestamp"] + "+00:00").timestamp(),
        )


@pytest.mark.parametrize(
    ("state", "read"), [("building", "building"), (None, ""), (5, ""), (..., "")]
)
def test_the_state_of_an_instance_is_read_if_it_is_given(state, read):
    assert event.read(changed(*DATA, "state", to=state)).state == read
    payload = {"instance_id": UUID, "host": None} | ({} if state is ... else {"state": state})
    legacy = {"event_type": "compute.instance.update", "publisher_id": "api.a", "payload": payload}
    assert event.read_legacy(legacy).state == read


@pytest.mark.parametrize("version", ["1.0", "1.99", "9.9", "garbage", None, 7])
def test_the_payload_version_is_of_no_consequence(version):
    assert event.read(changed("payload", "nova_object.version", to=version)) == event.read(CREATED)


@given(st.dictionaries(st.text(max_size=20), json_values))
def test_unknown_fields_are_of_no_consequence(more):
    data = more | CREATED["payload"]["nova_object.data"]
    assert event.read(changed(*DATA, to=data)) == event.read(CREATED)


@pytest.mark.parametrize("field", sorted(set(CREATED["payload"]["nova_object.data"]) - NEEDED))
def test_a_missing_optional_field_is_of_no_consequence(field):
    assert event.read(changed(*DATA, field, to=...)) == event.read(CREATED)


@pytest.mark.parametrize(
    ("read", "name"),
    [
        (event.read, "service.update"),
        (event.read, "compute.instance.create.end"),
        (event.read_legacy, "compute.metrics.update"),
        (event.read_legacy, "instance.create.end"),
    ],
)
def test_an_event_without_an_instance_needs_no_other_field(read, name):
    assert read({"event_type": name}) is None


@pytest.mark.parametrize(
    ("legacy", "name"),
    [
        ("create.end", "create.end"),
        ("update", "update"),
        ("exists", "exists"),
        ("delete.start", "delete.start"),
        ("create.error", "create.error"),
        ("resize.confirm.end", "resize_confirm.end"),
        ("live_migration.post.dest.end", "live_migration_post_dest.end"),
        ("live_migration._post.end", "live_migration_post.end"),
        ("finish_resize.start", "resize_finish.start"),
        ("finish_resize", "resize_finish"),
    ],
)
def test_a_legacy_event_has_the_name_of_its_versioned_event(legacy, name):
    uuid = CREATED["payload"]["nova_object.data"]["uuid"]
    read = event.read_legacy(
        {
            "event_type": f"compute.instance.{legacy}",
            "publisher_id": "compute.compute-1.example",
            "message_id": "m1",
            "timestamp": "2024-05-06 07:08:09",
            "payload": {"instance_id": uuid, "host": "compute-2", "metadata": [{"key": "a"}]},
        }
    )
    assert read == event.InstanceEvent(
        name=f"instance.{name}",
        instance_uuid=uuid,
        host="compute-2",
        publisher_host="compute-1.example",
        metadata={},
        user_id=None,
        sent_at=1_714_979_289.0,
    )
    assert (read.publisher, read.message_id) == ("compute.compute-1.example", "m1")


@pytest.mark.parametrize(
    ("timestamp", "sent_at", "ahead_s"),
    [
        ("2024-05-06 07:08:09", 1_714_979_289.0, 0.0),
        ("2024-05-06T09:08:09+02:00", 1_714_979_289.0, 0.0),
        ("2024-05-06 07:08:10", 1_714_979_290.0, 0.0),
        ("2024-05-06 07:08:13", 1_714_979_290.0, 3.0),
        (None, 1_714_979_290.0, 0.0),
    ],
)
def test_an_event_dated_in_the_future_counts_as_sent_now(monkeypatch, timestamp, sent_at, ahead_s):
    monkeypatch.setattr(time, "time", lambda: 1_714_979_290.0)
    read = event.read(changed("timestamp", to=timestamp))
    assert (read.sent_at, read.ahead_s) == (sent_at, ahead_s)
    assert read.dated_at == sent_at + ahead_s


@pytest.mark.parametrize(
    ("message_id", "timestamp", "known"),
    [
        ("m1", "now", "m1"),
        ("m" * 100, "now", "m" * 100),
        ("m" * 101, "now", "m" * 100),
        ("", "now", "instance.create.end now"),
        (5, "now", "instance.create.end now"),
        (None, "n" * 100, f"instance.create.end {'n' * 80}"),
        (None, None, ""),
        (None, 5, ""),
    ],
)
def test_a_message_without_an_id_is_identified_by_its_name_and_date(message_id, timestamp, known):
    message = changed("timestamp", to=timestamp) | {"message_id": message_id}
    assert event.read(message).message_id == known


def test_the_requester_may_be_unknown():
    for to in (None, ..., 5, ["x"]):
        assert event.read(changed(*DATA, "action_initiator_user", to=to)).user_id is None


def test_a_time_that_is_missing_or_in_the_future_is_now():
    for to in (None, ..., 5, "yesterday", "9999-01-01 00:00:00", "2999-01-01T00:00:00Z"):
        before = time.time()
        assert before <= event.read(changed("timestamp", to=to)).sent_at <= time.time()


def test_host_may_be_null_or_missing():
    assert event.read(changed(*DATA, "host", to=None)).host is None
    assert event.read(changed(*DATA, "host", to=...)).host is None


@pytest.mark.parametrize(
    ("path", "to", "expected"),
    [
        (("event_type",), ..., "event_type is missing or null"),
        (("event_type",), 5, "event_type is a int"),
        (("publisher_id",), ..., "publisher_id is missing"),
        (("payload",), ..., "payload is missing"),
        (("payload",), [], "payload is a list"),
        (("payload",), "x", "payload is a str"),
        (DATA, ..., "nova_object.data is missing"),
        (DATA, [1], "nova_object.data is a list"),
        ((*DATA, "uuid"), ..., "uuid is missing"),
        ((*DATA, "uuid"), "not-a-uuid", "uuid is not a UUID"),
        ((*DATA, "uuid"), 5, "uuid is a int"),
        ((*DATA, "host"), ["compute-1"], "host is a list"),
        ((*DATA, "metadata"), ..., "metadata is missing or null"),
        ((*DATA, "metadata"), None, "metadata is missing or null"),
        ((*DATA, "metadata"), [], "metadata is a list"),
    ],
)
def test_required_fields_are_checked(path, to, expected):
    with pytest.raises(exception.EventMalformed, match=expected):
        event.read(changed(*path, to=to))


def test_a_message_is_never_quoted():
    secret = "gAAAAAtoken"
    for path in [("publisher_id",), ("payload",), DATA, (*DATA, "uuid"), (*DATA, "metadata")]:
        for value in [secret, [secret], {secret: secret}]:
            try:
                event.read(changed(*path, to=value))
            except exception.EventMalformed as error:
                assert secret not in str(error)


@given(st.dictionaries(st.sampled_from(["event_type", "publisher_id", "payload"]), json_values))
def test_any_message_is_an_event_or_malformed(message):
    try:
        event.read(message)
    except exception.EventMalformed as error:
        assert error.reason == "event_malformed"


@pytest.mark.parametrize(
    ("user", "kept"),
    [
        ("5f0c3b526a0e4c6e9a5f0d6a4f0b8c11", "5f0c3b526a0e4c6e9a5f0d6a4f0b8c11"),
        ("x" * 255, "x" * 255),
        ("x" * 1_600_000, "x" * 255),
        ("\ud800mano", "�mano"),
        ("a\nb\x1b[31mc\x00", "a b�[31mc�"),
        ("", ""),
        *((odd, None) for odd in (None, 5, ["x"], {"id": "x"}, True)),
    ],
)
def test_the_requester_is_cleaned_and_cut(user, kept):
    read = event.read(changed(*DATA, "action_initiator_user", to=user))
    assert (read.user_id, read.metadata) == (
        kept,
        CREATED["payload"]["nova_object.data"]["metadata"],
    )


@pytest.mark.parametrize("read", [event.read, event.read_legacy])
def test_the_name_of_an_event_is_cleaned_and_cut(read):
    message = changed("event_type", to=f"compute.instance.\ud800\n{'x' * 5000}")
    message["payload"] = CREATED["payload"] | {
        "instance_id": "5a6e9b1e-0000-4000-8000-000000000001"
    }
    if read is event.read:
        message["event_type"] = message["event_type"].removeprefix("compute.")
    name = read(message).name
    assert name.startswith("instance.� xxx")
    assert name.isprintable()
    assert len(name) <= 255
