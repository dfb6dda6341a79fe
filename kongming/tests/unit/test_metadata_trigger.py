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

"""Events, Nova's answers and libvirt together: what is kept of which instance at the end."""

from dataclasses import dataclass, field
import time
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
import pytest

from kongming import exception
from kongming.allocation.statuses import Status
from kongming.executor.departures import Departures
from kongming.executor.store.residence import Place
from kongming.executor.store.store import Store
from kongming.notification import event as events
from kongming.notification.meaning import meaning
from kongming.notification.metadata_trigger import MetadataTrigger
from kongming.notification.missed_events import PATIENCE_S, MissedEvents
from kongming.notification.order import Moment
from kongming.tests.messages import HOST, KEY, message
from kongming.tests.thorough import examples

UUID = "5a6e9b1e-0000-4000-8000-000000000001"
OTHER = "compute-2"
COMPUTE, API = f"nova-compute:{HOST}", "nova-api:controller"
HERE, ELSEWHERE, NOWHERE = Place.HERE, Place.ELSEWHERE, Place.NOWHERE


class Host:
    """One host: the store and all that decides, with a libvirt whose domains the test sets.

    :ivar domains: what libvirt has: whether each of them runs.
    :ivar looked_up: the instances that were to be looked up in Nova.
    :ivar unrequested: those whose events requested nothing.
    """

    def __init__(self, state_path, *, nova=True):
        self.store = Store(state_path)
        self.domains = {}
        self.looked_up = []
        self.unrequested = []
        self.now = 0.0
        self.nova = nova
        self.departures = Departures(HOST, self.store, self.look_up, lambda: self.now)
        self.trigger = MetadataTrigger(self, look_up=self.look_up)

    def look_up(self, instance_uuid):
        if self.nova:
            self.looked_up.append(instance_uuid)
        return self.nova

    def has_record(self, instance_uuid):
        return self.store.has_record(instance_uuid)

    def request(self, instance_uuid, request):
        refused = isinstance(request.requested, exception.Refused)
        if refused or request.requested or self.has_record(instance_uuid):
            return self.store.request(instance_uuid, request)
        self.unrequested.append(instance_uuid)
        return False

    def set_hint(self, instance_uuid, hint):
        if self.has_record(instance_uuid):
            self.store.hints.save(instance_uuid, hint)

    def handle(self, made):
        """Handle a notification; return whether it was the newest."""
        read = events.read(made)
        place = meaning(read, HOST)
        if place is None:
            return False
        if place is not HERE and not self.trigger.has_record(read.instance_uuid):
            self.trigger.note_elsewhere(read, place)
            return False
        return self.trigger.handle(read, place)

    def settle(self):
        """Check all stored instances until nothing changes any more."""
        for _ in range(3):
            for instance_uuid in self.store.instances():
                self.look(instance_uuid)
            self.now += 60.0

    def look(self, instance_uuid):
        record = self.store.get(instance_uuid)
        if self.domains.get(instance_uuid):
            if self.departures.may_place(record, 1):
                claim = self.departures.claim(instance_uuid)
                self.store.report(record, Status.ELSEWHERE if claim else Status.APPLIED, claim)
        else:
            off = instance_uuid in self.domains
            absent = exception.DomainOff("off") if off else exception.DomainGone("gone")
            if not self.departures.forget_departed(record, absent):
                self.store.report(record, Status.ABSENT, absent)

    def pins(self, instance_uuid=UUID):
        record = self.store.get(instance_uuid)
        return record and record.requested and str(record.requested.vcpu_pinning.every)


@pytest.fixture
def host(tmp_path):
    host = Host(tmp_path)
    yield host
    host.store.close()


def now():
    return time.time()


def update(sent_at, cpus="1", publisher=COMPUTE, host=HOST, **more):
    return message(UUID, sent_at, publisher=publisher, host=host, vcpu_pinning=cpus, **more)


def learn(host, place, cpus=None, put=None):
    requested = {} if cpus is None else {KEY: cpus}
    there = OTHER if place is ELSEWHERE else ""
    host.trigger.handle_answer(UUID, place, requested, "Nova's API", put or Moment.now(), there)


class TestEvents:
    def test_an_edit_from_an_api_node_whose_clock_is_behind_is_carried_out(self, host, caplog):
        begin = now()
        assert host.handle(update(begin, name="instance.create.end"))
        assert host.handle(update(begin - 2, "0", API))
        assert host.pins() == "0"
        assert host.looked_up == [UUID]
        assert "'nova-api:controller' is behind that of" in caplog.text

    def test_an_older_event_of_the_same_publisher_is_skipped(self, host):
        begin = now()
        host.handle(update(begin))
        assert not host.handle(update(begin - 0.5, "0"))
        assert host.pins() == "1"
        assert not host.looked_up
        assert not host.handle(update(begin - 3, "0"))
        # It may be the clock: Nova knows.
        assert host.looked_up == [UUID]

    def test_an_edit_after_the_publishers_clock_was_set_back_is_done(self, host, monkeypatch):
        begin = now()
        host.handle(update(begin))
        assert not host.handle(update(begin - 3600, "2"))
        # The next event of any instance shows it.
        monkeypatch.setattr(host.trigger._clocks, "_monotonic", lambda: time.monotonic() + 2)
        other = message(UUID[:-1] + "2", begin - 3600, publisher=COMPUTE, vcpu_pinning="0")
        assert host.handle(other)
        assert host.pins() == "2"
        assert not host.handle(update(begin - 3601, "0"))
        assert host.handle(update(begin - 3599, "0"))

    def test_the_event_that_reveals_a_clock_set_back_is_carried_out_itself(
        self, host, monkeypatch
    ):
        begin = now()
        host.handle(update(begin))
        assert not host.handle(update(begin - 3600, "2"))
        monkeypatch.setattr(host.trigger._clocks, "_monotonic", lambda: time.monotonic() + 2)
        assert host.handle(update(begin - 3600, "0"))
        assert host.pins() == "0"

    def test_an_older_event_after_one_from_another_host_restores_no_request(self, host):
        begin = now() - 10
        host.handle(update(begin, host=OTHER))
        assert not host.handle(update(begin - 2))
        assert not host.has_record(UUID)

    def test_an_event_of_an_instance_on_another_host_reveals_a_clock_set_back(
        self, host, monkeypatch
    ):
        begin = now()
        host.handle(update(begin, publisher=API))
        assert not host.handle(update(begin - 3600, "2", API))
        monkeypatch.setattr(host.trigger._clocks, "_monotonic", lambda: time.monotonic() + 2)
        host.handle(message(UUID[:-1] + "2", begin - 3600, publisher=API, host=OTHER))
        assert host.pins() == "2"
        assert not host.handle(update(begin - 3601, "0", API))

    def test_an_event_from_another_host_names_its_publisher(self, host):
        host.handle(update(now()))
        host.handle(update(now(), host=OTHER, publisher="nova-compute:x\ny"))
        hint = host.store.hints.get(UUID)
        assert (hint.place, hint.host, hint.from_api) == (ELSEWHERE, OTHER, False)
        assert hint.reported_by == "instance.update of 'nova-compute:x\\ny'"

    def test_an_evacuation_names_the_new_host(self, host):
        host.handle(update(now()))
        host.handle(update(now(), name="instance.rebuild.end", publisher=f"nova-compute:{OTHER}"))
        assert host.store.hints.get(UUID).host == OTHER

    def test_metadata_of_an_event_from_another_host_is_ignored(self, host):
        host.handle(update(now()))
        host.handle(update(now(), "0", host=OTHER))
        assert host.pins() == "1"

    def test_the_requester_and_the_time_are_kept(self, host):
        sent_at = now() - 5
        host.handle(update(sent_at))
        (request,) = host.store.requests(UUID)
        assert "(instance.update)" in request.requested_by
        assert request.requested_at == pytest.approx(sent_at, abs=1e-3)
        made = update(now(), "0")
        made["payload"]["nova_object.data"]["action_initiator_user"] = None
        host.handle(made)
        (request,) = host.store.requests(UUID)
        assert request.requested_by == "instance.update"

    def test_unreadable_metadata_is_a_refusal(self, host):
        host.handle(update(now(), "x"))
        assert host.store.get(UUID).reason == "request_invalid"


class TestAnswers:
    def test_an_old_event_does_not_undo_novas_newer_answer(self, host, caplog):
        caplog.set_level("DEBUG")
        learn(host, HERE, "1")
        host.handle(update(now() - 3600, "0"))
        assert host.pins() == "1"
        assert host.looked_up == [UUID]
        assert (
            f"Instance {UUID}: instance.update is older than Nova's answer; asking Nova again"
            in caplog.messages
        )

    def test_an_event_that_was_sent_since_counts(self, host):
        learn(host, HERE, "1", Moment(now() - 10, time.monotonic() - 10))
        host.handle(update(now() - 5, "0"))
        assert host.pins() == "0"
        assert not host.looked_up

    def test_without_a_connection_to_nova_the_event_counts(self, host):
        learn(host, HERE, "1")
        host.nova = False
        host.handle(update(now() - 3600, "0"))
        assert host.pins() == "0"

    def test_an_answer_of_nova_counts_over_an_older_event_that_was_received_since(
        self, host, caplog
    ):
        caplog.set_level("DEBUG")
        put = Moment.now()
        host.handle(update(put.wall - 3600, "0"))
        learn(host, HERE, "1", put)
        assert host.pins() == "1"
        # Nova is asked again whether it knew that.
        assert host.looked_up == [UUID]
        assert (
            f"Instance {UUID}: an event came before Nova's answer; asking Nova again"
            in caplog.messages
        )

    def test_an_answer_is_skipped_for_an_event_that_was_sent_since_and_requested_again(self, host):
        put = Moment(now() - 5, time.monotonic() - 5)
        host.handle(update(now() - 1, "0"))
        learn(host, HERE, "1", put)
        assert host.pins() == "0"
        assert host.looked_up == [UUID]
        learn(host, HERE, "1")
        assert host.pins() == "1"
        assert host.looked_up == [UUID]

    def test_an_event_from_a_clock_that_is_ahead_counts_and_is_looked_up(self, host):
        learn(host, HERE, "1", Moment(now() - 10, time.monotonic() - 10))
        host.handle(update(now() + 600, "0"))
        assert host.pins() == "0"
        assert host.looked_up == [UUID]

    @pytest.mark.parametrize(("place", "there"), [(ELSEWHERE, OTHER), (NOWHERE, "")])
    def test_an_answer_that_names_another_host_is_kept_as_such(self, host, place, there):
        host.handle(update(now() - 1))
        host.looked_up.clear()
        learn(host, place, "0")
        hint = host.store.hints.get(UUID)
        assert (hint.place, hint.host, hint.from_api) == (place, there, True)
        assert hint.reported_by == "Nova's API"
        assert host.pins() == "1"
        learn(host, HERE, "0")
        assert host.store.hints.get(UUID) is None
        assert host.pins() == "0"

    @pytest.mark.parametrize(
        ("known", "cpus", "announced", "then_received", "logged"),
        [
            (True, "0", False, False, True),
            # A new instance, nothing new, an event before it or after it.
            (False, "0", False, False, False),
            (True, "1", False, False, False),
            (True, "0", True, False, False),
            (True, "0", False, True, False),
        ],
    )
    def test_an_edit_that_only_an_answer_revealed_is_logged(
        self, host, caplog, monkeypatch, known, cpus, announced, then_received, logged
    ):
        clock = [1000.0]
        monkeypatch.setattr(host.trigger, "_missed_events", MissedEvents(lambda: clock[0]))
        if known:
            host.handle(update(now() - 1, "1"))
        put = Moment.now()
        host.trigger.handle_answer(UUID, HERE, {KEY: cpus}, "Nova's API", put, announced=announced)
        if then_received:
            host.handle(update(now(), cpus))
        clock[0] += PATIENCE_S
        host.trigger.handle_answer(
            UUID, HERE, {KEY: cpus}, "Nova's API", Moment.now(), announced=False
        )
        assert ("no event reported it" in caplog.text) is logged

    def test_an_answer_without_requests_is_ignored_for_an_unknown_instance(self, host):
        learn(host, HERE)
        assert host.unrequested == [UUID]
        assert host.trigger.has_record(UUID)


@pytest.mark.parametrize("nova", [True, False])
@pytest.mark.parametrize("last", ["instance.update", "instance.delete.end"])
def test_an_instance_that_could_not_be_built_leaves_no_record(host, nova, last):
    host.nova = nova
    begin = now() - 10
    host.handle(update(begin))
    host.settle()
    assert host.store.get(UUID).status == "absent"
    host.handle(update(begin + 1, host=None, name=last, publisher=API))
    host.settle()
    assert not host.store.instances()


def test_a_deletion_counts_whatever_its_host(host):
    for number, where in enumerate([HOST, OTHER, None]):
        uuid = f"{UUID[:-1]}{number}"
        host.handle(message(uuid, now(), vcpu_pinning="1"))
        host.handle(message(uuid, now(), name="instance.delete.end", host=where, publisher=API))
    host.settle()
    assert not host.store.instances()


def test_after_its_deletion_an_instance_returns_only_if_libvirt_has_it(host):
    host.handle(update(now()))
    host.handle(update(now(), name="instance.delete.end"))
    host.handle(update(now(), publisher=API))
    host.settle()
    assert not host.store.instances()
    host.domains[UUID] = True
    host.handle(update(now(), publisher=API))
    host.settle()
    assert host.store.get(UUID).status == "applied"


# ---- any sequence of events, in any order ----

PUBLISHERS = (COMPUTE, f"nova-compute:{OTHER}", API, "nova-conductor:controller")
INSTANCES = tuple(f"{UUID[:-1]}{number}" for number in range(2))


@dataclass
class Cloud:
    """What is true: where the instances are; and the notifications that are on their way.

    :ivar skews: how many seconds each publisher's clock is ahead.
    """

    begin: float
    skews: dict[str, float]
    where: dict[str, Place] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    published: set[str] = field(default_factory=set)
    pending: list[dict[str, Any]] = field(default_factory=list)
    passed: float = 0.0

    def publish(self, instance_uuid, publisher, name="instance.update"):
        """Have a publisher report where an instance is now."""
        self.passed += 1.0
        place = self.where[instance_uuid]
        host = {HERE: HOST, ELSEWHERE: OTHER, NOWHERE: None}[place]
        sent_at = self.begin + self.passed + self.skews[publisher]
        self.pending.append(
            message(
                instance_uuid, sent_at, name=name, host=host, publisher=publisher, vcpu_pinning="1"
            )
        )
        if place is HERE:
            self.published.add(instance_uuid)

    def move(self, instance_uuid, place, publisher, domains, *, runs):
        if instance_uuid in self.deleted:
            return
        self.where[instance_uuid] = place
        domains.pop(instance_uuid, None)
        if place is HERE:
            domains[instance_uuid] = runs
        self.publish(instance_uuid, publisher)

    def delete(self, instance_uuid, publisher, domains):
        if instance_uuid in self.where and instance_uuid not in self.deleted:
            self.where[instance_uuid] = NOWHERE
            self.deleted.add(instance_uuid)
            domains.pop(instance_uuid, None)
            self.publish(instance_uuid, publisher, "instance.delete.end")


instances = st.sampled_from(INSTANCES)
publishers = st.sampled_from(PUBLISHERS)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("move"), instances, st.sampled_from(Place), publishers, st.booleans()),
        st.tuples(st.just("publish"), instances, publishers),
        st.tuples(st.just("delete"), instances, publishers),
        st.tuples(st.just("deliver"), st.integers(0, 50), st.booleans()),
        st.tuples(st.just("settle")),
    ),
    max_size=25,
)
skews = st.fixed_dictionaries(
    {publisher: st.sampled_from([0.0, 0.0, -2.0, -3600.0, 90.0]) for publisher in PUBLISHERS}
)
thorough = settings(
    max_examples=examples(60),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def play(host, cloud, what, order):
    """Let things happen, events arrive shuffled, doubled and late, and all of them in the end."""
    doubled = []

    def deliver(number, *, twice=False):
        made = cloud.pending.pop(number % len(cloud.pending))
        doubled.extend([made] * twice)
        before = running(host)
        host.handle(made)
        assert before <= host.store.instances(), "given up while it runs"

    for step, *rest in what:
        if step == "move":
            instance_uuid, place, publisher, runs = rest
            cloud.move(instance_uuid, place, publisher, host.domains, runs=runs)
        elif step == "publish" and rest[0] in cloud.where and rest[0] not in cloud.deleted:
            cloud.publish(*rest)
        elif step == "delete":
            cloud.delete(*rest, host.domains)
        elif step == "deliver" and cloud.pending:
            deliver(rest[0], twice=rest[1])
        elif step == "settle":
            before = running(host)
            host.settle()
            assert before <= host.store.instances(), "given up while it runs"
    while cloud.pending:
        deliver(order.random.randrange(100))
    for made in doubled:
        host.handle(made)
    host.settle()


def running(host):
    """Return the instances in the store whose guests run."""
    return {uuid for uuid in host.store.instances() if host.domains.get(uuid)}


class Shuffle:
    def __init__(self, chance):
        self.random = chance


def fresh(tmp_path_factory, *, nova):
    return Host(tmp_path_factory.mktemp("host"), nova=nova)


@thorough
@given(what=steps, chance=st.randoms(use_true_random=False), nova=st.booleans())
def test_with_synchronous_clocks_the_final_state_is_right_in_any_order(
    tmp_path_factory, what, chance, nova
):
    host = fresh(tmp_path_factory, nova=nova)
    cloud = Cloud(now() - 7200, dict.fromkeys(PUBLISHERS, 0.0))
    play(host, cloud, what, Shuffle(chance))
    for instance_uuid, place in cloud.where.items():
        if host.domains.get(instance_uuid):
            assert host.store.get(instance_uuid).status in ("applied", "elsewhere")
        elif place is not HERE:
            assert not host.has_record(instance_uuid)
    host.store.close()


@thorough
@given(what=steps, skews=skews, chance=st.randoms(use_true_random=False))
def test_with_any_clocks_the_final_state_is_right_after_a_lookup_in_nova(
    tmp_path_factory, what, skews, chance
):
    host = fresh(tmp_path_factory, nova=True)
    cloud = Cloud(now() - 7200, skews)
    play(host, cloud, what, Shuffle(chance))
    for instance_uuid in cloud.deleted:
        assert not host.has_record(instance_uuid)
    for instance_uuid, place in cloud.where.items():
        if place is HERE or host.has_record(instance_uuid):
            there = OTHER if place is ELSEWHERE else ""
            host.trigger.handle_answer(
                instance_uuid, place, {KEY: "1"}, "API", Moment.now(), there
            )
    host.settle()
    for instance_uuid, place in cloud.where.items():
        assert host.has_record(instance_uuid) is (place is HERE)
        if host.domains.get(instance_uuid):
            assert host.store.get(instance_uuid).status == "applied"
    host.store.close()


def test_many_events_of_a_busy_cloud_evict_no_local_instance(host):
    begin = now() - 100
    host.handle(update(begin + 2))
    host.handle(update(begin + 3, host=OTHER, publisher=f"nova-compute:{OTHER}"))
    host.settle()
    assert not host.store.instances()
    read = events.read(message(UUID, begin, host=OTHER))
    for number in range(5000):
        uuid = f"5a6e9b1e-0000-4000-9000-{number:012}"
        foreign = events.InstanceEvent(uuid, uuid, OTHER, OTHER, {}, None, begin, read.publisher)
        host.trigger.note_elsewhere(foreign, ELSEWHERE)
    assert not host.handle(update(begin + 1))
    assert not host.store.instances()
