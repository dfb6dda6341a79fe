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
from typing import Any

from kongming import exception, schema
from kongming.allocation import Allocation
from kongming.executor.executor import Executor
from kongming.executor.record import Record
from kongming.executor.request import Request, Source

LOG = logging.getLogger(__name__)

_BY = "Kongming's API"

#: How far it has come if nothing is wanted any more and the guest is as it was before.
RELEASED = "released"


class Wanted:
    """Keeps what the conductors said last, in the executor's store."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._lock = threading.Lock()
        # What is on its way back to its baseline, by the generation that says so.
        self._released: dict[str, int] = {}
        # When something was last pushed: an answer to an older question is older.
        self._pushed: dict[str, float] = {}

    def push(self, instances: Mapping[str, Any]) -> None:
        """Take what a conductor says without being asked; it is on disk on return.

        :raises StoreUnavailable: if it could not be kept; the rest is not, either.
        """
        with self._lock:
            held = self._generations()
            for instance_uuid, said in instances.items():
                generation = said["generation"]
                if generation > held.get(instance_uuid, 0):
                    self._pushed[instance_uuid] = time.monotonic()
                    self._take(instance_uuid, generation, said)

    def learn(self, instances: Mapping[str, Any], asked_at: float) -> None:
        """Take a conductor's answer; it is on disk on return.

        :param asked_at: when it was asked, by the monotonic clock.
        :raises StoreUnavailable: as :meth:`push`.
        """
        with self._lock:
            pushed = {uuid for uuid, at in self._pushed.items() if at >= asked_at}
            for instance_uuid, said in instances.items():
                if instance_uuid not in pushed:
                    self._take(instance_uuid, said["generation"], said)
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

    def reports(self) -> dict[str, dict[str, Any]]:
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
                    found[instance_uuid] = _released(instance_uuid, generation)
            return found

    def confirmed(self, reports: Iterable[Mapping[str, Any]]) -> None:
        """Note that a conductor has kept some reports."""
        with self._lock:
            for report in reports:
                instance_uuid = report["instance_uuid"]
                generation = self._released.get(instance_uuid)
                if report["status"] == RELEASED and generation == report["generation"]:
                    del self._released[instance_uuid]

    def _generations(self) -> dict[str, int]:
        asked = self._executor.asked_by(Source.API)
        return self._released | {uuid: generation for uuid, (generation, _) in asked.items()}

    def _take(self, instance_uuid: str, generation: int, said: Mapping[str, Any]) -> None:
        if said["allocation"] is None:
            self._released[instance_uuid] = generation
            self._executor.withdraw(instance_uuid, Source.API, _BY)
        else:
            self._released.pop(instance_uuid, None)
            by = said.get("asked_by") or _BY
            request = Request(Source.API, _read(said["allocation"]), by, time.time(), generation)
            self._executor.ask(instance_uuid, request)


def _read(written: object) -> Allocation | exception.Refused:
    """Read an allocation strictly: a newer conductor may know more than this executor."""
    try:
        return schema.read(written)
    except exception.Refused as refusal:
        return refusal


def _report(generation: int, record: Record) -> dict[str, Any]:
    return {
        "instance_uuid": record.instance_uuid,
        "generation": generation,
        "status": str(record.status),
        "reason": record.reason,
        "message": record.message,
        "source": str(record.source),
        "drift": record.drift,
        "drift_at": record.drift_at,
        "changed_at": record.changed_at,
    }


def _released(instance_uuid: str, generation: int) -> dict[str, Any]:
    return {
        "instance_uuid": instance_uuid,
        "generation": generation,
        "status": RELEASED,
        "reason": "",
        "message": "",
        "source": str(Source.API),
        "drift": "",
        "drift_at": None,
        "changed_at": time.time(),
    }
