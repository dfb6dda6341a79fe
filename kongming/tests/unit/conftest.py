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

"""What several modules of unit tests use."""

from contextlib import closing

import pytest

from kongming.executor.store.store import Store
from kongming.tests.databases import database, empty


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path)
    yield store
    store.close()


@pytest.fixture(scope="module")
def database_path(tmp_path_factory):
    return tmp_path_factory.mktemp("db") / "kongming.sqlite"


@pytest.fixture(scope="module")
def opened_database(database_path):
    """What compiles each statement once for all tests."""
    with closing(database(f"sqlite:///{database_path}")) as made:
        yield made


@pytest.fixture
def db(opened_database, database_path):
    empty(database_path)
    return opened_database
