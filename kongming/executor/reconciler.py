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

"""One pass over one instance: from its desired and observed state to an outcome.

The outcome depends on these two only, never on the reason for the pass: any pass may be
repeated, late or superfluous.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
import contextlib
from datetime import datetime
import enum
from functools import partial
import logging
import time

from kongming import exception
from kongming.allocation.allocation import Allocation
from kongming.allocation.statuses import Status
from kongming.allocation.stored import Unreadable, readable
from kongming.executor import leftovers, outcomes
from kongming.executor.departures import Departures
from kongming.executor.placing.placer import Placed, Placer, Prospect
from kongming.executor.statistics import Statistics
from kongming.executor.store.record import Record
from kongming.executor.store.store import Store
from kongming.executor.thread_watch import ThreadWatch
from kongming.executor.window_timer import WindowTimer
from kongming.hypervisor.guest import Guest
from kongming.hypervisor.hypervisor import Hypervisor

LOG = logging.getLogger(__name__)

# A step that fails while a guest is starting or stopping is no failure. Where init is slow,
# libvirt needs a second or two to notice that QEMU has ended.
_ENDING_S = 3.0


class Result(enum.Enum):
    """What to do with an instance after a pass."""

    DONE = "nothing until something changes"
    RETRY = "retry later"
    CORRECTED = "nothing, unless it is corrected repeatedly"


class Reconciler:
    """Brings guests to their desired allocations."""

    def __init__(
        self,
        store: Store,
        hypervisor: Hypervisor,
        placer: Placer,
        statistics: Statistics,
        windows: WindowTimer,
        threads: ThreadWatch,
        departures: Departures,
        *,
        wake: Callable[[Iterable[str]], None],
    ) -> None:
        """:param wake: called with instances that need a pass at once."""
        self._store = store
        self._windows = windows
        self._departures = departures
        self._hypervisor = hypervisor
        self._placer = placer
        self._threads = threads
        self._wake = wake
        self._statistics = statistics
        # The incarnation (libvirt's id of the domain) that was last placed, and its allocation:
        # the store does not have it if the request changed meanwhile.
        self._placed: dict[str, tuple[int, Allocation]] = {}

    def reconcile(self, instance_uuid: str) -> Result:
        """Make one pass over an instance and store its outcome.

        :raises HypervisorUnavailable: if libvirt is unavailable; all instances get a pass once it
            is available again.
        :raises StoreUnavailable: if the store can't be used.
        """
        record = self._read(instance_uuid)
        if record is None:
            self._forget(instance_uuid)
            return Result.DONE
        begin = time.monotonic()
        try:
            return self._reconcile(record)
        except exception.Failed as error:
            self._statistics.applied("failed", time.monotonic() - begin)
            return self._report(record, error)
        except (
            exception.GuestAbsent,
            exception.GuestBusy,
            exception.Refused,
            exception.Drifted,
        ) as error:
            return self._report(record, error)

    def _report(self, record: Record, outcome: exception.KongmingError) -> Result:
        """Store the outcome of a pass, and log it if it is new."""
        about = (record.instance_uuid, outcome.reason, outcome)
        if isinstance(outcome, exception.GuestAbsent):
            self._report_absent(record, outcome)
        elif isinstance(outcome, exception.GuestBusy):
            if self._store.report(record, Status.PENDING, outcome):
                LOG.info("Instance %s: waiting (%s): %s", *about)
            return Result.RETRY
        elif isinstance(outcome, exception.Refused):
            self._report_refused(record, outcome)
        elif isinstance(outcome, exception.Drifted):
            if self._store.report(record, Status.DRIFTED, outcome):
                self._log_unusable(record, outcome)
        elif self._store.report(record, Status.FAILED, outcome):
            LOG.error("Instance %s: failed (%s): %s; it will be retried", *about)
        return Result.RETRY if isinstance(outcome, exception.Failed) else Result.DONE

    def report_hung(self, instance_uuid: str, hung: exception.GuestHung) -> None:
        """Store that a pass is blocked; it stores its own outcome later.

        :raises StoreUnavailable: if the store can't be used.
        """
        record = self._store.get(instance_uuid)
        if record is not None:
            self._store.report(record, Status.FAILED, hung)

    def _read(self, instance_uuid: str) -> Record | None:
        record = self._store.get(instance_uuid)
        bad = record.requested if record is not None else None
        if not isinstance(bad, Unreadable) or not self._store.restore(instance_uuid):
            return record
        LOG.warning(
            "Instance %s: the stored allocation can't be read (%s) and is restored from the "
            "request",
            instance_uuid,
            bad.why,
        )
        return self._store.get(instance_uuid)

    def _reconcile(self, record: Record) -> Result:
        desired = [readable(record.requested), readable(record.accepted)]
        moment = self._windows.note(record.instance_uuid, desired)
        try:
            with self._hypervisor.guest(record.instance_uuid) as guest:
                if not self._departures.may_place(record, guest.domain_id):
                    return Result.RETRY
                return self._reconcile_guest(record, guest, moment)
        except exception.GuestAbsent:
            leftovers.release_saved(record.instance_uuid, self._hypervisor)
            raise

    def _reconcile_guest(self, record: Record, guest: Guest, moment: datetime) -> Result:
        requested = readable(record.requested)
        placed = self._placed.get(record.instance_uuid)
        if placed is None or placed[0] != guest.domain_id or not requested:
            leftovers.clean_definition(record.instance_uuid, guest)
        if requested is None:
            self._fall_back(record, guest, moment)
            if isinstance(record.requested, Unreadable):
                raise outcomes.unreadable(record.instance_uuid, record.requested)
            # The request can't be read; that was reported when it was stored.
            return Result.DONE
        if not requested:
            self._return_to_baseline(record, guest)
            return Result.DONE
        try:
            return self._place(record, requested, guest, moment)
        except exception.Refused:
            self._fall_back(record, guest, moment)
            raise
        except exception.StepFailed:
            if guest.is_starting() or guest.ends_within(_ENDING_S):
                raise exception.GuestAbsent("the domain is starting or stopping") from None
            raise

    def _place(
        self, record: Record, allocation: Allocation, guest: Guest, moment: datetime
    ) -> Result:
        """Bring a guest to what an allocation contains at a moment.

        :raises Drifted: if some of it is unavailable now.
        """
        accepted = allocation == record.accepted
        if not accepted:
            self._placer.check_windows(allocation, guest)
        current = allocation.at(moment)
        prospect = self._placer.plan(current, guest, accepted=accepted)
        again = accepted and self._was_placed(record, current, guest, prospect)
        begin = time.monotonic()
        done = self._placer.place(record.instance_uuid, prospect, guest, new=not again)
        if done.plan:
            self._statistics.applied("applied", time.monotonic() - begin)
        # They were judged together with this guest's move: all move at once.
        self._wake(done.moving)
        self._placed[record.instance_uuid] = (guest.domain_id, current)
        self._threads.note(record.instance_uuid, guest.group_folder)
        corrected = bool(again and done.plan.changes())
        drift = exception.Repinned(prospect.describe_drift()) if corrected else None
        try:
            if allocation == record.requested:
                self._report_placed(record, prospect, done, guest, drift)
        finally:
            # The outcome is stored first: clients wait for the store, not for the log.
            self._log_placed(record, done, drift)
        return Result.CORRECTED if corrected else Result.DONE

    def _report_placed(
        self,
        record: Record,
        prospect: Prospect,
        done: Placed,
        guest: Guest,
        drift: exception.Drifted | None,
    ) -> None:
        requested = readable(record.requested)
        report = partial(
            self._store.report, record, accepted=requested, drift=drift, unobserved=done.unobserved
        )
        if prospect.shortfalls:
            shortfall = outcomes.combine(prospect.shortfalls)
            if report(Status.REFUSED, shortfall):
                self._statistics.refused(shortfall)
                outcomes.log_refusal(
                    record.instance_uuid, shortfall, effect="the rest is in force"
                )
            return
        unusable = outcomes.unusable(done, guest.host)
        claim = None if unusable else self._departures.claim(record.instance_uuid)
        status = Status.DRIFTED if unusable else Status.ELSEWHERE if claim else Status.APPLIED
        is_new = report(status, unusable or claim, note=done.note)
        if is_new and unusable is not None:
            self._log_unusable(record, unusable)

    def _log_placed(self, record: Record, done: Placed, drift: exception.Drifted | None) -> None:
        if drift is not None:
            self._statistics.drifted(drift)
            LOG.warning(
                "Instance %s: drift (%s): %s; corrected", record.instance_uuid, drift.reason, drift
            )
        elif done.plan.changes():
            LOG.info(
                "Instance %s: %s (applied, %s)%s",
                record.instance_uuid,
                done.plan,
                done.confirmation,
                f"; {done.note}" if done.note else "",
            )

    def _was_placed(
        self, record: Record, allocation: Allocation, guest: Guest, prospect: Prospect
    ) -> bool:
        """Return whether the guest got this allocation last, since it started."""
        placed = self._placed.get(record.instance_uuid)
        if placed is None:
            # Only the domain's baseline shows what happened before this service started. With
            # windows, it may be of another one.
            requested = readable(record.requested)
            return bool(prospect.state.baseline) and not (requested and requested.windows)
        return placed == (guest.domain_id, allocation)

    def _fall_back(self, record: Record, guest: Guest, moment: datetime) -> None:
        """Keep the last accepted allocation in force, as long as possible.

        Without one, a placement can only be of a request that was interrupted before it was
        accepted, or of another host.
        """
        accepted = readable(record.accepted)
        if accepted and accepted != record.requested:
            with contextlib.suppress(exception.Refused):
                self._place(record, accepted, guest, moment)
                return
        if isinstance(record.requested, Unreadable):
            return
        definition = guest.definition()
        if definition.has_foreign_baseline:
            self._release(record, guest, "the placement from another host is not in force here")
        elif record.accepted is None and definition.is_placed_by(self._store.identity):
            self._release(record, guest, "no request was in force before")

    def _release(self, record: Record, guest: Guest, why: str) -> Placed:
        prospect = self._placer.plan(Allocation(), guest, accepted=True)
        done = self._placer.place(record.instance_uuid, prospect, guest, new=False)
        if done.plan.changes():
            LOG.info(
                "Instance %s: %s, back to its baseline: %s", record.instance_uuid, why, done.plan
            )
        return done

    def _return_to_baseline(self, record: Record, guest: Guest) -> None:
        done = self._release(record, guest, "nothing is requested any more")
        if unusable := outcomes.unusable(done, guest.host):
            raise unusable
        self._forget(record.instance_uuid)
        self._store.forget(
            record.instance_uuid,
            "nothing is requested any more, back to its baseline",
            generation=record.generation,
        )

    def _forget(self, instance_uuid: str) -> None:
        """Forget an instance without a record, except in the store."""
        self._placed.pop(instance_uuid, None)
        self._threads.note(instance_uuid, None)
        self._windows.note(instance_uuid, [])

    def _log_unusable(self, record: Record, drift: exception.Drifted) -> None:
        self._statistics.drifted(drift)
        LOG.warning("Instance %s: drift (%s): %s", record.instance_uuid, drift.reason, drift)

    def _report_absent(self, record: Record, absent: exception.GuestAbsent) -> None:
        LOG.debug("Instance %s: %s", record.instance_uuid, absent)
        if self._departures.forget_departed(record, absent):
            self._hypervisor.forget_migrated(record.instance_uuid)
            self._forget(record.instance_uuid)
            return
        # Also without a request: a saved domain is restored with its pins.
        if isinstance(record.requested, Unreadable):
            self._report_refused(
                record, outcomes.unreadable(record.instance_uuid, record.requested)
            )
        elif record.requested is not None:
            self._store.report(record, Status.ABSENT, absent, unobserved="")

    def _report_refused(self, record: Record, refusal: exception.Refused) -> None:
        if self._store.report(record, Status.REFUSED, refusal):
            self._statistics.refused(refusal)
            outcomes.log_refusal(record.instance_uuid, refusal)
