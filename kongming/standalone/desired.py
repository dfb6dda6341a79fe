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

"""The desired allocations of this host, as received from conductors, and reports of them.

A request of the API has the generation of the database, which shows whether a message is late.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import logging
import threading
import time

from kongming import exception
from kongming.allocation import json_schema
from kongming.allocation.allocation import Allocation
from kongming.allocation.request import Request, Source
from kongming.allocation.statuses import Status
from kongming.executor.executor import Executor
from kongming.executor.store.record import Record
from kongming.rpc.messages import Desired, Report

LOG = logging.getLogger(__name__)

_REQUESTER = "Kongming's API"


class DesiredAllocations:
    """The desired allocations in the executor's store. Thread-safe."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._lock = threading.Lock()
        # The generation of each release that no conductor has stored yet.
        self._released: dict[str, int] = {}
        # The time of the last push for an instance.
        self._pushed: dict[str, float] = {}

    def accept_push(self, instances: Mapping[str, Desired]) -> None:
        """Store the newer ones of some pushed allocations on disk.

        :raises StoreUnavailable: if one can't be stored; the others are not stored, either.
        """
        with self._lock, self._executor.batch():
            for uuid, desired in newer(instances, self._generations()).items():
                self._pushed[uuid] = time.monotonic()
                self._store(uuid, desired)

    def accept_answer(self, instances: Mapping[str, Desired], began_at: float) -> None:
        """Store the allocations of an exchange on disk, unless newer ones were pushed meanwhile.

        :param began_at: when the exchange began, by the monotonic clock.
        :raises StoreUnavailable: as :meth:`accept_push`.
        """
        with self._lock, self._executor.batch():
            self._pushed = {uuid: at for uuid, at in self._pushed.items() if at >= began_at}
            for uuid, desired in instances.items():
                if uuid not in self._pushed:
                    self._store(uuid, desired)

    def withdraw_metadata(self) -> None:
        """Withdraw the requests of another trigger that this host had before.

        :raises StoreUnavailable: if that can't be stored.
        """
        self._executor.withdraw_all(Source.METADATA, _REQUESTER)

    def forget(self, instance_uuids: Iterable[str]) -> None:
        """Forget instances that are on another host, unless they run on this one.

        :raises StoreUnavailable: if that can't be stored.
        :raises HypervisorUnavailable: if the running guests are unknown.
        """
        for instance_uuid in set(instance_uuids) - set(self._executor.guests()):
            self._executor.forget(instance_uuid)
            self._released.pop(instance_uuid, None)

    def generations(self) -> dict[str, int]:
        """Return the generation of each known instance; 0 if it is unknown.

        :raises StoreUnavailable: if it can't be read.
        """
        with self._lock:
            return dict.fromkeys(self._executor.returning(), 0) | self._generations()

    def reports(self) -> dict[str, Report]:
        """Return the reports of all instances.

        :raises StoreUnavailable: if they can't be read.
        """
        with self._lock:
            requested = self._executor.requested_by(Source.API)
            found = {uuid: _report(*each) for uuid, each in requested.items()}
            pending = found.keys() | set(self._executor.returning())
            now = time.time()
            return found | {
                uuid: Report.released(uuid, generation, now)
                for uuid, generation in self._released.items()
                if uuid not in pending
            }

    def acknowledge(self, reports: Iterable[Report]) -> None:
        """Note that a conductor has stored some reports."""
        with self._lock:
            for report in reports:
                generation = self._released.get(report.instance_uuid)
                if report.status is Status.RELEASED and generation == report.generation:
                    del self._released[report.instance_uuid]

    def _generations(self) -> dict[str, int]:
        requested = self._executor.requested_by(Source.API)
        return self._released | {uuid: generation for uuid, (generation, _) in requested.items()}

    def _store(self, instance_uuid: str, desired: Desired) -> None:
        if desired.allocation is None:
            self._released[instance_uuid] = desired.generation
            self._executor.withdraw(instance_uuid, Source.API, _REQUESTER)
        else:
            self._released.pop(instance_uuid, None)
            self._executor.request(instance_uuid, request_of(desired, time.time()))


def newer(instances: Mapping[str, Desired], known: Mapping[str, int]) -> dict[str, Desired]:
    """Return the allocations with a higher generation than the known one."""
    return {
        uuid: desired
        for uuid, desired in instances.items()
        if desired.generation > known.get(uuid, 0)
    }


def request_of(desired: Desired, now: float) -> Request:
    """Return the request for an allocation; an invalid allocation becomes its refusal.

    It is read strictly, because a newer conductor may have fields that this executor lacks.
    """
    requested: Allocation | exception.Refused
    try:
        requested = json_schema.read(desired.allocation)
    except exception.Refused as refusal:
        requested = refusal
    by = desired.requested_by or _REQUESTER
    return Request(Source.API, requested, by, now, desired.generation)


def _report(generation: int, record: Record) -> Report:
    return Report(
        record.instance_uuid,
        generation,
        record.status,
        record.reason,
        record.message,
        str(record.source),
        record.drift,
        record.drift_at,
        record.changed_at,
        record.unobserved,
    )
