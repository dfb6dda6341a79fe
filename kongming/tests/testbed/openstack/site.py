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

"""What all parts of one OpenStack must agree on: places, ports and addresses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
import os
from pathlib import Path

from kongming.tests.testbed.process import free_port

# Whoever reaches these ports is on this machine, and can read it here.
PASSWORD = "kongming"
REGION = "testbed"
# Kongming's, and its project and role.
USER = "kongming"


def _api_ports() -> dict[str, int]:
    return {name: free_port() for name in ("keystone", "placement", "glance", "neutron", "nova")}


@dataclass(frozen=True)
class Site:
    """One OpenStack.

    :ivar root: holds all that it writes
    :ivar venv: the Python environment that its services run in
    :ivar host: Nova's name of the host that all but further nova-computes run on
    :ivar transport_url: the message broker, for calls and notifications alike
    :ivar api_ports: the port of each service that has an API
    """

    root: Path
    venv: Path
    host: str
    transport_url: str
    api_ports: Mapping[str, int] = field(default_factory=_api_ports)
    database_port: int = field(default_factory=free_port)

    @property
    def etc(self) -> Path:
        return self.root / "etc"

    def url(self, service: str) -> str:
        """The address of a service's API."""
        return f"http://127.0.0.1:{self.api_ports[service]}"

    @property
    def identity_url(self) -> str:
        return f"{self.url('keystone')}/v3"

    def nova_options(self) -> str:
        """The group of kongming.conf for requests to Nova."""
        return (
            f"[nova]\nauth_type = password\nauth_url = {self.identity_url}\n"
            f"username = {USER}\npassword = {PASSWORD}\nproject_name = {USER}\n"
            "user_domain_id = default\nproject_domain_id = default\n"
            f"region_name = {REGION}\nvalid_interfaces = internal\n"
        )

    def program(self, name: str) -> str:
        """A program of the Python environment."""
        return str(self.venv / "bin" / name)

    def log(self, name: str) -> Path:
        """What a process of this name writes to its standard output and error."""
        return self.root / f"{name}.log"

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables of all services."""
        folders = {
            f"OS_{service.upper()}_CONFIG_DIR": str(self.etc / service)
            for service in self.api_ports
        }
        path = os.environ.get("PATH", os.defpath)
        return {
            "PATH": os.pathsep.join([str(self.venv / "bin"), path, "/usr/sbin", "/sbin"]),
            "HOME": str(self.root),
            "LANG": "C.UTF-8",
            # Neutron alone does not guess its file's name from the folder.
            "OS_NEUTRON_CONFIG_FILES": "neutron.conf",
            **folders,
        }
