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
"""Two hosts of one cloud, between which guests are migrated."""

from kongming.tests.integration.conftest import Cloud
from kongming.tests.testbed.migration import Migration

HERE, THERE = "compute-1", "compute-2"
ARRIVED, LEFT = "instance.live_migration_post_dest.end", "instance.live_migration_post.end"


def everything_on(cpu):
    """Return a request for all threads of a guest."""
    aspects = ("vcpu_pinning", "emulator_pinning", "iothread_pinning")
    return {**dict.fromkeys(aspects, str(cpu)), "cpu_shares": "300"}


class TwoHosts:
    """The hosts ``HERE`` and ``THERE``, each with a libvirtd; they get events of the same Nova."""

    def __init__(self, broker, here, there, root):
        self.here = Cloud(broker, here, root / "here")
        self.there = Cloud(broker, there, root / "there")
        self.there.exchange = self.here.exchange

    def source(self, options=""):
        return self.here.daemon(HERE, options)

    def destination(self, options=""):
        return self.there.daemon(THERE, options)

    def guest(self, folder, **options):
        """Make a guest as Nova would, which can be migrated."""
        folder.mkdir(exist_ok=True)
        options = {"persistent": True, "filled": True, "iothreads": 1} | options
        guest = self.here.guest(firmware=folder / "firmware", **options)
        guest.firmware = folder / "firmware"
        return guest

    def update(self, guest, host=HERE, event_type="instance.update", **values):
        """Publish an event of a guest on a host, with all of its metadata."""
        metadata = {f"kongming-{key.replace('_', '-')}": value for key, value in values.items()}
        self.here.nova.publish(guest.uuid, host, metadata, event_type)

    def migrating(self, guest, xml=None):
        return Migration(guest.uuid, self.here.libvirtd, self.there.libvirtd, xml)

    def arrived(self, guest, **values):
        """Publish what Nova does at the end of a migration."""
        self.update(guest, THERE, ARRIVED, **values)
        self.update(guest, HERE, LEFT, **values)

    def domain(self, guest, host=THERE):
        cloud = self.there if host == THERE else self.here
        return cloud.libvirtd.connect().lookupByUUIDString(guest.uuid)

    def close(self):
        self.here.close()
        self.there.close()
