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

"""The whole OpenStack: brought up in its order, ended all at once."""

from __future__ import annotations

from pathlib import Path

from kongming.tests.testbed.libvirtd import Libvirtd
from kongming.tests.testbed.openstack import configuration, content, schemas, venv
from kongming.tests.testbed.openstack.compute import Compute
from kongming.tests.testbed.openstack.database import Database
from kongming.tests.testbed.openstack.rest import Rest, answers
from kongming.tests.testbed.openstack.site import Site
from kongming.tests.testbed.process import Process, Service

HOST = "compute-1"
START_TIMEOUT = 180
# Of its own modules, the one that each API is served by.
APPLICATIONS = {
    "keystone": "keystone.wsgi.api",
    "placement": "placement.wsgi.api",
    "glance": "glance.wsgi.api",
    "neutron": "neutron.wsgi.api",
    "nova": "nova.wsgi.osapi_compute",
}
API_THREADS = 6
LARGEST_CHUNK = 64 * 1024 * 1024


class OpenStack(Service):
    """Keystone, Placement, Glance, Neutron and Nova with one compute host.

    :param root: holds all that it writes
    :param transport_url: a message broker's virtual host, which is to be its own
    :param libvirtd: the compute host's
    :ivar rest: its APIs
    :ivar image_id: an image that servers can be made from
    """

    def __init__(self, root: Path, *, transport_url: str, libvirtd: Libvirtd) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.site = Site(root, venv.installed(), HOST, transport_url)
        self.rest = Rest(self.site)
        self.image_id = ""
        self.compute = Compute(self.site, self.rest, libvirtd, host=HOST, address="127.0.0.1")
        self._database = Database(self.site)
        self._apis = {name: self._api(name, module) for name, module in APPLICATIONS.items()}
        self._daemons = [self._daemon("nova-conductor"), self._daemon("nova-scheduler")]

    def start(self) -> None:
        """Return when a server can be made."""
        configuration.write(self.site)
        self._database.start()
        schemas.create(self.site)
        self._apis["keystone"].start()
        self._wait_api("keystone")
        content.create_catalogue(self.site, self.rest)
        content.trust_services(self.rest)
        content.create_service_user(self.rest)
        for name, api in self._apis.items():
            if name != "keystone":
                api.start()
        for daemon in self._daemons:
            daemon.start()
        for name in self._apis:
            self._wait_api(name)
        self.compute.start()
        self._warm_up_neutron()
        self.image_id = content.create_image(self.rest)
        content.create_flavors(self.rest)
        schemas.discover_hosts(self.site)

    def another_compute(self, host: str, libvirtd: Libvirtd) -> Compute:
        """Return one more compute host, a context in which it takes servers."""
        return Compute(self.site, self.rest, libvirtd, host=host, address="127.0.0.2")

    def _daemon(self, name: str) -> Process:
        site = self.site
        command = [site.program(name), "--config-file", str(configuration.path(site, "nova"))]
        return Process(command, site.log(name), site.environment)

    def _api(self, name: str, module: str) -> Process:
        site = self.site
        return Process(
            [
                site.program("uwsgi"),
                *("--http-socket", f"127.0.0.1:{site.api_ports[name]}"),
                *("--module", f"{module}:application"),
                *("--virtualenv", str(site.venv)),
                *("--enable-threads", "--threads", str(API_THREADS)),
                *("--buffer-size", "65535"),
                # Nova uploads a snapshot in chunks of any size.
                *("--chunked-input-limit", str(LARGEST_CHUNK)),
                # uWSGI closes a connection without notice, which its clients
                # would take for a failure.
                *("--add-header", "Connection: close"),
                "--need-app",
                "--die-on-term",
            ],
            site.log(name),
            site.environment,
        )

    def _wait_api(self, name: str) -> None:
        url = self.site.url(name)
        self._apis[name].wait_ready(lambda: answers(url), START_TIMEOUT, f"{name} answers")

    def _warm_up_neutron(self) -> None:
        # To list ports is an error until some other list was requested.
        self.rest.get("neutron", "/v2.0/networks")

    def _end(self) -> None:
        # What they hold is of no use to anybody once the testbed ends.
        for process in (self.compute.process, *self._daemons, *self._apis.values()):
            process.kill()
        self._database._end()
