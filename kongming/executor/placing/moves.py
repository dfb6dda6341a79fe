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
"""What other instances of this host will have, for a guest that requests their CPUs."""

from __future__ import annotations

from kongming import exception
from kongming.allocation.allocation import Allocation
from kongming.allocation.cpuset import CpuSet
from kongming.allocation.statuses import Status
from kongming.allocation.stored import readable
from kongming.executor import window_timer
from kongming.executor.placing.admission import Move
from kongming.executor.placing.placer import Placer
from kongming.executor.store.record import Record
from kongming.executor.store.store import Store
from kongming.host.occupant import Occupant
from kongming.hypervisor.hypervisor import Hypervisor

# Refusals that end when other guests move.
_BY_OTHERS = (exception.Overlap.reason, exception.SmtSibling.reason)


class Moves:
    """Reads the requests of other instances. Any thread may call any method."""

    def __init__(self, store: Store, hypervisor: Hypervisor, placer: Placer) -> None:
        self._store = store
        self._hypervisor = hypervisor
        self._placer = placer

    def of(self, other: Occupant) -> Move | None:
        """Return what an instance will have; None if it stays as it is.

        It stays if nothing else is requested for it, if its request is refused for another reason
        than other guests, or if it can't be carried out now.

        :param other: its guest; libvirt is called only if it may have to move.
        """
        try:
            record = self._store.get(other.instance_uuid)
            allocation = None if record is None else _requested(record)
            if record is None or allocation is None or _is_in_force(record, other):
                return None
            with self._hypervisor.guest(other.instance_uuid) as guest:
                prospect = self._placer.plan(
                    allocation.at(window_timer.now()),
                    guest,
                    accepted=allocation == record.accepted,
                )
                guest.check_free()
        except exception.KongmingError:
            return None
        return prospect.move(other.instance_uuid) if prospect.plan.changes() else None


def _is_in_force(record: Record, other: Occupant) -> bool:
    """Return whether a guest has what is requested at all times, and has not been moved since."""
    requested = readable(record.requested)
    if requested is None or requested.windows or requested.vcpu_pinning is None:
        return False
    pins = requested.vcpu_pinning.resolve(CpuSet(other.pins))
    return record.status.is_in_force and requested == record.accepted and pins == other.pins


def _requested(record: Record) -> Allocation | None:
    if record.status is Status.FAILED:
        return None
    refused = record.status is Status.REFUSED and record.reason not in _BY_OTHERS
    requested = readable(record.requested)
    return readable(record.accepted) if requested is None or refused else requested
