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

"""Fills the empty databases: tables, Keystone's keys and its administrator, Nova's cells."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import subprocess

from kongming.tests.testbed.openstack import configuration
from kongming.tests.testbed.openstack.database import database_url
from kongming.tests.testbed.openstack.site import PASSWORD, REGION, Site

Command = Sequence[str]


def create(site: Site) -> None:
    """Make all of them, at once: each takes its time.

    :raises RuntimeError: a command failed; the message has the end of its output
    """
    chains = (_keystone(site), _placement(), _glance(), _neutron(), _nova(site))
    with ThreadPoolExecutor(len(chains)) as pool:
        for done in [pool.submit(_run_all, site, chain) for chain in chains]:
            done.result()


def discover_hosts(site: Site) -> None:
    """Tell Nova's cell of the compute hosts that have come."""
    run(site, "nova", "nova-manage", "cell_v2", "discover_hosts")


def run(site: Site, service: str, program: str, *arguments: str) -> None:
    """Run a service's own tool to its end.

    :raises RuntimeError: it failed
    """
    command = [site.program(program), "--config-file", str(configuration.path(site, service))]
    done = subprocess.run(
        [*command, *arguments],
        env=site.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        output = done.stdout[-2000:]
        raise RuntimeError(f"{program} {' '.join(arguments[:2])} failed:\n{output}")


def _run_all(site: Site, chain: Sequence[Command]) -> None:
    for command in chain:
        run(site, *command)


def _keystone(site: Site) -> list[Command]:
    manage = ("keystone", "keystone-manage")
    me = Path("/proc/self")
    owner = ("--keystone-user", me.owner(), "--keystone-group", me.group())
    addresses = [
        f"--bootstrap-{interface}-url={site.identity_url}"
        for interface in ("public", "internal", "admin")
    ]
    return [
        (*manage, "db_sync"),
        (*manage, "fernet_setup", *owner),
        (*manage, "credential_setup", *owner),
        (
            *(*manage, "bootstrap", "--bootstrap-password", PASSWORD),
            *("--bootstrap-region-id", REGION, *addresses),
        ),
    ]


def _placement() -> list[Command]:
    return [("placement", "placement-manage", "db", "sync")]


def _glance() -> list[Command]:
    return [("glance", "glance-manage", "db_sync")]


def _neutron() -> list[Command]:
    return [("neutron", "neutron-db-manage", "upgrade", "heads")]


def _nova(site: Site) -> list[Command]:
    manage = ("nova", "nova-manage")
    cell0 = database_url(site, "nova_cell0")
    return [
        (*manage, "api_db", "sync"),
        (*manage, "cell_v2", "map_cell0", "--database_connection", cell0),
        (*manage, "cell_v2", "create_cell", "--name", "cell1"),
        (*manage, "db", "sync"),
    ]
