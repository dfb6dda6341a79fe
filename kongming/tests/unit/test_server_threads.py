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

import pytest

from kongming.runtime import server_threads
from kongming.runtime.server_threads import ServerThreads


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """The time, which only a test changes; seconds."""
    now = [1000.0]
    monkeypatch.setattr(server_threads.time, "monotonic", lambda: now[0])
    return now


def pass_time(clock, seconds):
    clock[0] += seconds


def test_all_requests_wait_long_when_only_one_thread_is_free(clock):
    threads = ServerThreads(3)
    with threads.wait():
        pass_time(clock, 1)
        with threads.wait():
            pass_time(clock, 0.24)
            assert not threads.all_wait_long()
            pass_time(clock, 0.01)
            assert threads.all_wait_long()
        assert not threads.all_wait_long()


def test_the_latest_wait_must_end_if_it_has_the_last_thread(clock):
    threads = ServerThreads(3)
    with threads.wait() as first:
        pass_time(clock, 1)
        with threads.wait() as second:
            pass_time(clock, 1)
            assert not threads.must_end(second)
            with threads.wait() as last:
                pass_time(clock, 0.24)
                assert not threads.must_end(last)
                pass_time(clock, 0.01)
                assert threads.must_end(last)
                assert not threads.must_end(first)
                assert not threads.must_end(second)


@pytest.mark.parametrize("number", [1, 2])
def test_one_request_may_wait_for_any_number_of_threads(clock, number):
    threads = ServerThreads(number)
    with threads.wait() as first:
        pass_time(clock, 60)
        assert not threads.must_end(first)
        with threads.wait() as second:
            pass_time(clock, 60)
            assert threads.must_end(second)
