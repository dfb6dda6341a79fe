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

"""Whether a database answers: who waits for it, who is notified, and when it is probed again."""

from contextlib import ExitStack
import socket
import threading

from oslo_context import context as oslo_context
import pytest

from kongming import exception
from kongming.db import liveness
from kongming.db.liveness import Attempt, Liveness
from kongming.runtime.server_threads import ServerThreads
from kongming.tests.testbed.process import wait_until


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(liveness, "PROBE_AFTER_S", 0.1)
    monkeypatch.setattr(liveness, "_STEP_S", 0.02)
    monkeypatch.setattr(liveness, "_RETRY_S", 0.05)


class Server:
    """A server that answers questions, or does not.

    :ivar pings: the number of pings.
    """

    def __init__(self):
        self.answers = threading.Event()
        self.answers.set()
        self.pings = 0
        self.error = None

    def ping(self):
        self.pings += 1
        self.answers.wait()
        if self.error is not None:
            raise self.error


@pytest.fixture
def server():
    server = Server()
    yield server
    server.answers.set()


@pytest.fixture
def watch(server):
    made = Liveness("the database d", server.ping, 0.2)
    yield made
    made.close()


class Line:
    """A connection of a driver: one end of a line on which nothing comes by itself."""

    def __init__(self):
        self.mine, self.other = socket.socketpair()

    def fileno(self):
        return self.mine.fileno()

    def read(self):
        """Wait for what comes; nothing if the line was cut."""
        return self.mine.recv(1)

    def close(self):
        self.mine.close()
        self.other.close()


@pytest.fixture
def line(watch):
    line = Line()
    watch.watch(line)
    yield line
    watch.forget(line)
    line.close()


def is_unresponsive(watch):
    try:
        watch.check()
    except exception.DatabaseUnavailable as error:
        return "the database d is unavailable" in str(error)
    return False


def test_a_wait_for_an_unresponsive_database_is_ended(watch, server, line):
    server.answers.clear()
    with watch.waiting(line, 3600):
        assert line.read() == b""
    assert is_unresponsive(watch)


def test_a_request_that_waits_for_a_responsive_database_is_not_cut_off(watch, server, line):
    with watch.waiting(line, 3600):
        wait_until(lambda: server.pings >= 3, 30, "it was pinged a few times")
        line.other.send(b"x")
        assert line.read() == b"x"
    assert not is_unresponsive(watch)


@pytest.mark.parametrize("error", [OSError("refused"), exception.KongmingError("no")])
def test_an_error_is_an_answer(watch, server, line, error):
    server.error = error
    with watch.waiting(line, 3600):
        wait_until(lambda: server.pings >= 2, 30, "it was pinged")
    assert not is_unresponsive(watch)


def test_a_probe_that_has_timed_out_is_no_answer(watch, server, line):
    server.error = TimeoutError()
    with watch.waiting(line, 3600):
        assert line.read() == b""
    assert is_unresponsive(watch)


def test_a_wait_that_was_ended_during_a_probe_is_no_answer(watch, server, line):
    server.answers.clear()
    with watch.waiting(line, 0.15):
        assert line.read() == b""
    wait_until(lambda: is_unresponsive(watch), 30, "the database counts as unresponsive")


def test_a_short_wait_needs_no_probe(watch, server, line, monkeypatch):
    # A busy machine may take a moment for one.
    monkeypatch.setattr(liveness, "PROBE_AFTER_S", 5.0)
    for _ in range(1000):
        with watch.waiting(line, 3600):
            pass
    assert server.pings == 0


def receive(watch, condition):
    """Be answered again and again until a condition is true."""
    line = Line()
    watch.watch(line)

    def is_true():
        with watch.waiting(line, 3600):
            pass
        return condition()

    try:
        wait_until(is_true, 30, "what it waits for")
    finally:
        watch.forget(line)
        line.close()


def test_an_answer_to_another_request_counts_as_responsive(watch, server, line):
    """Then the question is slow, not the database."""
    server.answers.clear()
    with watch.waiting(line, 3600):
        receive(watch, lambda: server.pings >= 3)
        assert not is_unresponsive(watch)


def test_a_wait_has_an_end_even_if_the_database_answers_others(watch, server, line):
    with watch.waiting(line, 0.0):
        assert line.read() == b""
    assert not is_unresponsive(watch)


def test_a_request_that_has_ended_waiting_is_not_cut_off(watch, server, line):
    """During the probe the connection may have been given to another thread."""
    server.answers.clear()
    # It would be over before the question is.
    with watch.waiting(line, 2 * liveness.PROBE_AFTER_S):
        wait_until(lambda: server.pings == 1, 30, "it is pinged")
    other = Line()
    watch.watch(other)
    with watch.waiting(other, 3600):
        # Other requests get answers meanwhile.
        receive(watch, lambda: server.pings >= 2)
    line.other.send(b"x")
    assert line.read() == b"x"
    watch.forget(other)
    other.close()


def test_no_request_waits_for_an_unresponsive_database_until_it_answers(watch, server, line):
    server.answers.clear()
    with watch.waiting(line, 3600):
        line.read()
    with pytest.raises(exception.DatabaseUnavailable, match="is unavailable"):
        watch.connect(lambda: pytest.fail("connected"), lambda _: None, 3600)
    server.answers.set()
    wait_until(lambda: not is_unresponsive(watch), 30, "it answers again")
    assert watch.connect(lambda: "made", lambda _: None, 3600) == "made"


def test_a_connection_that_is_not_established_is_not_waited_for_and_closed_if_it_comes(
    watch, server
):
    server.answers.clear()
    late, closed = threading.Event(), []

    def make():
        late.wait()
        return "late"

    with pytest.raises(exception.DatabaseUnavailable, match="is unavailable"):
        watch.connect(make, closed.append, 3600)
    late.set()
    wait_until(lambda: closed == ["late"], 30, "it is closed")


def test_a_connection_is_not_waited_for_longer_than_its_limit(watch, server):
    late = threading.Event()
    with pytest.raises(exception.DatabaseUnavailable, match="is unavailable"):
        watch.connect(late.wait, lambda _: None, 0.0)
    late.set()
    assert not is_unresponsive(watch)


def test_a_connection_error_is_that_of_the_driver(watch):
    def make():
        raise ConnectionRefusedError("no")

    with pytest.raises(ConnectionRefusedError):
        watch.connect(make, lambda _: None, 3600)


def test_a_line_that_its_driver_has_closed_is_not_cut_for_another(watch, server):
    """Its number may be that of any other file by then."""
    server.answers.clear()
    closed = Line()
    watch.watch(closed)
    with watch.waiting(closed, 3600):
        closed.mine.close()
        taking_its_number = Line()
        wait_until(lambda: is_unresponsive(watch), 30, "it is unresponsive")
        wait_until(lambda: closed.other.recv(1) == b"", 30, "the line is cut")
    taking_its_number.other.send(b"x")
    assert taking_its_number.read() == b"x"
    watch.forget(closed)
    closed.other.close()
    taking_its_number.close()


def test_an_abandoned_connection_is_closed_with_its_driver(watch, line):
    watch.forget(line)
    line.mine.close()
    assert line.other.recv(1) == b""
    # What was never watched, or is no more, can be waited for all the same.
    with watch.waiting(line, 3600):
        pass


def test_a_closed_probe_leaves_no_thread(watch, line):
    with watch.waiting(line, 3600):
        pass
    thread = watch._thread
    watch.close()
    wait_until(lambda: not thread.is_alive(), 30, "its thread has ended")
    # The next wait starts it again.
    with watch.waiting(line, 3600):
        assert watch._thread is not None


def test_work_that_has_ended_is_not_abandoned():
    attempt = Attempt(lambda: 5, lambda _: pytest.fail("dropped"))
    assert attempt.result() == 5
    attempt.abandon(OSError("late"))
    assert attempt.result() == 5


class Threads:
    """A process of a WSGI server of which all threads but the last one wait for long."""

    def __init__(self, number=3):
        self.made = ServerThreads(number)
        self._waits = ExitStack()
        for _ in range(number - 1):
            self._waits.enter_context(self.made.wait())

    def one_ends(self):
        self._waits.pop_all().close()


@pytest.fixture
def crowded(server):
    threads = Threads()
    made = Liveness("the database d", server.ping, 3600, threads.made)
    made.threads = threads
    yield made
    made.close()


@pytest.mark.parametrize("unresponsive", [False, True])
def test_a_request_that_waits_on_the_last_thread_of_a_server_frees_it(
    crowded, server, line, unresponsive
):
    if unresponsive:
        server.answers.clear()
    crowded.watch(line)
    with crowded.waiting(line, 3600):
        assert line.read() == b""
    with pytest.raises(exception.ThreadsBusy, match="wait for the database"):
        crowded.explain()
    # It is logged once.
    crowded.explain()
    crowded.forget(line)


def test_a_request_that_connects_on_the_last_thread_frees_it_too(crowded):
    late = threading.Event()
    with pytest.raises(exception.ThreadsBusy):
        crowded.connect(late.wait, lambda _: None, 3600)
    late.set()


def test_a_request_that_waits_on_another_thread_keeps_waiting(crowded, server, line):
    crowded.watch(line)
    crowded.threads.one_ends()
    with crowded.waiting(line, 3600):
        wait_until(lambda: server.pings >= 3, 30, "it has waited for longer than that")
        line.other.send(b"x")
        assert line.read() == b"x"
    crowded.explain()
    crowded.forget(line)


def test_a_handled_error_is_not_reported_later(crowded, line):
    crowded.watch(line)
    with crowded.waiting(line, 3600):
        assert line.read() == b""
    # The pool has made another connection instead.
    assert crowded.connect(lambda: "made", lambda _: None, 3600) == "made"
    crowded.explain()
    crowded.forget(line)


def test_lines_that_are_logged_while_waiting_belong_to_the_same_request():
    mine = oslo_context.RequestContext(user_id="mine")
    assert Attempt(oslo_context.get_current, lambda _: None).result() is mine


def test_a_moment_without_an_answer_is_waited_for(server, line):
    """It does not make a database unresponsive."""
    made = Liveness("the database d", server.ping, 3600)
    made.watch(line)
    server.answers.clear()
    with made.waiting(line, 3600):
        wait_until(lambda: server.pings, 30, "it is pinged")
        line.other.send(b"x")
        assert line.read() == b"x"
    assert not is_unresponsive(made)
    made.forget(line)
    made.close()
