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

"""A host of one guest, whose reconciler is run step by step."""

from kongming.allocation.request import Request, Source
from kongming.allocation.target import vcpu
from kongming.executor.departures import Departures
from kongming.executor.placing.claims import Claims
from kongming.executor.placing.placer import Placer
from kongming.executor.reconciler import Reconciler
from kongming.executor.statistics import Statistics
from kongming.executor.store.store import Store
from kongming.executor.window_timer import WindowTimer
from kongming.host.rules import Rules
from kongming.tests import hosts
from kongming.tests.guests import Guest, Hypervisor, request

UUID = "5a6e9b1e-0000-4000-8000-000000000001"
ONE = request(vcpu_pinning="1")


class Threads:
    """Notes whose threads are watched."""

    def __init__(self):
        self.watched = {}

    def note(self, instance_uuid, folder):
        if folder is None:
            self.watched.pop(instance_uuid, None)
        else:
            self.watched[instance_uuid] = folder


class Host:
    """A host with a guest, and the reconciler with all that it works with."""

    def __init__(self, tmp_path):
        self.tmp_path = tmp_path
        self.store = Store(tmp_path)
        self.hypervisor = Hypervisor()
        self.rules = Rules()
        self.moves = {}
        self.now = 0.0
        self.woken = []
        self.windows, self.threads = WindowTimer(), Threads()
        self.guest = self.start()
        self.begin()

    def begin(self):
        """Start the service, again, too."""
        self.statistics = Statistics()
        claims = Claims(
            self.hypervisor.occupants, lambda other: self.moves.get(other.instance_uuid)
        )
        self.reconciler = Reconciler(
            self.store,
            self.hypervisor,
            Placer(lambda: self.rules, claims, lambda: hosts.host(1, 4, 2)),
            self.statistics,
            self.windows,
            self.threads,
            Departures("compute-1", self.store, lambda _uuid: None, lambda: self.now),
            wake=self.woken.extend,
        )

    def start(self, *arguments, **options):
        self.guest = self.hypervisor.guests[UUID] = Guest(*arguments, **options)
        self.guest.group_folder = self.tmp_path
        return self.guest

    def request(self, requested=ONE):
        self.store.request(UUID, Request(Source.METADATA, requested, "somebody", 1.5))

    def reconcile(self, requested=None):
        if requested is not None:
            self.request(requested)
        return self.reconciler.reconcile(UUID)

    @property
    def record(self):
        return self.store.get(UUID)

    @property
    def outcome(self):
        return self.record.status, self.record.reason

    def pins(self):
        return [self.guest.configured[vcpu(number)] for number in (0, 1)]
