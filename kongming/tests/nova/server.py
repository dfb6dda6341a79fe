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

"""One server of the cloud: what can be done to it, and how its guest looks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import libvirt

from kongming.tests.nova.aspects import ASPECTS, Request
from kongming.tests.nova.events import Events
from kongming.tests.testbed import threads
from kongming.tests.testbed.openstack.cloud import HOST, OpenStack
from kongming.tests.testbed.openstack.rest import ApiError
from kongming.tests.testbed.process import wait_until

NOVA_TIMEOUT = 180
KONGMING_TIMEOUT = 30
NOT_FOUND = 404


class Server:
    """A server; whatever is done to it is finished on return, as far as Nova is concerned.

    :param put: requests a placement otherwise than by the metadata
    :ivar flavor: the flavor that it was made with
    """

    def __init__(
        self,
        openstack: OpenStack,
        events: Events,
        connection_uri: str,
        request: Request,
        flavor: str,
        put: Callable[[str, Request], None] | None = None,
    ) -> None:
        self._put = put
        self._openstack = openstack
        self._events = events
        self._connection_uri = connection_uri
        self.flavor = flavor
        after = events.now()
        body = {
            "name": "kongming-nova-suite",
            "imageRef": openstack.image_id,
            "flavorRef": flavor,
            "networks": "none",
            "host": HOST,
            "metadata": {} if put else request.metadata,
        }
        created = openstack.rest.post("nova", "/v2.1/servers", {"server": body})
        self.uuid: str = created["server"]["id"]
        if put:
            put(self.uuid, request)
        self._wait("create.end", after)
        self.wait_status("ACTIVE")

    def act(self, action: str, body: Any = None, *, ends: str, status: str = "ACTIVE") -> None:
        """Have Nova do something.

        :param ends: the event that Nova sends at the end of it, without "instance."
        :param status: the server's afterwards
        """
        after = self._events.now()
        self._openstack.rest.post("nova", f"{self._path}/action", {action: body})
        self._wait(ends, after)
        self.wait_status(status)

    def migrate(self, host: str) -> None:
        """Have Nova migrate it live."""
        where = {"host": host, "block_migration": "auto"}
        self.act("os-migrateLive", where, ends="live_migration_post_dest.end")
        assert self._get()["OS-EXT-SRV-ATTR:host"] == host

    def request(self, request: Request) -> None:
        """Request this and nothing else."""
        if self._put:
            self._put(self.uuid, request)
        else:
            self.set_metadata(request.metadata)

    def set_metadata(self, metadata: dict[str, str]) -> None:
        """Edit the metadata, so that it is this and nothing else."""
        after = self._events.now()
        path = f"{self._path}/metadata"
        self._openstack.rest.request("PUT", "nova", path, {"metadata": metadata})
        self._wait_edited(metadata, after)

    def remove_key(self, key: str) -> None:
        """Delete one key of the metadata."""
        after = self._events.now()
        left = {name: value for name, value in self._get()["metadata"].items() if name != key}
        self._openstack.rest.request("DELETE", "nova", f"{self._path}/metadata/{key}")
        self._wait_edited(left, after)

    def rename(self, name: str) -> None:
        after = self._events.now()
        self._openstack.rest.request("PUT", "nova", self._path, {"server": {"name": name}})
        self._wait("update", after)

    def press_power_button(self) -> None:
        """Have the guest power off by itself, which Nova finds out after a while."""
        after = self._events.now()
        self.domain().shutdown()
        self._wait("power_off.end", after)
        self.wait_status("SHUTOFF")

    def soft_delete(self) -> None:
        """Delete it so that it can be restored."""
        after = self._events.now()
        self._openstack.rest.request("DELETE", "nova", self._path)
        self._wait("soft_delete.end", after)
        self.wait_status("SOFT_DELETED")

    def delete(self) -> None:
        """Delete it for good."""
        after = self._events.now()
        self._openstack.rest.post("nova", f"{self._path}/action", {"forceDelete": None})
        self._wait("delete.end", after)
        wait_until(lambda: not self.exists(), NOVA_TIMEOUT, f"server {self.uuid} is gone")

    def exists(self) -> bool:
        try:
            self._get()
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise
            return False
        return True

    @property
    def status(self) -> str:
        status: str = self._get()["status"]
        return status

    @property
    def vcpus(self) -> int:
        vcpus: int = self._get()["flavor"]["vcpus"]
        return vcpus

    def wait_status(self, status: str) -> None:
        """Wait until it has a status and Nova does nothing to it."""

        def settled() -> bool:
            server = self._get()
            if server["status"] == "ERROR" and status != "ERROR":
                raise AssertionError(f"server {self.uuid} failed: {server.get('fault')}")
            return server["status"] == status and server["OS-EXT-STS:task_state"] is None

        wait_until(settled, NOVA_TIMEOUT, f"server {self.uuid} is {status}")

    def domain(self) -> Any:
        """The libvirt domain."""
        return libvirt.open(self._connection_uri).lookupByUUIDString(self.uuid)

    def threads(self) -> dict[int, int]:
        """The threads of its vCPUs: others once the guest was started again."""
        return threads.vcpu_threads(self.uuid)

    def wait_restarted(self, before: dict[int, int]) -> None:
        """Wait until it has other threads than it had before."""

        def restarted() -> bool:
            return threads.is_running(self.uuid) and self.threads() not in ({}, before)

        wait_until(restarted, NOVA_TIMEOUT, f"the guest of server {self.uuid} is started again")

    def looks(self) -> dict[str, Any]:
        """What is observed of the guest: nothing if it does not run."""
        try:
            return {aspect.key: aspect.observe(self) for aspect in ASPECTS}
        except (LookupError, OSError):
            return {}

    def wait_placed(self, request: Request) -> None:
        """Wait until the running guest looks as a request defines."""
        expected = request.looks(self.vcpus)
        try:
            wait_until(lambda: self.looks() == expected, KONGMING_TIMEOUT, f"{expected}")
        except TimeoutError:
            looks = self.looks()
            assert looks == expected, f"{looks} instead of {expected}"

    def _get(self) -> Any:
        return self._openstack.rest.get("nova", self._path)["server"]

    @property
    def _path(self) -> str:
        return f"/v2.1/servers/{self.uuid}"

    def _wait(self, event: str, after: int) -> None:
        self._events.wait(self.uuid, f"instance.{event}", after=after, timeout=NOVA_TIMEOUT)

    def _wait_edited(self, metadata: dict[str, str], after: int) -> None:
        self._events.wait(
            self.uuid,
            "instance.update",
            after=after,
            timeout=NOVA_TIMEOUT,
            matching=lambda event: event.metadata == metadata,
        )
