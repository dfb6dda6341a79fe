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

"""The way to the database: transactions that are tried again, and errors that say what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from oslo_config import cfg
from sqlalchemy.orm import Session

T = TypeVar("T")


class Database:
    """One database. Any thread may call any method."""

    statements: int

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        """Take the options of [database]; nothing is connected to yet.

        :raises ConfigInvalid: if the URL can't be used.
        """
        raise NotImplementedError

    @contextmanager
    def reader(self) -> Iterator[Session]:
        """A transaction that reads.

        :raises DatabaseUnavailable: if the database does not answer.
        """
        raise NotImplementedError

    @contextmanager
    def writer(self) -> Iterator[Session]:
        """A transaction that writes: all or nothing.

        :raises DatabaseUnavailable: if the database does not answer.
        """
        raise NotImplementedError

    def write(self, work: Callable[[Session], T]) -> T:
        """Do some work in a transaction that writes; again if it lost against another."""
        raise NotImplementedError

    def check_schema(self) -> None:
        """Find out whether this version of Kongming can work with the tables.

        :raises DatabaseUnavailable: if not; the message says what to do.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Close all connections; the next use opens new ones."""
        raise NotImplementedError
