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

"""The order of events: what is late, what is doubtful, and what is looked up in Nova."""

import pytest

from kongming.executor.store.residence import Place
from kongming.notification import event as events
from kongming.notification.event_store import FILE_NAME, EventStore
from kongming.notification.last_events import LastEvents, load
from kongming.notification.order import _KEEP_S, _MOST, Moment, Order, Verdict
from kongming.tests.messages import message

UUID = "5a6e9b1e-0000-4000-8000-000000000001"
OTHER = "5a6e9b1e-0000-4000-8000-000000000002"
COMPUTE, API = "nova-compute:compute-1", "nova-api:controller"
NOW = 1_800_000_000.0
HERE, ELSEWHERE, NOWHERE = Place.HERE, Place.ELSEWHERE, Place.NOWHERE


class Clock:
    """Our clock.

    :ivar set_by: by how many seconds it was set since the beginning.
    """

    def __init__(self):
        self.now = NOW
        self.set_by = 0.0

    def __call__(self):
        return self.now

    def steady(self):
        return self.now - self.set_by


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def order(clock):
    return Order(clock=clock, steady=clock.steady)


def event(sent_at, publisher=COMPUTE, instance_uuid=UUID, **more):
    """Return an event that was sent ``sent_at`` seconds after NOW, by its publisher's clock."""
    ahead_s = more.pop("ahead_s", 0.0)
    made = message(instance_uuid, NOW + sent_at, publisher=publisher, **more)
    read = events.read(made)
    return events.InstanceEvent(
        read.name,
        read.instance_uuid,
        read.host,
        read.publisher_host,
        read.metadata,
        read.user_id,
        NOW + sent_at,
        read.publisher,
        read.message_id,
        ahead_s,
    )


def test_an_older_event_of_the_same_publisher_is_late_and_one_of_the_same_time_is_not(order):
    order.note(event(-5), HERE)
    assert order.judge(event(-5.1), HERE).late
    assert not order.judge(event(-5), HERE).late
    assert not order.judge(event(-4.9), HERE).late
    assert order.judge(event(-9, instance_uuid=OTHER), HERE) == Verdict()


def test_the_delay_of_an_event_decides_whether_nova_is_queried(order):
    order.note(event(-5), HERE)
    assert order.judge(event(-5.5), HERE) == Verdict(late=True, late_s=pytest.approx(0.5))
    much = order.judge(event(-9), HERE)
    assert (much.late, much.needs_lookup, much.late_s) == (True, True, 4)


def test_an_event_of_another_publisher_counts_though_its_clock_is_behind(order):
    order.note(event(-5), HERE)
    verdict = order.judge(event(-7, API), HERE)
    assert not verdict.late
    assert not verdict.doubtful
    assert (verdict.behind, verdict.behind_s, verdict.needs_lookup) == (COMPUTE, 2, True)
    assert not order.judge(event(-5.5, API), HERE).needs_lookup
    assert order.judge(event(-4, API), HERE) == Verdict()
    order.note(event(-7, API), HERE)
    conductor = order.judge(event(-6, "nova-conductor:controller"), HERE)
    assert (conductor.behind, conductor.behind_s) == (COMPUTE, 1)


def test_a_repeated_message_is_late_whatever_came_between(order):
    again = event(-5, message_id="m1")
    order.note(again, HERE)
    order.note(event(-7, API), HERE)
    assert order.judge(again, HERE) == Verdict(late=True)


def test_a_message_without_an_id_is_identified_by_its_name_and_time(order):
    again = event(-5, message_id="")
    order.note(again, HERE)
    order.note(event(-7, API, message_id=""), HERE)
    assert order.judge(again, HERE).late
    assert not order.judge(event(-5, name="instance.reboot.end", message_id=""), HERE).late


def test_a_message_without_id_and_time_never_equals_another(order):
    made = message(UUID, NOW, message_id="")
    del made["timestamp"]
    first, second = events.read(made), events.read(made)
    assert first.message_id == ""
    order.note(first, HERE)
    assert not order.judge(second, HERE).late


def test_only_the_last_messages_are_recognized(order):
    for number in range(17):
        order.note(event(number - 20, message_id=f"m{number}"), HERE)
    # One of them is old enough to be late by its time alone.
    assert order.judge(event(-20, message_id="m0"), HERE).late_s > 0
    assert order.judge(event(-19, message_id="m1"), HERE) == Verdict(late=True)


@pytest.mark.parametrize("publisher", [COMPUTE, API])
def test_a_clock_that_was_set_back_hides_no_events(order, clock, publisher):
    order.note(event(-1), HERE)
    order.note_answer(UUID, Moment(NOW - 1, 0.0), HERE)
    clock.now = NOW - 3600
    assert order.judge(event(-3600, publisher), ELSEWHERE) == Verdict()
    order.note(event(-3600, publisher), HERE)
    assert order.judge(event(-3601, publisher), HERE).late


@pytest.mark.parametrize(
    ("passed", "ahead_s", "late_s"),
    [(1.0, 3598.5, 0.5), (1.0, 3599.0, 0.0), (1.0, 1800.0, 1799.0), (10.0, 0.0, 0.0)],
    ids=["older", "of the same time", "set back by half", "set right"],
)
def test_a_clock_that_is_ahead_is_compared_with_itself(order, clock, passed, ahead_s, late_s):
    order.note(event(0, ahead_s=3600.0), HERE)
    clock.now = NOW + passed
    assert order.judge(event(passed, ahead_s=ahead_s), HERE).late_s == late_s


def test_a_publishers_events_keep_their_order_when_our_clock_is_set_back(order, clock):
    order.note(event(-1), HERE)
    clock.now = NOW - 3600
    assert order.judge(event(-3600, ahead_s=3598.5), HERE).late_s == 0.5
    assert not order.judge(event(-3600, ahead_s=3599.0), HERE).late


@pytest.mark.parametrize(("earlier_s", "late_s"), [(0.5, 0.5), (0.0, 0.0)])
@pytest.mark.parametrize("set_by", [3600.0, 1800.0, -3600.0])
def test_events_keep_their_order_when_our_clock_is_set(order, clock, set_by, earlier_s, late_s):
    order.note(event(0, ahead_s=3600.0), HERE)
    clock.now, clock.set_by = NOW + set_by, set_by
    dated_at = 3600 - earlier_s
    sent_at = min(dated_at, set_by)
    assert order.judge(event(sent_at, ahead_s=dated_at - sent_at), HERE).late_s == late_s


def test_an_old_event_from_a_clock_that_was_ahead_is_late(order, clock):
    order.note(event(0, ahead_s=3600.0), HERE)
    assert order.judge(event(-2), HERE).late_s == 2


def test_an_event_of_another_publisher_from_the_future_is_no_reason_for_doubt(order, clock):
    order.note(event(-1), HERE)
    clock.now = NOW - 3600
    assert order.judge(event(-3600, API), ELSEWHERE) == Verdict()


@pytest.mark.parametrize(
    ("before", "place", "doubtful"),
    [(HERE, ELSEWHERE, True), (ELSEWHERE, HERE, True), (HERE, HERE, False), (NOWHERE, HERE, True)],
)
def test_another_host_is_doubtful_if_the_times_contradict(order, before, place, doubtful):
    order.note(event(-5), before)
    assert order.judge(event(-5.5, API), place).doubtful is doubtful
    assert not order.judge(event(-4.5, API), place).doubtful
    assert not order.judge(event(-4.5), place).doubtful


def test_a_doubtful_event_does_not_make_the_next_one_certain(order):
    order.note(event(-5), ELSEWHERE)
    order.note(event(-7, API), HERE)
    assert order.judge(event(-6, "nova-conductor:controller"), HERE).doubtful
    assert order.judge(event(-6, API), HERE).doubtful
    assert not order.judge(event(-5, API), HERE).doubtful
    order.note_answer(UUID, Moment(NOW - 4, 0.0), HERE)
    assert not order.judge(event(-4, API), HERE).doubtful


def test_a_deleted_instance_is_local_again_only_if_libvirt_has_it(order):
    order.note(event(-5, name="instance.delete.end"), NOWHERE)
    assert order.judge(event(-4, API), HERE).doubtful
    assert order.judge(event(-4), HERE).doubtful
    assert not order.judge(event(-4), ELSEWHERE).doubtful
    order.note(event(-4), NOWHERE)
    assert order.judge(event(-3), HERE).doubtful
    order.note_answer(UUID, Moment(NOW - 3, 0.0), NOWHERE)
    assert order.judge(event(-2), HERE).doubtful
    order.note_answer(UUID, Moment(NOW - 3, 0.0), HERE)
    assert not order.judge(event(-2), HERE).doubtful
    order.note(event(-5, name="instance.soft_delete.end", instance_uuid=OTHER), NOWHERE)
    assert not order.judge(event(-4, instance_uuid=OTHER), HERE).doubtful


def test_the_deletion_of_an_unknown_instance_is_remembered_too(order):
    order.note_elsewhere(event(-5, name="instance.delete.end"), NOWHERE)
    order.note_elsewhere(event(-4, API), NOWHERE)
    assert order.judge(event(-3), HERE).doubtful
    order.note(event(-3), HERE)
    assert order.judge(event(-2), HERE).doubtful


def test_an_event_that_was_sent_before_an_answered_question_is_outdated(order):
    order.note_answer(UUID, Moment(NOW - 5, 0.0), HERE)
    assert order.has_record(UUID)
    old = order.judge(event(-6), HERE)
    assert (old.outdated, old.needs_lookup) == (True, True)
    new = order.judge(event(-5), HERE)
    assert (new.outdated, new.needs_lookup) == (False, False)


def test_the_view_of_nova_is_unknown_for_a_clock_that_is_ahead(order):
    order.note(event(-9), HERE)
    assert not order.judge(event(0, ahead_s=60.0), HERE).needs_lookup
    order.note_answer(UUID, Moment(NOW - 5, 0.0), HERE)
    assert order.judge(event(0, ahead_s=60.0), HERE).needs_lookup
    assert not order.judge(event(0, ahead_s=1.0), HERE).needs_lookup


def test_an_event_that_arrived_after_a_request_is_found_with_its_time(order):
    before = Moment.now()
    assert order.last_sent_since(UUID, before) is None
    order.note(event(-5), HERE)
    assert order.last_sent_since(UUID, before) == NOW - 5
    assert order.last_sent_since(UUID, Moment.now()) is None


def test_an_event_after_one_from_another_host_is_late(order):
    order.note_elsewhere(event(-5), ELSEWHERE)
    order.note_elsewhere(event(-7), ELSEWHERE)
    assert order.judge(event(-6), HERE).late
    assert not order.judge(event(-4), HERE).late
    assert order.judge(event(-6, API), HERE).doubtful
    assert not order.has_record(UUID)
    # An event of another publisher that arrives later, but is older, changes nothing.
    order.note_elsewhere(event(-8, API), ELSEWHERE)
    assert order.judge(event(-6), HERE).late
    order.note_elsewhere(event(-5, API), ELSEWHERE)
    assert order.judge(event(-6), HERE).doubtful


def test_the_newest_host_counts_whoever_repeats_it_later(order):
    order.note(event(-9), HERE)
    order.note(event(-3, API), ELSEWHERE)
    order.note(event(-6), ELSEWHERE)
    judged = order.judge(event(-4, "nova-conductor:controller"), HERE)
    assert (judged.doubtful, judged.needs_lookup) == (True, False)
    assert not order.judge(event(-3, "nova-conductor:controller"), HERE).doubtful
    assert not order.judge(event(-4, "nova-conductor:controller"), ELSEWHERE).doubtful


@pytest.mark.parametrize("known", [True, False])
def test_an_event_from_the_future_yields_to_any_other(order, clock, known):
    note = order.note if known else order.note_elsewhere
    note(event(0, API), ELSEWHERE)
    clock.now -= 3600
    clock.set_by -= 3600
    note(event(-3610), ELSEWHERE)
    assert order.judge(event(-3620), HERE).late
    assert order.judge(event(-3620, "nova-conductor:controller"), HERE).doubtful


def test_an_instance_on_another_host_is_remembered_when_it_arrives(order):
    order.note_elsewhere(event(-5), ELSEWHERE)
    order.note(event(-4, API), HERE)
    assert order.has_record(UUID)
    assert order.judge(event(-6), HERE).late


def test_many_remote_instances_evict_no_local_one(order):
    order.note(event(-5), HERE)
    uuids = [f"5a6e9b1e-0000-4000-8000-{number:012}" for number in range(10, _MOST + 11)]
    read = event(-5)
    for uuid in uuids:
        order.note_elsewhere(_of(read, uuid), ELSEWHERE)
    assert order.judge(event(-6), HERE).late
    assert not order.judge(event(-6, instance_uuid=uuids[0]), HERE).late
    assert order.judge(event(-6, instance_uuid=uuids[1]), HERE).late


def _of(read, instance_uuid):
    return events.InstanceEvent(
        read.name, instance_uuid, read.host, "", {}, None, read.sent_at, read.publisher, ""
    )


def test_the_number_of_remembered_local_instances_is_bounded(order):
    read = event(-5)
    uuids = [f"5a6e9b1e-0000-4000-8000-{number:012}" for number in range(9, _MOST + 9)]
    for uuid in uuids:
        order.note(_of(read, uuid), HERE)
    order.note(_of(read, uuids[0]), HERE)
    order.note(event(-5), HERE)
    assert order.has_record(uuids[0])
    assert not order.has_record(uuids[1])
    assert order.has_record(uuids[2])


def test_the_dates_of_a_publisher_can_be_forgotten(order):
    order.note(event(-5, API), HERE)
    order.note(event(-4), HERE)
    order.forget_times(COMPUTE)
    assert order.judge(event(-9), ELSEWHERE).late_s == 0
    assert not order.judge(event(-9), ELSEWHERE).late
    assert not order.judge(event(-4.5, API), ELSEWHERE).doubtful
    assert order.judge(event(-9, API), HERE).late
    assert order.judge(event(-8, API, instance_uuid=OTHER), HERE) == Verdict()


class TestEventStore:
    @pytest.fixture
    def store(self, tmp_path):
        store = EventStore(tmp_path)
        yield store
        store.close()

    def test_the_order_outlives_the_process(self, store, clock, tmp_path, monkeypatch):
        monkeypatch.setattr("time.time", clock)
        order = Order(store, clock)
        again = event(-5, message_id="m1")
        order.note(again, ELSEWHERE)
        order.note(event(-4, API, name="instance.delete.end"), NOWHERE)
        restarted = Order(EventStore(tmp_path), clock)
        assert restarted.has_record(UUID)
        assert restarted.judge(again, HERE) == Verdict(late=True)
        assert restarted.judge(event(-6), HERE).late
        assert restarted.judge(event(-3), HERE).doubtful
        # Nova is asked again after a start.
        assert not restarted.judge(event(-3), HERE).outdated

    def test_events_of_long_ago_are_forgotten(self, store, clock, tmp_path, monkeypatch):
        monkeypatch.setattr("time.time", clock)
        Order(store, clock).note(event(-5), HERE)
        clock.now = NOW + _KEEP_S
        assert Order(EventStore(tmp_path), clock).has_record(UUID)
        clock.now = NOW + _KEEP_S + 1
        assert not Order(EventStore(tmp_path), clock).has_record(UUID)

    def test_events_with_a_time_in_the_future_are_forgotten(
        self, store, clock, tmp_path, monkeypatch
    ):
        monkeypatch.setattr("time.time", clock)
        Order(store, clock).note(event(-5), HERE)
        clock.now = NOW - 1
        assert not Order(EventStore(tmp_path), clock).has_record(UUID)

    def test_the_memory_is_bounded(self, store, clock, monkeypatch):
        monkeypatch.setattr("time.time", clock)
        monkeypatch.setattr("kongming.notification.order._MOST", 3)
        order = Order(store, clock)
        read = event(-5)
        for number in range(5):
            order.note(_of(read, f"5a6e9b1e-0000-4000-8000-{number:012}"), HERE)
        assert len(store.load(0.0)) == 3

    def test_a_clock_that_was_set_back_stays_known(self, store, clock, tmp_path, monkeypatch):
        monkeypatch.setattr("time.time", clock)
        order = Order(store, clock)
        order.note(event(-5), HERE)
        order.forget_times(COMPUTE)
        assert not Order(EventStore(tmp_path), clock).judge(event(-9), HERE).late

    def test_without_a_file_the_order_is_kept_in_memory(self, tmp_path, caplog):
        (tmp_path / FILE_NAME).mkdir()
        store = EventStore(tmp_path)
        order = Order(store)
        order.note(event(-5), HERE)
        order.note(event(-4), HERE)
        assert order.has_record(UUID)
        assert store.load(0.0) == []
        store.close()
        assert caplog.text.count("The order of events is not kept across a restart") == 1

    def test_a_file_that_breaks_later_is_logged_once(self, store, clock, caplog):
        order = Order(store, clock)
        store._db.path.unlink()
        store._db.path.mkdir()
        order.note(event(-5), HERE)
        order.note(event(-4), HERE)
        assert order.judge(event(-6), HERE).late
        assert caplog.text.count("The order of events is not kept across a restart") == 1

    def test_an_unreadable_row_counts_as_missing(self, store, clock, monkeypatch):
        monkeypatch.setattr("time.time", clock)
        order = Order(store, clock)
        order.note(event(-5), HERE)
        order.note(event(-5, instance_uuid=OTHER), HERE)
        with store._db.transaction(durable=False) as db:
            db.execute("UPDATE last_events SET events = '[1, 2]' WHERE instance_uuid = ?", (UUID,))
        assert [uuid for uuid, _last in store.load(0.0)] == [OTHER]


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "null", "7", "[{}, [], {}]", "[[], [], {}, false]", "[{}, 5, {}, false]",
     '[{"a": "x"}, [], {}, false]', '[{}, [], {"there": ["a", 1]}, false]',
     '[{}, [], {"here": "a"}, false]', '[{}, [], {"here": ["a", null]}, false]'],
)  # fmt: skip
def test_an_unreadable_row_is_left_out(text):
    assert load(text) is None


def test_the_last_events_are_written_and_read_again():
    last = LastEvents()
    last.note(COMPUTE, 5.0, HERE)
    last.note(API, 4.5, ELSEWHERE)
    last.messages.extend(["m1", "m2"])
    last.note(API, 5.5, NOWHERE, deleted=True)
    last.last_sent = 0.0
    assert load(last.dump()) == last
    assert load(LastEvents().dump()) == LastEvents()


def test_the_last_of_two_reports_of_the_same_time_counts():
    last = LastEvents()
    for publisher, sent_at in ((COMPUTE, 5.0), (API, 5.0), (COMPUTE, 4.9)):
        last.note(publisher, sent_at, HERE)
    assert last.places == {HERE: (API, 5.0)}


def test_of_many_publishers_the_last_are_remembered():
    last = LastEvents()
    for number in range(8):
        last.note(f"p{number}", 1.0, HERE)
    last.note("p0", 2.0, HERE)
    last.note("p8", 3.0, HERE)
    assert list(last.sent) == ["p2", "p3", "p4", "p5", "p6", "p7", "p0", "p8"]
    assert last.places == {HERE: ("p8", 3.0)}
