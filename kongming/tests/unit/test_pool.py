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
"""Connections for calls: each belongs to one thread while it is lent."""

import threading

import libvirt
import pytest

from kongming.hypervisor.pool import Pool


class Connection:
    def __init__(self):
        self.alive, self.closed = True, False

    def isAlive(self):  # noqa: N802
        if self.alive is None:
            raise libvirt.libvirtError("gone")
        return self.alive

    def close(self):
        self.closed = True
        if not self.alive:
            raise libvirt.libvirtError("gone")


@pytest.fixture
def opened():
    return []


@pytest.fixture
def pool(opened):
    def open_():
        opened.append(Connection())
        return opened[-1]

    return Pool(open_)


def test_a_returned_connection_is_lent_again(pool, opened):
    for _ in range(3):
        with pool.lend() as connection:
            assert connection is opened[0]
    assert len(opened) == 1


def test_two_concurrent_borrowers_get_one_connection_each(pool, opened):
    with pool.lend() as first, pool.lend() as second:
        assert first is not second
    assert not any(connection.closed for connection in opened)


@pytest.mark.parametrize("alive", [False, None])
def test_a_connection_that_died_while_lent_is_closed_by_its_borrower(pool, opened, alive):
    with pool.lend() as connection:
        connection.alive = alive
        assert not connection.closed
    assert connection.closed
    with pool.lend() as another:
        assert another is not connection


def test_a_connection_that_died_while_idle_is_not_lent(pool, opened):
    with pool.lend() as connection:
        pass
    connection.alive = False
    with pool.lend() as another:
        assert another is not connection
    assert connection.closed


def test_an_error_returns_the_connection(pool, opened):
    with pytest.raises(ValueError, match="oops"), pool.lend():
        raise ValueError("oops")
    with pool.lend():
        pass
    assert len(opened) == 1


def test_no_more_are_kept_than_are_of_use(pool, opened):
    lent = [pool.lend() for _ in range(12)]
    for each in lent:
        each.__enter__()
    for each in lent:
        each.__exit__(None, None, None)
    assert sum(not connection.closed for connection in opened) == 8
    pool.close(10)
    assert all(connection.closed for connection in opened)


def test_a_connection_that_hangs_in_closing_delays_no_borrower(pool, opened):
    answered = threading.Event()
    with pool.lend() as connection:
        connection.close = answered.wait
    pool.close(0)
    assert not answered.is_set()
    answered.set()
