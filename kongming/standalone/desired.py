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

"""What the conductors want on this host, handed to the executor; and what came of it.

A request of the API has the generation that the database gives it: by it a
message that comes late is told from a new one.
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
from kongming.rpc import messages
from kongming.rpc.messages import Report

LOG = logging.getLogger(__name__)

_BY = "Kongming's API"


class DesiredAllocations:
    """Keeps what the conductors said last, in the executor's store."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._lock = threading.Lock()
        # What is on its way back to its baseline, by the generation that says so.
        self._released: dict[str, int] = {}
        # When something was last pushed: an answer to an older question is older.
        self._pushed: dict[str, float] = {}

    def push(self, instances: Mapping[str, messages.Desired]) -> None:
        """Take what a conductor says without being asked; it is on disk on return.

        :raises StoreUnavailable: if it could not be kept; the rest is not, either.
        """
        with self._lock, self._executor.together():
            held = self._generations()
            for instance_uuid, said in instances.items():
                if said.generation > held.get(instance_uuid, 0):
                    self._pushed[instance_uuid] = time.monotonic()
                    self._take(instance_uuid, said)

    def learn(self, instances: Mapping[str, messages.Desired], asked_at: float) -> None:
        """Take a conductor's answer; it is on disk on return.

        :param asked_at: when it was asked, by the monotonic clock.
        :raises StoreUnavailable: as :meth:`push`.
        """
        with self._lock, self._executor.together():
            pushed = {uuid for uuid, at in self._pushed.items() if at >= asked_at}
            for instance_uuid, said in instances.items():
                if instance_uuid not in pushed:
                    self._take(instance_uuid, said)
            self._pushed = {uuid: self._pushed[uuid] for uuid in pushed}

    def forget_metadata(self) -> None:
        """Take back what another trigger asked on this host before this one was chosen.

        :raises StoreUnavailable: if that can't be kept.
        """
        self._executor.withdraw_all(Source.METADATA, _BY)

    def let_go(self, instance_uuids: Iterable[str]) -> None:
        """Forget instances that are on another host, unless they run on this one.

        :raises StoreUnavailable: if that can't be kept.
        :raises HypervisorUnavailable: if it can't be seen what runs here.
        """
        for instance_uuid in set(instance_uuids) - set(self._executor.guests()):
            self._executor.let_go(instance_uuid)
            self._released.pop(instance_uuid, None)

    def known(self) -> dict[str, int]:
        """Give the generation of what is known of each instance; 0 if that is not known.

        :raises StoreUnavailable: if it can't be read.
        """
        with self._lock:
            return dict.fromkeys(self._executor.returning(), 0) | self._generations()

    def reports(self) -> dict[str, Report]:
        """Say how far all has come, by instance.

        :raises StoreUnavailable: if it can't be read.
        """
        with self._lock:
            asked = self._executor.asked_by(Source.API)
            found = {
                uuid: _report(generation, record) for uuid, (generation, record) in asked.items()
            }
            returning = self._executor.returning()
            for instance_uuid, generation in self._released.items():
                if instance_uuid not in found and instance_uuid not in returning:
                    found[instance_uuid] = Report.released(instance_uuid, generation, time.time())
            return found

    def confirmed(self, reports: Iterable[Report]) -> None:
        """Note that a conductor has kept some reports."""
        with self._lock:
            for report in reports:
                generation = self._released.get(report.instance_uuid)
                if report.status == Status.RELEASED and generation == report.generation:
                    del self._released[report.instance_uuid]

    def _generations(self) -> dict[str, int]:
        asked = self._executor.asked_by(Source.API)
        return self._released | {uuid: generation for uuid, (generation, _) in asked.items()}

    def _take(self, instance_uuid: str, said: messages.Desired) -> None:
        if said.allocation is None:
            self._released[instance_uuid] = said.generation
            self._executor.withdraw(instance_uuid, Source.API, _BY)
        else:
            self._released.pop(instance_uuid, None)
            asked, by = _read(said.allocation), said.requested_by or _BY
            request = Request(Source.API, asked, by, time.time(), said.generation)
            self._executor.ask(instance_uuid, request)


def _read(written: object) -> Allocation | exception.Refused:
    """Read an allocation strictly: a newer conductor may know more than this executor."""
    try:
        return json_schema.read(written)
    except exception.Refused as refusal:
        return refusal


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
