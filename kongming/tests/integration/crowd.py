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

"""Many who write to one database at once."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
import threading

from kongming import exception
from kongming.db.values import Location
from kongming.tests.databases import BY, asking, instance, report

THREADS = 8


def at_once(*works):
    """Do all of it at the same moment; return what each returns, or raises."""
    barrier = threading.Barrier(len(works))

    def run(work):
        barrier.wait()
        try:
            return work()
        except exception.KongmingError as error:
            return error

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(run, works))


class Crowd:
    """Those who put maps, single allocations and reports of the same instances."""

    def __init__(self, allocations):
        self.uuids = [instance(number) for number in range(30)]
        self._allocations = allocations

    def map(self, name, those):
        for value in range(6):
            of_mine = dict.fromkeys(those, asking(value))
            with suppress(exception.MapConflict, exception.MapUnknown):
                self._allocations.put_map(name, of_mine, generation=None, **BY)
                self._allocations.delete_map(name, generation=None, **BY)

    def single(self, numbers):
        for number in numbers:
            self._allocations.put(self.uuids[number], asking(number), generation=None, **BY)

    def hosts(self):
        for _ in range(10):
            desired = self._allocations.desired(self.uuids)
            self._allocations.locate(dict.fromkeys(desired, Location("project", "here")))
            reports = [
                report(uuid, entry.generation, "applied" if entry.allocation else "released")
                for uuid, entry in desired.items()
            ]
            self._allocations.report("here", reports, 1.0)

    def leave(self):
        for each in self._allocations.maps():
            self._allocations.delete_map(each.name, generation=None, **BY)
        for each in self._allocations.instance_uuids():
            self._allocations.delete(each, generation=None, **BY)
        self.hosts()
