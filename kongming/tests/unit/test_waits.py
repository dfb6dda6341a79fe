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
"""The table of all waits in architecture.rst: each limit is the one that the code has."""

from pathlib import Path
import pkgutil
import re

import pytest

import kongming
from kongming.cmd import launch
from kongming.conf import keystone, nova
from kongming.tests.sources import imports

PRODUCT = Path(kongming.__file__).parent
ARCHITECTURE = PRODUCT.parent / "doc/source/contributor/architecture.rst"
OPTION = re.compile(r"``\[(\w+)\] (\w+)``")
CONSTANT = re.compile(r"``([\w.]+)``")
LIMIT = re.compile(r"([0-9.,]+) (s|ms|hints)")
#: What leaves the process, by the library that does it.
LIBRARIES = {
    "libvirt": "libvirt",
    "oslo_messaging": "RabbitMQ",
    "sqlalchemy": "database",
    "keystonemiddleware": "Keystone",
    "keystoneauth1": "Nova",
    "sqlite3": "file system",
    "prometheus_client": "Prometheus",
}


def rows():
    """Return the rows of the table: call, limit, what sets it, outcome."""
    text = ARCHITECTURE.read_text().partition("Every wait has a limit\n")[2]
    table = text.partition(".. list-table::")[2].partition("\n\nThe driver of")[0]
    found = []
    for row in table.split("\n   * - ")[2:]:
        found.append([" ".join(cell.split()) for cell in row.split("\n     - ")])
    return found


@pytest.fixture(scope="module")
def conf(tmp_path_factory):
    path = tmp_path_factory.mktemp("conf") / "kongming.conf"
    path.write_text("[nova]\nauth_type = password\n")
    conf = launch.configure(["--config-file", str(path)])
    keystone.register_opts(conf, "kongming")
    nova.register_auth_opts(conf)
    return conf


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_each_documented_limit_matches_the_code(conf, row):
    _, limit, set_by, outcome = row
    number, _ = LIMIT.fullmatch(limit).groups()
    if option := OPTION.fullmatch(set_by):
        value = conf[option[1]][option[2]]
    else:
        value = pkgutil.resolve_name(f"kongming.{CONSTANT.fullmatch(set_by)[1]}")
    assert value == float(number.replace(",", ""))
    assert outcome


def test_every_outgoing_call_is_documented():
    calls = [call for call, *_ in rows()]
    assert len(calls) > 15
    imported = set()
    for path in PRODUCT.rglob("*.py"):
        if "tests" in path.relative_to(PRODUCT).parts:
            continue
        imported |= {name.partition(".")[0] for name in imports(path)}
    for library, who in LIBRARIES.items():
        assert library in imported
        assert any(call.startswith(who) for call in calls), who


def test_each_kind_of_wait_for_the_bus_and_keystone_has_its_row():
    text = " ".join(cell for row in rows() for cell in row)
    for option in keystone.LIMITS:
        assert option in text or option == "memcache_pool_dead_retry"
    for words in ("confirm", "hint", "monitor", "memcached", "file system"):
        assert words in text
