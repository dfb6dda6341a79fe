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
"""What a program needs to be there: on a compute host, and where the openstack client runs."""

import subprocess
import sys

# Databases and web servers are of no use there, and take a second to import.
_ON_A_HOST = """
import sys
for absent in ("sqlalchemy", "alembic", "falcon"):
    sys.modules[absent] = None
from kongming.cmd.manage import Manage
commands = Manage().command_manager
print(*(commands.find_command(name.split())[1] for name in ("allocation show", "db sync")))
"""
# What an operator's laptop does not have, and what would be of no use there.
_ON_A_LAPTOP = """
import sys
for absent in ("libvirt", "oslo_messaging", "oslo_db", "sqlalchemy", "falcon"):
    sys.modules[absent] = None
from importlib.metadata import entry_points
names = [each.load().__name__ for each in entry_points(group="openstack.kongming.v1")]
entry_points(group="kongming.terminal.picture")["picture"].load()
assert "kongming.executor.store.store" not in sys.modules
print(len(names))
"""


def output(program):
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout


def test_a_command_is_found_without_a_database_library():
    assert output(_ON_A_HOST).split() == ["allocation", "show", "db", "sync"]


def test_the_openstack_client_needs_no_libvirt_and_no_store():
    assert int(output(_ON_A_LAPTOP)) > 10
