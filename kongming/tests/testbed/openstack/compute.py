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

"""One compute host of the cloud: its nova-compute, and the options of that alone."""

from __future__ import annotations

from collections.abc import Mapping
import shutil
from typing import Any

from kongming.tests.testbed.libvirtd import Libvirtd
from kongming.tests.testbed.openstack import configuration
from kongming.tests.testbed.openstack.rest import Rest
from kongming.tests.testbed.openstack.site import Site
from kongming.tests.testbed.process import Process, Service

START_TIMEOUT = 180


class Compute(Service):
    """A nova-compute.

    :param host: Nova's name of its host
    :param address: one of the loopback interface that is no other host's
    :param libvirtd: has no domains at the first start; Nova refuses others
    :ivar files: its configuration: later files win
    """

    def __init__(
        self, site: Site, rest: Rest, libvirtd: Libvirtd, *, host: str, address: str
    ) -> None:
        self.host = host
        self._site = site
        self._rest = rest
        self._libvirtd = libvirtd
        self._address = address
        self._options: Mapping[str, object] = {}
        self._conf = site.etc / f"nova/{host}.conf"
        self.files = [configuration.path(site, "nova"), self._conf]
        self.process = Process([], site.log(f"nova-compute-{host}"), site.environment)

    def configure(self, **options: object) -> None:
        """Have it take options of the group [compute], and no others, at its next start."""
        self._options = options

    def start(self) -> None:
        """Return when it reports, and Placement knows what its host has."""
        libvirtd = self._libvirtd
        sections = configuration.compute(self._site, libvirtd.uri, self.host, self._address)
        self._conf.write_text(configuration.text({**sections, "compute": self._options}))
        configuration.announce(self._site, libvirtd.socket_path, self._address)
        program = self._site.program("nova-compute")
        # It finds what the guests have where libvirt does.
        self.process.command = libvirtd.inside(
            [program, *(f"--config-file={file}" for file in self.files)]
        )
        before = self._last_report()
        self.process.start()
        self.process.wait_ready(
            lambda: self._has_inventory() and (not before or self._last_report() != before),
            START_TIMEOUT,
            "nova-compute reports",
        )

    def stop(self) -> None:
        """End it in its own time; guests live on."""
        self.process.terminate(timeout=60)

    def restart(self) -> None:
        """Restart it; return when it reports again."""
        self.stop()
        self.start()

    def takes_servers(self) -> bool:
        """Return whether the host is enabled: without libvirt nova-compute disables it."""
        service = self._service()
        return service is not None and service["status"] == "enabled"

    def forget(self) -> None:
        """Have Nova forget the host, once nova-compute has ended and it has no servers."""
        service = self._service()
        if service is not None:
            self._rest.request("DELETE", "nova", f"/v2.1/os-services/{service['id']}")
        # By which it would be known again.
        shutil.rmtree(configuration.state_path(self._site, self.host))

    def _has_inventory(self) -> bool:
        """Return whether Placement knows what the host has."""
        node = self._libvirtd.connect().getHostname()
        found = self._rest.get("placement", f"/resource_providers?name={node}")
        inventories = (
            self._rest.get("placement", f"/resource_providers/{provider['uuid']}/inventories")
            for provider in found["resource_providers"]
        )
        return any(each["inventories"] for each in inventories)

    def _last_report(self) -> str | None:
        service = self._service()
        return None if service is None else service["updated_at"]

    def _service(self) -> Any:
        query = f"/v2.1/os-services?binary=nova-compute&host={self.host}"
        return next(iter(self._rest.get("nova", query)["services"]), None)

    def _end(self) -> None:
        # What it holds is of no use to anybody once the testbed ends.
        self.process.kill()
