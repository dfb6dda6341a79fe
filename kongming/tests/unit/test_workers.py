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
"""Workers: one that is held up by a call is replaced, and logged once."""

import threading

import pytest

from kongming.executor.workers import Workers
from kongming.executor.workqueue import WorkQueue
from kongming.hypervisor import calls as calls_module
from kongming.hypervisor.calls import Calls
from kongming.runtime.heartbeats import Heartbeats
from kongming.tests.testbed.process import patience, wait_until


class Clock:
    """A monotonic clock that a test sets."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    def time(self):
        return self.now


class Site:
    """Workers whose calls return when the test lets them."""

    def __init__(self, count, clock):
        self.clock = clock
        self.queue = WorkQueue(lambda: 60.0)
        self.calls = Calls()
        self.done = []
        self.hung = []
        self.gates = {}
        self.workers = Workers(
            count,
            self.queue,
            self.calls,
            work=self._work,
            on_hung=self.hung.append,
            heartbeats=Heartbeats(),
        )

    def hold(self, key):
        """Have the call for a key not return."""
        self.gates[key] = threading.Event()

    def release(self, key):
        self.gates[key].set()

    def add(self, *keys):
        for key in keys:
            self.queue.add(key)

    def wait_under_way(self, count):
        wait_until(lambda: len(self.calls.older_than(-1.0)) == count, 10, f"{count} calls")

    def pass_seconds(self, seconds):
        self.clock.now += seconds
        self.workers._check()

    def wait_done(self, *keys):
        wait_until(lambda: set(keys) <= set(self.done), 10, f"done: {keys}")

    def _work(self, key):
        with self.calls.make(f"pinning {key}", key):
            gate = self.gates.get(key)
            if gate is not None:
                gate.wait(20 * patience())
        self.done.append(key)
        self.queue.done(key, succeeded=True)


@pytest.fixture
def make(monkeypatch):
    sites = []

    def make(count):
        clock = Clock()
        monkeypatch.setattr(calls_module, "time", clock)
        sites.append(Site(count, clock))
        # Its looks are the test's.
        sites[-1].workers._fill_up()
        return sites[-1]

    yield make
    for site in sites:
        for gate in site.gates.values():
            gate.set()
        site.queue.close()
        assert site.workers.join(10 * patience())


@pytest.mark.parametrize("count", [1, 4])
def test_other_instances_proceed_while_every_original_worker_is_blocked(make, count):
    site = make(count)
    stuck = [f"stuck-{number}" for number in range(count)]
    for key in stuck:
        site.hold(key)
    site.add(*stuck)
    site.wait_under_way(count)
    site.add("healthy")
    site.pass_seconds(1.5)
    site.wait_done("healthy")
    assert site.workers.held_up == count
    assert not site.hung


def test_a_slow_call_is_not_logged(make):
    site = make(1)
    site.hold("slow")
    site.add("slow")
    site.wait_under_way(1)
    site.pass_seconds(59.0)
    assert not site.hung
    site.pass_seconds(2.0)
    assert [call.doing for call in site.hung] == ["pinning slow"]


def test_a_call_that_does_not_return_is_logged_once(make):
    site = make(1)
    site.hold("stuck")
    site.add("stuck")
    site.wait_under_way(1)
    for _ in range(5):
        site.pass_seconds(40.0)
    (call,) = site.hung
    assert (call.instance_uuid, call.doing, call.began_at) == ("stuck", "pinning stuck", 1000.0)


def test_a_worker_that_returns_is_superfluous_and_ends(make):
    site = make(1)
    site.hold("stuck")
    site.add("stuck")
    site.wait_under_way(1)
    site.pass_seconds(2.0)
    assert len(site.workers._threads) == 2
    site.release("stuck")
    site.wait_done("stuck")
    wait_until(lambda: len(site.workers._threads) == 1, 10, "one worker is left")
    site.workers._check()
    assert site.workers.held_up == 0
    site.add("another")
    site.wait_done("another")


def test_a_blocked_instance_is_not_processed_a_second_time(make):
    site = make(1)
    site.hold("stuck")
    site.add("stuck")
    site.wait_under_way(1)
    site.pass_seconds(2.0)
    site.add("stuck", "other")
    site.wait_done("other")
    assert site.done == ["other"]
    site.release("stuck")
    wait_until(lambda: site.done == ["other", "stuck", "stuck"], 10, "looked at once more")


def test_the_number_of_workers_is_bounded(make):
    site = make(16)
    stuck = [f"stuck-{number}" for number in range(100)]
    for key in stuck:
        site.hold(key)
    site.add(*stuck)
    for number in (16, 32, 48, 64, 64):
        site.wait_under_way(number)
        site.pass_seconds(1.5)
    assert site.workers.held_up == 64
