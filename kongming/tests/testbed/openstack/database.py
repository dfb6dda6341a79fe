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

"""A private MariaDB server, with an empty database for each of OpenStack's services."""

from __future__ import annotations

from kongming.tests.testbed.mariadb import MariaDB, grant
from kongming.tests.testbed.openstack.site import PASSWORD, Site

USER = "openstack"
DATABASES = (
    "keystone",
    "placement",
    "glance",
    "neutron",
    "nova_api",
    "nova_cell0",
    "nova_cell1",
)
CHARACTERS = "utf8mb3"


def database_url(site: Site, name: str) -> str:
    """The address of a database in SQLAlchemy's form."""
    address = f"{USER}:{PASSWORD}@127.0.0.1:{site.database_port}"
    return f"mysql+pymysql://{address}/{name}?charset={CHARACTERS}"


class Database(MariaDB):
    """The server, on the site's port; a context manager."""

    def __init__(self, site: Site) -> None:
        made = [
            f"CREATE DATABASE IF NOT EXISTS {name} CHARACTER SET {CHARACTERS}"
            for name in DATABASES
        ]
        super().__init__(
            site.root / "database",
            port=site.database_port,
            log=site.log("mariadb"),
            statements=[*made, grant(USER, PASSWORD)],
        )
