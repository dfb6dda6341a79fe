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

"""A worker's turn: what is checked, what is retried, and what is reported."""

import pytest

from kongming import exception
from kongming.executor.pass_runner import UNCLAIMED, PassRunner
from kongming.executor.reconciler import Result
from kongming.hypervisor.calls import Call

UUID = "5a6e9b1e-0000-4000-8000-000000000001"
OTHER = "5a6e9b1e-0000-4000-8000-000000000002"


class Executor:
    """All that a turn works with; each check returns the result that a test sets, or raises it.

    :ivar held: the instances that the store holds.
    :ivar looks: what was looked at, by whom.
    :ivar finished: the key that each turn returned to the queue, with its outcome.
    """

    def __init__(self):
        self.instances = {UUID}
        self.result = Result.DONE
        self.unclaimed = []
        self.claims_it = self.again = False
        self.looks, self.finished, self.added, self.passes = [], [], [], []
        self.hung = []
        self.runner = PassRunner(self, self, self, self, self.passes.append)

    def work(self, key=UUID):
        self.runner.run(key)
        return self.finished[-1]

    # The store.
    def has_record(self, key):
        return key in self.instances

    # The queue.
    def add(self, key):
        self.added.append(key)

    def done(self, key, *, succeeded, pause):
        self.finished.append((key, succeeded, pause))

    # The reconciler.
    def reconcile(self, key):
        self.looks.append(("reconciler", key))
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def report_hung(self, instance_uuid, hung):
        if isinstance(self.result, Exception):
            raise self.result
        self.hung.append((instance_uuid, hung.reason))

    # The check of unclaimed guests.
    def find(self):
        if isinstance(self.unclaimed, Exception):
            raise self.unclaimed
        return self.unclaimed

    def check(self, key):
        self.looks.append(("unclaimed", key))
        if self.claims_it:
            self.instances.add(key)
        return self.again


@pytest.fixture
def executor():
    return Executor()


@pytest.mark.parametrize(("result", "succeeded"), [(Result.DONE, True), (Result.RETRY, False)])
def test_an_instance_that_is_kept_is_reconciled_once(executor, result, succeeded):
    executor.result = result
    assert executor.work() == (UUID, succeeded, 0.0)
    assert executor.looks == [("reconciler", UUID)]
    assert executor.passes == [UUID]


@pytest.mark.parametrize("again", [True, False])
def test_an_unknown_guest_is_checked_as_such(executor, again):
    executor.again = again
    assert executor.work(OTHER) == (OTHER, not again, 0.0)
    assert executor.looks == [("reconciler", OTHER), ("unclaimed", OTHER)]


def test_a_guest_that_is_found_to_be_released_is_released_in_the_same_turn(executor):
    executor.claims_it, executor.again = True, True
    assert executor.work(OTHER) == (OTHER, True, 0.0)
    assert executor.looks[2:] == [("reconciler", OTHER)]


def test_a_search_for_unknown_guests_is_no_pass(executor):
    executor.unclaimed = [OTHER, UUID]
    assert executor.work(UNCLAIMED) == (UNCLAIMED, True, 0.0)
    assert executor.added == [OTHER, UUID]
    assert (executor.looks, executor.passes) == ([], [])


def test_a_guest_that_is_corrected_all_the_time_rests(executor):
    executor.result = Result.CORRECTED
    rests = [executor.work()[1:] for _ in range(5)]
    assert rests[:4] == [(True, 0.0)] * 4
    assert rests[4][0]
    assert rests[4][1] > 0


def test_a_guest_without_corrections_does_not_rest(executor):
    assert {executor.work() for _ in range(10)} == {(UUID, True, 0.0)}


def test_without_libvirt_no_pass_is_retried_before_it_is_back(executor, caplog):
    executor.result = exception.HypervisorUnavailable("no")
    assert executor.work() == (UUID, True, 0.0)
    assert executor.passes == [UUID]
    assert "ERROR" not in caplog.text


def test_an_instance_without_a_free_connection_is_retried(executor):
    executor.result = exception.HypervisorBusy("no")
    assert executor.work() == (UUID, False, 0.0)


@pytest.mark.parametrize("error", [exception.LibvirtForbids("no"), exception.Failed("no")])
def test_an_unknown_list_of_guests_is_logged_once_and_retried(executor, caplog, error):
    executor.unclaimed = error
    for _ in range(3):
        assert executor.work(UNCLAIMED) == (UNCLAIMED, False, 0.0)
    assert caplog.text.count(f"The guests of this host can't be listed ({error.reason}): no") == 1
    assert "Traceback" not in caplog.text


def test_an_outage_of_the_store_is_logged_once(executor, caplog):
    executor.result = exception.StoreUnavailable("disk full", exception.Outage())
    for _ in range(3):
        assert executor.work() == (UUID, False, 0.0)
    assert caplog.text.count("ERROR") == 1
    assert f"Instance {UUID}: disk full; it will be retried" in caplog.text


def test_an_internal_fault_is_logged_with_its_place_and_ends_no_worker(executor, caplog):
    executor.result = ZeroDivisionError("of ours")
    assert executor.work() == (UUID, False, 0.0)
    assert f"Instance {UUID}: of ours; it will be retried" in caplog.text
    assert "Traceback" in caplog.text


@pytest.mark.parametrize(("uuid", "about"), [(UUID, f"Instance {UUID}"), ("", "libvirt")])
def test_a_call_that_hangs_is_logged_and_kept(executor, caplog, uuid, about):
    call = Call(1, uuid, "reading its job", 0.0, 0.0, 1.0)
    executor.runner.report_hung(call)
    assert executor.hung == [(uuid, "guest_hung")]
    assert executor.passes == [uuid]
    assert f"{about}: failed (guest_hung): reading its job has not returned" in caplog.text
    caplog.set_level("DEBUG")
    caplog.clear()
    executor.result = exception.StoreUnavailable("disk full")
    executor.runner.report_hung(call)
    assert executor.passes == [uuid, uuid]
    assert ("DEBUG", "disk full") in [(each.levelname, each.message) for each in caplog.records]
