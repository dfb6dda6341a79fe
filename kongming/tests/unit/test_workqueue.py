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

"""The work queue: one worker for each key, bursts collapse, failures come again."""

import threading

import pytest

from kongming.executor.workqueue import WorkQueue
from kongming.runtime.backoff import Backoff
from kongming.tests.testbed.process import patience


@pytest.fixture
def queue():
    return WorkQueue(retry_max=lambda: 0.01)


def test_keys_are_handed_out_in_their_order_and_once(queue):
    for key in ["a", "b", "a", "a"]:
        queue.add(key)
    assert len(queue) == 2
    assert [queue.get(), queue.get()] == ["a", "b"]
    assert len(queue) == 0


def test_a_key_that_is_worked_on_waits_for_its_worker(queue):
    queue.add("a")
    assert queue.get() == "a"
    for _ in range(3):
        queue.add("a")
    queue.add("b")
    assert queue.get() == "b"
    queue.done("a", succeeded=True)
    assert queue.get() == "a"
    queue.done("a", succeeded=True)
    assert len(queue) == 0


def test_keys_added_together_are_handed_out_once_all_are_added(queue):
    taken = []
    worker = threading.Thread(target=lambda: taken.extend([queue.get(), queue.get()]))
    with queue.batch():
        worker.start()
        queue.add("a")
        with queue.batch():
            queue.add("b")
        # A worker that did not wait would have both long before.
        worker.join(0.05)
        assert (taken, len(queue)) == ([], 2)
    worker.join(10 * patience())
    assert taken == ["a", "b"]


def test_a_paused_queue_releases_its_workers_when_it_is_closed(queue):
    with queue.batch():
        queue.add("a")
        queue.close()
        assert queue.get() is None


def test_a_failure_that_ends_the_adding_leaves_the_queue_open(queue):
    queue.add("a")
    with pytest.raises(OSError, match="full"), queue.batch():
        raise OSError("full")
    assert queue.get() == "a"


def test_a_failed_key_is_retried_by_itself(queue):
    queue.add("a")
    queue.done(queue.get(), succeeded=False)
    assert queue.get() == "a"


def resting():
    queue = WorkQueue(retry_max=lambda: 3600)
    queue.add("a")
    queue.done(queue.get(), succeeded=True, pause=3600)
    return queue


def test_a_key_that_rests_is_left_alone_unless_it_is_urgent():
    queue = resting()
    for _ in range(3):
        queue.add("a", urgent=False)
    assert len(queue) == 0
    assert len(queue._later) == 1
    queue.add("a")
    assert queue.get() == "a"


def test_a_key_that_failed_rests_until_its_next_attempt():
    queue = WorkQueue(retry_max=lambda: 3600)
    queue.add("a")
    queue.add("b")
    assert queue.get() == "a"
    queue.add("a", urgent=False)
    queue.done("a", succeeded=False)
    queue.add("a", urgent=False)
    assert len(queue) == 1
    assert len(queue._later) == 1


def test_a_key_that_became_urgent_while_it_failed_does_not_wait():
    queue = WorkQueue(retry_max=lambda: 3600)
    queue.add("a")
    assert queue.get() == "a"
    queue.add("a")
    queue.add("a", urgent=False)
    queue.done("a", succeeded=False)
    assert queue.get() == "a"


def test_closing_lets_waiting_workers_go(queue):
    got = []
    worker = threading.Thread(target=lambda: got.append(queue.get()))
    worker.start()
    queue.close()
    worker.join(10 * patience())
    assert got == [None]
    queue.add("a")
    assert queue.get() is None


def test_no_key_is_ever_worked_on_twice_at_once(queue):
    busy, clashes, keys = set(), [], []
    lock = threading.Lock()

    def work():
        while (key := queue.get()) is not None:
            with lock:
                clashes.extend([key] if key in busy else [])
                busy.add(key)
            with lock:
                busy.discard(key)
                keys.append(key)
                last = len(keys) > 300
            queue.done(key, succeeded=len(keys) % 7 != 0)
            queue.add(key)
            if last:
                queue.close()

    for key in "abc":
        queue.add(key)
    workers = [threading.Thread(target=work) for _ in range(5)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30 * patience())
    assert not clashes
    assert set(keys) == set("abc")


def test_delays_grow_to_the_maximum_and_start_again():
    backoff = Backoff(maximum=5)
    assert [backoff.next() for _ in range(5)] == [1, 2, 4, 5, 5]
    backoff.reset()
    assert backoff.next() == 1
