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

"""Instances that have left according to Nova: forgotten where libvirt agrees, else logged."""

from concurrent.futures import ThreadPoolExecutor
import contextlib
import threading

import pytest

from kongming import exception
from kongming.allocation import metadata
from kongming.allocation.request import Request, Source
from kongming.allocation.statuses import Status
from kongming.executor.departures import _GRACE_S, Departures
from kongming.executor.store.residence import Hint, Place
from kongming.executor.store.store import Store

UUID = "5a6e9b1e-0000-4000-8000-000000000001"
OTHER = "5a6e9b1e-0000-4000-8000-000000000002"
THERE = Hint(Place.ELSEWHERE, "compute-2", "instance.update of nova-compute:compute-2")
NOWHERE = Hint(Place.NOWHERE, reported_by="instance.delete.end of nova-api:a")
HERE = Hint(Place.HERE)
ANSWER = Hint(Place.ELSEWHERE, "compute-2", "Nova's API", from_api=True)
DOUBTFUL = Hint(Place.ELSEWHERE, "compute-2", uncertain=True)
OFF = exception.DomainOff("off")
GONE = exception.DomainGone("gone")
MIGRATED = exception.DomainGone("gone", migrated=True)


class Host:
    """Departures, with their store, a clock, and the questions to Nova."""

    def __init__(self, tmp_path):
        self.store = Store(tmp_path)
        self.now = 0.0
        self.looked_up = []
        self.departures = self.begin()

    def begin(self):
        return Departures("compute-1", self.store, self.looked_up.append, lambda: self.now)

    def hold(self, uuid=UUID, hint=None, cpus="1"):
        requested = metadata.parse({metadata.VCPU_PINNING: cpus} if cpus else {})
        self.store.request(uuid, Request(Source.METADATA, requested, "somebody", 1.5))
        self.hint(hint, uuid)

    def hint(self, hint, uuid=UUID):
        if hint is not None:
            self.store.hints.save(uuid, hint)

    def runs(self, uuid=UUID, domain_id=7):
        return self.departures.may_place(self.store.get(uuid), domain_id)

    def settle(self, uuid=UUID, domain_id=7):
        """Let it run until the hint counts."""
        self.runs(uuid, domain_id)
        self.now += _GRACE_S
        return self.runs(uuid, domain_id)

    def is_absent(self, absent, uuid=UUID):
        return self.departures.forget_departed(self.store.get(uuid), absent)


@pytest.fixture
def host(tmp_path):
    host = Host(tmp_path)
    yield host
    host.store.close()


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize("hint", [None, HERE])
def test_a_guest_of_this_host_is_placed(host, hint, caplog):
    host.hold(hint=hint)
    assert host.runs()
    assert host.departures.claim(UUID) is None
    assert not host.looked_up
    assert not caplog.records


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (THERE, "it is on compute-2 (instance.update of nova-compute:compute-2)"),
        (NOWHERE, "it is on no host (instance.delete.end of nova-api:a)"),
    ],
)
def test_a_guest_that_runs_in_spite_of_nova_is_kept_and_logged_once(host, hint, expected, caplog):
    host.hold(hint=hint)
    assert host.runs() is False
    host.now += _GRACE_S - 0.1
    assert host.runs() is False
    assert host.departures.claim(UUID) is None
    host.now += 0.1
    for _ in range(3):
        assert host.runs() is True
    (line,) = warnings(caplog)
    assert (
        f"Instance {UUID}: elsewhere (claimed_elsewhere): it runs on this host, compute-1" in line
    )
    assert expected in line
    assert expected in str(host.departures.claim(UUID))
    assert host.store.has_record(UUID)


def test_a_logged_departure_is_not_logged_again_after_a_restart(host, caplog):
    host.hold(hint=THERE)
    host.settle()
    host.store.report(host.store.get(UUID), Status.ELSEWHERE, host.departures.claim(UUID))
    host.departures = host.begin()
    host.settle()
    assert len(warnings(caplog)) == 1
    assert host.departures.claim(UUID) is not None


def test_a_departure_to_another_host_is_logged_again(host, caplog):
    host.hold(hint=THERE)
    host.settle()
    host.hint(Hint(Place.ELSEWHERE, "compute-3"))
    assert not host.runs()
    host.now += _GRACE_S
    assert host.runs()
    assert "it is on compute-3" in warnings(caplog)[1]


def test_a_guest_that_restarts_gets_its_grace_period_again(host):
    host.hold(hint=THERE)
    assert host.settle()
    assert not host.runs(domain_id=8)
    assert host.settle(domain_id=8)


def test_a_departure_is_settled_when_nova_names_this_host_again(host, caplog):
    caplog.set_level("INFO")
    host.hold(hint=THERE)
    host.settle()
    host.hint(HERE)
    assert host.runs()
    assert host.departures.claim(UUID) is None
    assert caplog.text.count("Nova reports again that it is on this host") == 1
    assert host.runs()
    assert caplog.text.count("Nova reports again that it is on this host") == 1
    host.hint(THERE)
    assert not host.runs()
    host.now += _GRACE_S
    assert host.runs()
    assert len(warnings(caplog)) == 2


def test_a_departure_that_was_settled_while_the_service_was_down_is_logged(host, caplog):
    caplog.set_level("INFO")
    host.hold()
    host.store.report(host.store.get(UUID), Status.ELSEWHERE, exception.ClaimedElsewhere("x"))
    assert host.runs()
    assert "Nova reports again" in caplog.text


def test_nova_is_queried_once_whether_its_event_is_right(host):
    host.hold(hint=THERE)
    for _ in range(3):
        host.runs()
    assert host.looked_up == [UUID]
    host.hint(ANSWER)
    host.settle()
    assert host.looked_up == [UUID]
    host.hint(NOWHERE)
    host.runs()
    assert host.looked_up == [UUID, UUID]


def test_a_lookup_that_could_not_be_stored_is_repeated(host):
    host.hold(hint=THERE)
    failing = Departures("compute-1", host.store, _fail, lambda: host.now)
    host.departures = failing
    with pytest.raises(exception.StoreUnavailable):
        host.runs()
    host.departures._request_lookup = host.looked_up.append
    host.runs()
    assert host.looked_up == [UUID]


def _fail(_uuid):
    raise exception.StoreUnavailable("no")


def test_a_doubtful_hint_leaves_a_guest_unchanged(host, caplog):
    host.hold(hint=DOUBTFUL)
    assert host.runs()
    host.now += 2 * _GRACE_S
    assert host.runs()
    assert host.departures.claim(UUID) is None
    assert host.looked_up == [UUID]
    assert not warnings(caplog)


def test_a_guest_that_is_returning_to_its_baseline_reaches_it(host):
    host.hold()
    host.hold(cpus="", hint=THERE)
    assert host.runs()
    assert host.departures.claim(UUID) is None


def test_a_request_that_can_not_be_read_is_kept_too(host):
    unreadable = Request(Source.METADATA, exception.RequestInvalid("bad"), "somebody", 1.5)
    host.store.request(UUID, unreadable)
    host.hint(THERE)
    assert host.settle()
    assert host.departures.claim(UUID) is not None


@pytest.mark.parametrize(
    ("hint", "absent", "forgotten"),
    [
        (None, GONE, False),
        (None, OFF, False),
        (None, MIGRATED, True),
        (HERE, GONE, False),
        (THERE, GONE, True),
        (THERE, OFF, False),
        (NOWHERE, OFF, True),
        (NOWHERE, GONE, True),
        (DOUBTFUL, OFF, False),
        (DOUBTFUL, GONE, True),
        # Whether it is there is not certain: it is just being ended.
        (THERE, exception.GuestAbsent("ends"), False),
        (NOWHERE, exception.GuestAbsent("ends"), False),
    ],
)
def test_an_instance_without_a_guest_is_forgotten_if_it_has_left(
    host, hint, absent, forgotten, caplog
):
    caplog.set_level("INFO")
    host.hold(hint=hint)
    assert host.is_absent(absent) is forgotten
    assert host.store.has_record(UUID) is not forgotten
    assert caplog.text.count(f"Instance {UUID}: has left this host, forgotten: ") == int(forgotten)
    assert not warnings(caplog)


def test_the_reason_for_forgetting_an_instance_is_in_its_history(host):
    host.hold(hint=THERE)
    host.is_absent(GONE)
    assert host.store.history(UUID)[-1].message == f"has left this host: Nova reports that {THERE}"
    host.hold()
    host.is_absent(MIGRATED)
    assert host.store.history(UUID)[-1].message == "has left this host: libvirt has migrated it"


def test_an_instance_with_a_newer_request_is_not_forgotten(host):
    host.hold(hint=THERE)
    record = host.store.get(UUID)
    host.hold(cpus="2")
    assert not host.departures.forget_departed(record, GONE)
    assert host.store.has_record(UUID)


def test_a_guest_that_stops_later_is_forgotten_then(host):
    host.hold(hint=THERE)
    assert host.settle()
    assert host.is_absent(GONE)
    assert host.departures.claim(UUID) is None


def test_a_guest_that_returns_is_claimed_again(host, caplog):
    host.hold(hint=THERE)
    host.settle()
    host.is_absent(GONE)
    host.hold(hint=THERE)
    assert not host.runs()
    host.now += _GRACE_S
    assert host.runs()
    assert len(warnings(caplog)) == 2


def test_nova_is_queried_about_an_instance_that_was_forgotten_in_doubt(host):
    host.hold(hint=DOUBTFUL)
    assert host.is_absent(GONE)
    assert host.looked_up == [UUID]


def everyone(caplog):
    return [line for line in warnings(caplog) if "Nova reports that none of" in line]


def test_departures_of_all_guests_are_logged_once_with_the_likely_cause(host, caplog):
    for uuid in (UUID, OTHER):
        host.hold(uuid, hint=THERE)
    for uuid in (UUID, OTHER, UUID):
        host.settle(uuid)
    (line,) = everyone(caplog)
    assert "Nova reports that none of the 2 instances" in line
    assert "[DEFAULT] host, which is compute-1" in line
    assert "region_name" in line


def test_two_workers_that_find_all_guests_departed_warn_once(host, caplog, monkeypatch):
    for uuid in (UUID, OTHER):
        host.hold(uuid, hint=THERE)
        host.runs(uuid)
    host.now += _GRACE_S
    elsewhere, both = host.store.hints.elsewhere, threading.Barrier(2)

    def find_together():
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.2)
        return elsewhere()

    monkeypatch.setattr(host.store.hints, "elsewhere", find_together)
    with ThreadPoolExecutor(2) as workers:
        assert list(workers.map(host.runs, (UUID, OTHER))) == [True, True]
    assert len(everyone(caplog)) == 1


def test_the_departure_of_one_of_several_guests_is_no_warning(host, caplog):
    host.hold(UUID, hint=THERE)
    host.hold(OTHER)
    host.settle()
    assert not everyone(caplog)
    assert len(warnings(caplog)) == 1


def test_the_departure_of_the_only_guest_is_no_warning(host, caplog):
    host.hold(hint=THERE)
    host.settle()
    assert not everyone(caplog)


def test_another_departure_of_all_guests_is_logged_again(host, caplog):
    for uuid in (UUID, OTHER):
        host.hold(uuid, hint=THERE)
        host.settle(uuid)
    host.hint(HERE)
    host.runs()
    host.hint(THERE)
    host.settle()
    assert len(everyone(caplog)) == 2
