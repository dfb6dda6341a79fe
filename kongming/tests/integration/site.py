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
"""A whole installation of trigger 3: control plane, hosts, guests, and a Nova."""

import uuid

import libvirt

from kongming.tests.integration.conftest import Guest
from kongming.tests.testbed.control_plane import ControlPlane
from kongming.tests.testbed.daemon import ExecutorDaemon
from kongming.tests.testbed.guest import destroy
from kongming.tests.testbed.nova_api import NovaApi

HOST = "compute-1"


class Installation:
    """A control plane and its Nova, at a virtual host of a broker.

    :param user: of the control plane, on the broker; it is there already.
    :param vhost: that is there already; if empty, one is made.
    """

    def __init__(self, broker, root, *, vhost="", user="guest", options="", **more):
        self.nova = NovaApi()
        self.nova.up()
        if not vhost:
            vhost = f"site-{uuid.uuid4().hex[:8]}"
            broker.add_vhost(vhost)
        self.url = broker.transport_url(vhost, user)
        self.plane = ControlPlane(
            root, transport_url=self.url, options=self.nova.options() + options, **more
        )

    def __enter__(self):
        self.plane.start()
        return self

    def __exit__(self, *_):
        self.plane.__exit__(None, None, None)
        self.nova.down()


class Site:
    """A control plane, and hosts that share one libvirtd but for those that have their own."""

    def __init__(self, installation, broker, libvirtd, root):
        self.broker = broker
        self.nova = installation.nova
        self.plane = installation.plane
        self.api = self.plane.api
        self.libvirtd = libvirtd
        self._url = installation.url
        self._root = root
        self._executors = []
        self._connection = None

    def executor(self, host=HOST, options="", libvirtd=None, transport_url=None):
        executor = ExecutorDaemon(
            self._root / host,
            transport_url=transport_url or self._url,
            connection_uri=(libvirtd or self.libvirtd).uri,
            host=host,
            options=options,
        )
        self._executors.append(executor)
        return executor

    def guest(self, host=HOST, **options):
        """Make a guest, which Nova has on a host."""
        if self._connection is None or not self._connection.isAlive():
            self._connection = libvirt.open(self.libvirtd.uri)
        guest = Guest(self._connection, **options)
        self.nova.add(host, {}, instance_uuid=guest.uuid)
        return guest

    def put(self, instance_uuid, **allocation):
        answer = self.api.request(
            "PUT", f"/v1/allocations/{instance_uuid}", {"allocation": allocation}
        )
        assert answer.status in (200, 201), answer
        return answer.body

    def delete(self, instance_uuid):
        answer = self.api.request("DELETE", f"/v1/allocations/{instance_uuid}")
        assert answer.status in (202, 204), answer

    def close(self):
        """End the hosts; the control plane runs again on return, whatever was done to it."""
        for executor in self._executors:
            executor.__exit__(None, None, None)
        connection = libvirt.open(self.libvirtd.uri)
        for domain in connection.listAllDomains():
            destroy(domain)
        self.plane.start_missing()
