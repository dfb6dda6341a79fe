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

"""A control plane and a host in one process."""

from contextlib import contextmanager
import itertools
from pathlib import Path
import threading
import uuid
from wsgiref import simple_server

from kongming.allocation.allocation import Allocation
from kongming.api.application import make_application
from kongming.cmd import launch
from kongming.conductor.service import ConductorService
from kongming.db import migration
from kongming.db.allocations import Allocations
from kongming.db.database import Database
from kongming.db.hosts import Hosts
from kongming.rpc.client import ConductorClient
from kongming.standalone.service import ExecutorService
from kongming.tests.functional.cloud import NOVA, URI, wait_for
from kongming.tests.testbed.process import patience

_number = itertools.count()


class Site:
    """A database, a conductor, and the executor of one host.

    :param options: more of kongming.conf.
    :param intervals: at which the conductor queries Nova, if not the configured ones.
    """

    def __init__(self, tmp_path, connection, options="", intervals=None):
        self._intervals = intervals
        self.host = f"site{next(_number)}"
        config = tmp_path / "kongming.conf"
        config.write_text(
            f"[DEFAULT]\nhost = {self.host}\nstate_path = {tmp_path / 'state'}\n"
            f"transport_url = fake:///{self.host}\n[libvirt]\nconnection_uri = {URI}\n"
            f"[database]\nconnection = sqlite:///{tmp_path / 'kongming.sqlite'}\n"
            f"[executor]\npull_interval = 1\n{options}"
        )
        self.conf = launch.configure(["--config-file", str(config)])
        self.connection = connection
        database = Database(self.conf)
        migration.sync(database)
        self.allocations, self.hosts = Allocations(database), Hosts(database)
        self.client = ConductorClient(self.conf)
        self.services = []
        self.domains = []

    def start(self, *kinds):
        for kind in kinds or (ConductorService, ExecutorService):
            service = kind(self.conf)
            if kind is ConductorService and self._intervals is not None:
                service._delivery.intervals = self._intervals
            service.start()
            self.services.append(service)
            assert service.ready.wait(20 * patience())

    def stop(self):
        # The executor first: it might be waiting for the conductor.
        for service in reversed(self.services):
            service.stop()
        self.services = []

    def guest(self, instance_uuid=None):
        instance_uuid = instance_uuid or str(uuid.uuid4())
        domain = self.connection.createXML(
            f"<domain type='test'><name>{instance_uuid[:8]}</name><uuid>{instance_uuid}</uuid>"
            f"<memory>1024</memory><vcpu>2</vcpu><os><type>hvm</type></os>{NOVA}</domain>"
        )
        self.domains.append(domain)
        return instance_uuid

    def put(self, instance_uuid, cpus):
        allocation = Allocation.from_json({"vcpu_pinning": cpus})
        entry, _ = self.allocations.put(
            instance_uuid, allocation, generation=None, requested_by="a test", request_id=""
        )
        self.client.changed([instance_uuid])
        return entry

    def delete(self, instance_uuid):
        self.allocations.delete(
            instance_uuid, generation=None, requested_by="a test", request_id=""
        )
        self.client.changed([instance_uuid])

    def status(self, instance_uuid):
        entry = self.allocations.get(instance_uuid)
        return None if entry is None else entry.status

    def wait(self, instance_uuid, status):
        wait_for(lambda: self.status(instance_uuid) == status)

    def pins(self, instance_uuid):
        maps = self.connection.lookupByUUIDString(instance_uuid).vcpus()[1]
        return [{cpu for cpu, there in enumerate(cpus) if there} for cpus in maps]


@contextmanager
def serving(site, options=""):
    """Serve a site's API in this process, without Keystone, and yield its URL.

    :param options: more of the section [api] of kongming.conf.
    """

    class Quiet(simple_server.WSGIRequestHandler):
        def log_message(self, *_):
            pass

    former = Path(site.conf.config_file[0])
    config = former.with_name("api.conf")
    config.write_text(f"{former.read_text()}[api]\nauth_strategy = noauth\n{options}")
    application = make_application(launch.configure(["--config-file", str(config)]))
    with simple_server.make_server("127.0.0.1", 0, application, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.05])
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
