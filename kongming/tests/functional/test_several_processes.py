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
"""Several processes, as WSGI servers start them, write to one SQLite file."""

from contextlib import closing
import subprocess
import sys

from kongming.db.allocations import Allocations
from kongming.tests.databases import database, instance
from kongming.tests.testbed.process import patience

_WRITE = """
import sys
from kongming.db.allocations import Allocations
from kongming.db.database import Database
from kongming.tests.databases import BY, asking, configuration, instance
allocations = Allocations(Database(configuration(sys.argv[1])))
for value in range(25):
    allocations.put(instance(), asking(value), generation=None, **BY)
"""


def test_several_processes_write_one_file(tmp_path):
    url = f"sqlite:///{tmp_path}/kongming.sqlite"
    with closing(database(url)) as db:
        others = [subprocess.Popen([sys.executable, "-c", _WRITE, url]) for _ in range(2)]
        assert [other.wait(600 * patience()) for other in others] == [0, 0]
        allocations = Allocations(db)
        generations = [change.generation for change in allocations.history(instance())]
        assert generations == list(range(1, len(generations) + 1))
        assert allocations.get(instance()).generation == generations[-1] >= 25
