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
"""What other instances of this host are to have, for who wants their CPUs."""

from __future__ import annotations

from kongming import exception
from kongming.allocation import Allocation
from kongming.executor import window_timer
from kongming.executor.admission import Move
from kongming.executor.placer import Placer
from kongming.executor.record import Record
from kongming.executor.store import Store
from kongming.hypervisor.hypervisor import Hypervisor
from kongming.statuses import Status
from kongming.stored import readable

# Refusals that end when other guests move.
_BY_OTHERS = (exception.Overlap.reason, exception.SmtSibling.reason)


class Moves:
    """Looks at the requests of other instances. Any thread may call any method."""

    def __init__(self, store: Store, hypervisor: Hypervisor, placer: Placer) -> None:
        self._store = store
        self._hypervisor = hypervisor
        self._placer = placer

    def of(self, instance_uuid: str) -> Move | None:
        """Return what an instance is to have; None if it stays as it is.

        It stays if nothing else is requested for it, if that is refused for another
        reason than other guests, or if it can't be carried out now.
        """
        try:
            record = self._store.get(instance_uuid)
            allocation = None if record is None else _requested(record)
            if record is None or allocation is None:
                return None
            with self._hypervisor.guest(instance_uuid) as guest:
                prospect = self._placer.look(
                    allocation.at(window_timer.now()),
                    guest,
                    accepted=allocation == record.accepted,
                )
                guest.check_free()
        except exception.KongmingError:
            return None
        return prospect.move(instance_uuid) if prospect.plan.changes() else None


def _requested(record: Record) -> Allocation | None:
    if record.status is Status.FAILED:
        return None
    refused = record.status is Status.REFUSED and record.reason not in _BY_OTHERS
    asked = readable(record.asked)
    return record.accepted if asked is None or refused else asked
