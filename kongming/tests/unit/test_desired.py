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

"""Desired allocations of a host: which ones are stored, and which reports follow."""

from contextlib import nullcontext
import itertools

import pytest

from kongming import exception
from kongming.allocation.request import Source
from kongming.allocation.statuses import Status
from kongming.executor.store.record import Record
from kongming.rpc.messages import Desired, Report
from kongming.standalone import desired as standalone_desired
from kongming.standalone.desired import DesiredAllocations, newer, request_of
from kongming.tests.databases import asking, instance

UUID, OTHER = instance(), instance(2)
PINS = {"vcpu_pinning": "0"}


class Executor:
    """An executor in memory.

    :ivar requested: generation and record by instance.
    :ivar being_released: the instances that are not back at their baseline yet.
    """

    def __init__(self):
        self.requested = {}
        self.running, self.being_released, self.calls = [UUID], set(), []

    def batch(self):
        return nullcontext()

    def guests(self):
        return self.running

    def returning(self):
        return dict.fromkeys(self.being_released, 0)

    def requested_by(self, source):
        assert source is Source.API
        return self.requested

    def request(self, instance_uuid, request):
        record = Record(
            instance_uuid, asking(0), None, 1, Status.APPLIED, "", "", 1e9, "api", "", None, ""
        )
        self.requested[instance_uuid] = (request.generation, record)

    def withdraw(self, instance_uuid, source, by):
        self.requested.pop(instance_uuid, None)

    def withdraw_all(self, source, by):
        self.calls.append((source, by))

    def forget(self, instance_uuid):
        self.requested.pop(instance_uuid, None)


@pytest.fixture
def executor():
    return Executor()


@pytest.fixture
def desired(executor, monkeypatch):
    ticks = itertools.count(1)
    monkeypatch.setattr(standalone_desired.time, "monotonic", lambda: float(next(ticks)))
    return DesiredAllocations(executor)


@pytest.mark.parametrize(
    ("known", "is_newer"), [({}, True), ({UUID: 1}, True), ({UUID: 2}, False), ({UUID: 3}, False)]
)
def test_only_a_higher_generation_is_newer(known, is_newer):
    found = Desired(2, PINS)
    assert newer({UUID: found}, known) == ({UUID: found} if is_newer else {})


def test_a_request_has_the_generation_and_the_requester():
    request = request_of(Desired(7, PINS, "mano"), 5.0)
    assert (request.generation, request.source) == (7, Source.API)


def test_an_allocation_that_this_version_can_not_read_becomes_a_refusal(executor, desired):
    requests = []
    executor.request = lambda _uuid, request: requests.append(request)
    desired.accept_push({UUID: Desired(7, {"later": 1})})
    (request,) = requests
    assert isinstance(request.requested, exception.Refused)


def test_a_push_with_a_generation_that_is_not_newer_is_ignored(executor, desired):
    desired.accept_push({UUID: Desired(3, PINS)})
    desired.accept_push({UUID: Desired(2, None)})
    assert desired.generations() == {UUID: 3}


def test_an_answer_counts_even_with_a_lower_generation(desired):
    desired.accept_push({UUID: Desired(3, PINS)})
    desired.accept_answer({UUID: Desired(2, PINS)}, began_at=100.0)
    assert desired.generations() == {UUID: 2}


def test_an_answer_is_ignored_for_an_instance_that_was_pushed_since(desired):
    desired.accept_push({UUID: Desired(3, PINS)})
    desired.accept_answer({UUID: Desired(2, PINS), OTHER: Desired(1, PINS)}, began_at=0.0)
    assert desired.generations() == {UUID: 3, OTHER: 1}
    # A later exchange counts again.
    desired.accept_answer({UUID: Desired(2, PINS)}, began_at=100.0)
    assert desired.generations() == {UUID: 2, OTHER: 1}


def test_a_release_is_reported_when_the_guest_is_back_until_it_is_acknowledged(executor, desired):
    desired.accept_push({UUID: Desired(3, PINS)})
    executor.being_released = {UUID}
    desired.accept_push({UUID: Desired(4, None)})
    assert (desired.reports(), desired.generations()) == ({}, {UUID: 4})
    executor.being_released = set()
    report = desired.reports()[UUID]
    assert (report.status, report.generation) == (Status.RELEASED, 4)
    desired.acknowledge([Report.released(UUID, 3, 1e9)])
    assert UUID in desired.reports()
    desired.acknowledge([report])
    assert (desired.reports(), desired.generations()) == ({}, {})


def test_a_request_after_a_release_replaces_it(desired):
    desired.accept_push({UUID: Desired(4, None)})
    desired.accept_push({UUID: Desired(5, PINS)})
    assert (desired.reports()[UUID].status, desired.generations()) == ("applied", {UUID: 5})


def test_only_instances_that_do_not_run_here_are_forgotten(executor, desired):
    desired.accept_push({UUID: Desired(1, PINS), OTHER: Desired(1, None)})
    desired.forget([UUID, OTHER])
    assert desired.generations() == {UUID: 1}


def test_a_guest_that_returns_to_its_baseline_without_a_request_is_known(executor, desired):
    executor.being_released = {OTHER}
    assert desired.generations() == {OTHER: 0}


def test_requests_of_metadata_are_withdrawn(executor, desired):
    desired.withdraw_metadata()
    assert executor.calls == [(Source.METADATA, "Kongming's API")]
