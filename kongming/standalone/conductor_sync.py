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

"""The synchronization of a host with the conductors.

Outcomes are reported at once. Desired allocations are requested at the start, when an unknown
guest starts, and at an interval, so that a lost message matters only until then. While no
conductor is available, all guests keep their placement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
import logging
import threading
import time
from typing import Any

from kongming import exception
from kongming.rpc.client import ConductorClient
from kongming.rpc.messages import Exchange, ExchangeAnswer, ExecutorInfo, Refusal, Report
from kongming.runtime.availability import Availability
from kongming.runtime.loop import Loop
from kongming.standalone.desired import DesiredAllocations
from kongming.standalone.pull_schedule import PullSchedule
from kongming.standalone.report_log import ReportLog

LOG = logging.getLogger(__name__)

_TICK_S = 1.0
_RETRY_MAX_S = 30.0
# Outcomes within this time are reported together.
_GATHER_S = 0.05
# The delay of a snapshot after a change.
_SNAPSHOT_S = 2.0


class ConductorSync:
    """The exchange with the conductors, in a thread of its own.

    :ivar info: what conductors get about this executor; may be replaced at any time.
    :param guests: returns the instances that run on this host.
    :param snapshot: returns the snapshot of the host and its digest; None if it is unavailable.
    """

    def __init__(
        self,
        host: str,
        info: ExecutorInfo,
        conductor: ConductorClient,
        desired: DesiredAllocations,
        *,
        guests: Callable[[], list[str]],
        snapshot: Callable[[], tuple[dict[str, Any], str] | None],
    ) -> None:
        self._host = host
        self.info = info
        self._conductor = conductor
        self._desired = desired
        self._guests = guests
        self._snapshot = snapshot
        self._schedule = PullSchedule()
        self._reports = ReportLog()
        self._lock = threading.Lock()
        self._unknown_guests: set[str] = set()
        self._has_outcomes = False
        self._sent_digest = self._refused_digest = ""
        self._snapshot_at: float | None = None
        self._availability = Availability("A conductor", LOG)
        self._loop = Loop(
            "conductor-sync",
            "the exchange with conductors",
            self._step,
            interval_s=_TICK_S,
            gather_s=_GATHER_S,
            retry_max_s=_RETRY_MAX_S,
            on_error=self._log_error,
        )

    @property
    def is_available(self) -> bool:
        """Whether a conductor responded at the last attempt."""
        return self._availability.is_available

    @property
    def is_settled(self) -> bool:
        """Whether pushes can be accepted; see :attr:`PullSchedule.is_settled`."""
        return self._schedule.is_settled

    def start(self) -> None:
        """Start the thread, and request all desired allocations."""
        self._schedule.request()
        self._loop.start()

    def stop(self, timeout: float) -> None:
        """Stop the thread; unsent reports are sent after the next start."""
        self._loop.stop(timeout)

    def listening(self) -> None:
        """Note that calls are received from now on, and request all desired allocations."""
        self._schedule.listening()
        self._loop.wake()

    def request(self, seconds: float = 0.0) -> None:
        """Request all desired allocations within some seconds."""
        self._schedule.request(seconds)
        self._loop.wake()

    def request_for(self, instance_uuid: str) -> None:
        """Request the desired allocation of an unknown guest."""
        with self._lock:
            self._unknown_guests.add(instance_uuid)
        self._loop.wake()

    def report(self, _instance_uuid: str) -> None:
        """Report the outcomes soon, because one may have changed."""
        self._has_outcomes = True
        self._loop.wake()

    def _step(self) -> None:
        try:
            if self._do_next():
                self._availability.restored()
        except (exception.HypervisorUnavailable, exception.LibvirtForbids) as error:
            # Which guests run here is unknown, and nothing can be done on them anyway.
            LOG.debug("%s", error)

    def _do_next(self) -> bool:
        """Do the most urgent thing that is due; return whether a conductor answered."""
        if self._schedule.is_due(self.info.interval_s):
            self._exchange_all()
        elif self._unknown_guests:
            return self._exchange_unknown_guests()
        elif self._has_outcomes:
            return self._report_outcomes()
        elif self._snapshot_at is not None and time.monotonic() >= self._snapshot_at:
            return self._send_changed_snapshot()
        else:
            return False
        return True

    def _log_error(self, error: exception.KongmingError) -> None:
        if isinstance(error, exception.StoreUnavailable):
            if error.outage.should_log():
                LOG.error(
                    "Can't request desired allocations from a conductor: %s; it will be retried",
                    error,
                )
        elif isinstance(error, exception.MessageRefused):
            self._availability.lost(
                f"A conductor rejects the messages of this host ({error.reason}): {error}; "
                "keeping current placements until one accepts them",
                kind=error.reason,
            )
        else:
            self._availability.lost(
                f"No conductor is responding ({error}); keeping current placements until one does"
            )

    def _exchange_all(self) -> None:
        began_at = self._schedule.begin()
        try:
            guests = self._guests()
            with self._lock:
                self._unknown_guests.clear()
            self._has_outcomes = False
            reports = self._desired.reports()
            snapshot, digest = self._snapshot() or (None, "")
            answer = self._exchange(
                guests, self._desired.generations(), self._reports.all_of(reports), digest
            )
            # Not before the answer: until then the metadata stays in force.
            self._desired.withdraw_metadata()
        except Exception:
            self._schedule.failed()
            raise
        self._reports.sent(reports, complete=True)
        self._schedule.answered(began_at)
        self._sent_digest = digest
        self._schedule.contested(answer.contested)
        if answer.send_snapshot and snapshot is not None:
            self._send_snapshot(snapshot, digest)

    def _exchange_unknown_guests(self) -> bool:
        with self._lock:
            unknown = set(self._unknown_guests)
        # Some may have stopped meanwhile.
        running = sorted(unknown.intersection(self._guests()))
        if running:
            known = self._desired.generations()
            known = {uuid: known[uuid] for uuid in running if uuid in known}
            answer = self._exchange(running, known)
            self._schedule.contested(answer.contested)
        with self._lock:
            self._unknown_guests -= unknown
        self._snapshot_at = time.monotonic() + _SNAPSHOT_S
        return bool(running)

    def _exchange(
        self,
        guests: Sequence[str],
        known: dict[str, int],
        reports: Sequence[Report] | None = None,
        digest: str = "",
    ) -> ExchangeAnswer:
        """Exchange the state of some guests; with reports, of the whole host."""
        began_at, complete = time.monotonic(), reports is not None
        sent = tuple(reports or ())
        answer = self._conductor.exchange(
            Exchange(self._host, self.info, complete, tuple(guests), known, sent, digest)
        )
        self._desired.accept_answer(answer.desired, began_at)
        self._desired.forget(answer.elsewhere)
        self._acknowledge(sent, answer.refused)
        return answer

    def _report_outcomes(self) -> bool:
        self._has_outcomes = False
        try:
            reports = self._desired.reports()
            changed = self._reports.changed(reports)
            if not changed:
                return False
            answer = self._conductor.report(self._host, changed)
        except exception.KongmingError:
            self._has_outcomes = True
            raise
        self._reports.sent(reports, complete=False)
        self._acknowledge(changed, answer.refused)
        self._snapshot_at = time.monotonic() + _SNAPSHOT_S
        return True

    def _acknowledge(self, sent: Sequence[Report], refusals: Iterable[Refusal]) -> None:
        stored, refused = self._reports.acknowledged(sent, refusals)
        self._desired.acknowledge(stored)
        if refused:
            report, why = refused[0]
            LOG.warning(
                "A conductor rejects the reports of %d instances, among them %s: %s; each report "
                "is sent again when it changes",
                len(refused),
                report.instance_uuid,
                why,
            )

    def _send_changed_snapshot(self) -> bool:
        self._snapshot_at = None
        snapshot, digest = self._snapshot() or (None, "")
        if snapshot is None or digest in (self._sent_digest, self._refused_digest):
            return False
        self._send_snapshot(snapshot, digest)
        self._sent_digest = digest
        return True

    def _send_snapshot(self, snapshot: dict[str, Any], digest: str) -> None:
        if digest == self._refused_digest:
            return
        try:
            refused = self._conductor.send_snapshot(self._host, snapshot, digest).refused
        except exception.MessageInvalid as error:
            self._refused_digest = digest
            LOG.warning(
                "A conductor rejects the snapshot of this host: %s; it is sent again when it "
                "changes",
                error,
            )
            return
        if refused:
            LOG.warning(
                "A conductor ignores %d parts of this host's snapshot, among them %s: %s",
                len(refused),
                refused[0].key,
                refused[0].message,
            )
