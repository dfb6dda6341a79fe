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
"""Waits of the API: bounded, and one thread of the server is always free for others."""

from concurrent.futures import ThreadPoolExecutor
import threading

from oslo_context import context as oslo_context
import pytest

from kongming.api import waiting
from kongming.api.waiting import Waiting
from kongming.exception import ThreadsBusy
from kongming.runtime import server_threads
from kongming.runtime.server_threads import ServerThreads
from kongming.tests.testbed.process import patience, wait_until

THREADS = 4
LONG_S = 60.0


class Server:
    """A WSGI server with some threads, whose requests all wait for the same answer."""

    def __init__(self, monkeypatch, threads=THREADS, patience_s=0.0):
        monkeypatch.setattr(server_threads, "PATIENCE_S", patience_s)
        self.waiting = Waiting(ServerThreads(threads))
        self.answer = threading.Event()
        self.begun = []
        self.pool = ThreadPoolExecutor(16)

    def wait(self, limit_s=LONG_S):
        """Be a request that waits."""

        def work():
            self.begun.append(threading.current_thread())
            assert self.answer.wait(30 * patience())
            return "answer"

        return self.waiting.wait_for(work, limit_s)

    def begin(self):
        """Begin one in a thread of the server; returns when it waits."""
        before = len(self.begun)
        found = self.pool.submit(self.wait)
        wait_until(lambda: len(self.begun) > before or found.done(), 30, "it waits")
        return found

    def end(self):
        self.answer.set()
        self.pool.shutdown()


@pytest.fixture
def server(monkeypatch):
    server = Server(monkeypatch)
    yield server
    server.end()


@pytest.fixture
def patient(monkeypatch):
    """One that waits for long before it gives up the last thread."""
    server = Server(monkeypatch, patience_s=LONG_S)
    yield server
    server.end()


def test_the_result_is_returned_or_its_error_raised(server):
    assert server.waiting.wait_for(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        server.waiting.wait_for(lambda: 1 // 0)


def test_no_request_waits_longer_than_the_limit(server):
    with pytest.raises(TimeoutError):
        server.wait(limit_s=0.0)


def test_all_threads_except_the_last_may_wait(server):
    others = [server.begin() for _ in range(THREADS - 1)]
    with pytest.raises(ThreadsBusy):
        server.wait()
    # That one is refused without anything being begun for it.
    assert len(server.begun) == THREADS - 1
    assert not any(each.done() for each in others)
    server.answer.set()
    assert [each.result(30) for each in others] == ["answer"] * (THREADS - 1)


def test_further_requests_are_refused_and_the_last_thread_stays_free(server):
    for _ in range(THREADS - 1):
        server.begin()
    for _ in range(3):
        with pytest.raises(ThreadsBusy):
            server.wait()


def test_a_request_may_wait_after_another_has_ended(server):
    for _ in range(THREADS - 2):
        server.begin()
    assert not server.begin().done()


def test_the_last_thread_may_wait_for_a_moment_while_the_others_are_quick(patient):
    others = [patient.begin() for _ in range(THREADS)]
    assert len(patient.begun) == THREADS
    patient.answer.set()
    assert [each.result(30) for each in others] == ["answer"] * THREADS


def test_the_latest_request_frees_its_thread_in_time(monkeypatch):
    server = Server(monkeypatch, patience_s=LONG_S)
    others = [server.begin() for _ in range(THREADS)]
    monkeypatch.setattr(server_threads, "PATIENCE_S", 0.0)
    with server.waiting._threads.changed:
        server.waiting._threads.changed.notify_all()
    with pytest.raises(ThreadsBusy):
        others[-1].result(30)
    assert not any(each.done() for each in others[:-1])
    server.end()


def test_a_short_call_is_not_refused(monkeypatch):
    server = Server(monkeypatch, patience_s=0.01)
    for _ in range(THREADS - 1):
        server.begin()
    wait_until(lambda: is_refused(server), 30, "all of them are slow")
    with pytest.raises(TimeoutError):
        server.wait(limit_s=0.01)
    server.end()


def is_refused(server):
    try:
        server.wait(limit_s=0.02)
    except ThreadsBusy:
        return True
    except TimeoutError:
        return False


@pytest.mark.parametrize("threads", [1, 2])
def test_one_request_may_wait_with_any_number_of_threads(monkeypatch, threads):
    server = Server(monkeypatch, threads)
    found = server.begin()
    with pytest.raises(ThreadsBusy):
        server.wait()
    server.end()
    assert found.result(30) == "answer"


def test_a_finished_wait_occupies_no_place(server):
    for _ in range(2 * THREADS):
        with pytest.raises(TimeoutError):
            server.wait(limit_s=0.0)
    others = [server.begin() for _ in range(THREADS - 1)]
    assert not any(each.done() for each in others)


def test_abandoned_calls_are_bounded_too(server):
    for _ in range(waiting._LEFT_MAX):
        with pytest.raises(TimeoutError):
            server.wait(limit_s=0.0)
    begun = len(server.begun)
    for _ in range(2):
        with pytest.raises(ThreadsBusy):
            server.wait()
    assert len(server.begun) == begun
    server.answer.set()
    wait_until(lambda: not any(each.is_alive() for each in server.begun), 30, "all have ended")
    assert server.wait() == "answer"


def test_lines_that_are_logged_while_waiting_belong_to_the_same_request(server):
    mine = oslo_context.RequestContext(user_id="mine")
    assert server.waiting.wait_for(oslo_context.get_current) is mine
