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

"""What the commands on a compute host need to be there."""

import subprocess
import sys

# Databases and web servers are of no use there, and take a second to import.
_ABSENT = """
import sys
for absent in ("sqlalchemy", "alembic", "falcon"):
    sys.modules[absent] = None
from kongming.cmd.manage import Manage
commands = Manage().command_manager
print(*(commands.find_command(name.split())[1] for name in ("allocation show", "db sync")))
"""


def test_a_command_is_found_where_there_is_no_database_library():
    ended = subprocess.run(
        [sys.executable, "-c", _ABSENT], capture_output=True, text=True, check=True
    )
    assert ended.stdout.split() == ["allocation", "show", "db", "sync"]
