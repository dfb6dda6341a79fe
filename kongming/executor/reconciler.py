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

"""One pass over one instance: from what is wanted and what is to an outcome.

What is done depends only on these two, never on why the pass is made: any
pass may be made twice, late, or for nothing.
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

# What fails because a guest is just being started or ended is no failure.
# libvirt waits for QEMU's end, which where init is slow takes a second or two
# to be seen.
_ENDING_S = 3.0


class Result(enum.Enum):
    """What is to be done about an instance after a pass."""

    DONE = "nothing until something changes"
    AGAIN = "try again later"
    CORRECTED = "nothing, unless that happens all the time"


class Reconciler:
    """Brings guests to what is wanted for them."""

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
        """:param wake: called with instances that are to be looked at at once."""
        self._store = store
        self._windows = windows
        self._departures = departures
        self._hypervisor = hypervisor
        self._placer = placer
        self._threads = threads
        self._wake = wake
        self._statistics = statistics
        # The incarnation (libvirt's id of the domain) that was last placed, and
        # what it got: the store misses that if more was asked meanwhile.
        self._placed: dict[str, tuple[int, Allocation]] = {}

    def reconcile(self, instance_uuid: str) -> Result:
        """Make one pass over an instance and keep its outcome.

        :raises HypervisorUnavailable: if libvirt went away; all instances
            are gone through when it is back.
        :raises StoreUnavailable: if the store can't be used.
        """
        record = self._read(instance_uuid)
        if record is None:
            self._forget(instance_uuid)
            return Result.DONE
        begin = time.monotonic()
        try:
            return self._bring_about(record)
        except exception.Failed as error:
            self._statistics.applied("failed", time.monotonic() - begin)
            return self._keep(record, error)
        except (
            exception.GuestAbsent,
            exception.GuestBusy,
            exception.Refused,
            exception.Drifted,
        ) as error:
            return self._keep(record, error)

    def _keep(self, record: Record, outcome: exception.KongmingError) -> Result:
        """Keep what a pass ended with, and tell it if it is new."""
        about = (record.instance_uuid, outcome.reason, outcome)
        if isinstance(outcome, exception.GuestAbsent):
            self._absent(record, outcome)
        elif isinstance(outcome, exception.GuestBusy):
            if self._store.report(record, Status.PENDING, outcome):
                LOG.info("Instance %s: waiting (%s): %s", *about)
            return Result.AGAIN
        elif isinstance(outcome, exception.Refused):
            self._refused(record, outcome)
        elif isinstance(outcome, exception.Drifted):
            if self._store.report(record, Status.DRIFTED, outcome):
                self._tell_unusable(record, outcome)
        elif self._store.report(record, Status.FAILED, outcome):
            LOG.error("Instance %s: failed (%s): %s; it will be retried", *about)
        return Result.AGAIN if isinstance(outcome, exception.Failed) else Result.DONE

    def report_hung(self, instance_uuid: str, hung: exception.GuestHung) -> None:
        """Keep that a pass over an instance is held up; its own outcome comes later.

        :raises StoreUnavailable: if the store can't be used.
        """
        record = self._store.get(instance_uuid)
        if record is not None:
            self._store.report(record, Status.FAILED, hung)

    def _read(self, instance_uuid: str) -> Record | None:
        record = self._store.get(instance_uuid)
        bad = record.asked if record is not None else None
        if not isinstance(bad, Unreadable) or not self._store.restore(instance_uuid):
            return record
        LOG.warning(
            "Instance %s: the stored allocation can't be read (%s) and is restored from the "
            "request",
            instance_uuid,
            bad.why,
        )
        return self._store.get(instance_uuid)

    def _bring_about(self, record: Record) -> Result:
        wanted = [readable(record.asked), readable(record.accepted)]
        moment = self._windows.note(record.instance_uuid, wanted)
        try:
            with self._hypervisor.guest(record.instance_uuid) as guest:
                if not self._departures.may_place(record, guest.domain_id):
                    return Result.AGAIN
                return self._bring_guest(record, guest, moment)
        except exception.GuestAbsent:
            leftovers.release_saved(record.instance_uuid, self._hypervisor)
            raise

    def _bring_guest(self, record: Record, guest: Guest, moment: datetime) -> Result:
        asked = readable(record.asked)
        placed = self._placed.get(record.instance_uuid)
        if placed is None or placed[0] != guest.domain_id or not asked:
            leftovers.clean_definition(record.instance_uuid, guest)
        if asked is None:
            self._fall_back(record, guest, moment)
            if isinstance(record.asked, Unreadable):
                raise outcomes.not_understood(record.instance_uuid, record.asked)
            # It was refused for what it says, and that was told.
            return Result.DONE
        if not asked:
            self._return_to_baseline(record, guest)
            return Result.DONE
        try:
            return self._place(record, asked, guest, moment)
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
        """Bring a guest to what an allocation says at a moment.

        :raises CpuWentOffline: if it can't have all of it for now.
        """
        accepted = allocation == record.accepted
        if not accepted:
            self._placer.check_windows(allocation, guest)
        current = allocation.at(moment)
        prospect = self._placer.look(current, guest, accepted=accepted)
        again = accepted and self._had_it(record, current, guest, prospect)
        begin = time.monotonic()
        done = self._placer.place(record.instance_uuid, prospect, guest, new=not again)
        if done.plan:
            self._statistics.applied("applied", time.monotonic() - begin)
        # They were judged by this guest's move, too: all go in one go.
        self._wake(done.moving)
        self._placed[record.instance_uuid] = (guest.domain_id, current)
        self._threads.note(record.instance_uuid, guest.group_folder)
        corrected = bool(again and done.plan.changes())
        drift = exception.Repinned(prospect.found()) if corrected else None
        try:
            if allocation == record.asked:
                self._report_placed(record, prospect, done, guest, drift)
        finally:
            # Whoever waits for the outcome waits for the store, not for the log.
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
        asked = readable(record.asked)
        report = partial(
            self._store.report, record, accepted=asked, drift=drift, unobserved=done.unobserved
        )
        if prospect.shortfalls:
            shortfall = outcomes.partly(prospect.shortfalls)
            if report(Status.REFUSED, shortfall):
                self._statistics.refused(shortfall)
                outcomes.log_refusal(record.instance_uuid, shortfall, left="the rest is in force")
            return
        unusable = outcomes.unusable(done, guest.host)
        claim = None if unusable else self._departures.claim(record.instance_uuid)
        status = Status.DRIFTED if unusable else Status.ELSEWHERE if claim else Status.APPLIED
        news = report(status, unusable or claim, note=done.note)
        if news and unusable is not None:
            self._tell_unusable(record, unusable)

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

    def _had_it(
        self, record: Record, allocation: Allocation, guest: Guest, prospect: Prospect
    ) -> bool:
        """Tell whether this is what the guest was given last, since it started."""
        placed = self._placed.get(record.instance_uuid)
        if placed is None:
            # Of before our own start only the note in the domain tells; if there are
            # windows, it may be of another time.
            asked = readable(record.asked)
            return bool(prospect.state.baseline) and not (asked and asked.windows)
        return placed == (guest.domain_id, allocation)

    def _fall_back(self, record: Record, guest: Guest, moment: datetime) -> None:
        """Keep in force what was accepted last, as long as it can be.

        If nothing was, a placement can only be of a request that was cut off before it was
        known to be in force, or of another host.
        """
        accepted = readable(record.accepted)
        if accepted and accepted != record.asked:
            with contextlib.suppress(exception.Refused):
                self._place(record, accepted, guest, moment)
                return
        if isinstance(record.asked, Unreadable):
            return
        definition = guest.definition()
        if definition.has_foreign_baseline:
            self._release(record, guest, "the placement from another host is not in force here")
        elif record.accepted is None and definition.is_placed_by(self._store.identity):
            self._release(record, guest, "no request was in force before")

    def _release(self, record: Record, guest: Guest, why: str) -> Placed:
        prospect = self._placer.look(Allocation(), guest, accepted=True)
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
        """Forget what is remembered, beside the store, of an instance that has nothing here."""
        self._placed.pop(instance_uuid, None)
        self._threads.note(instance_uuid, None)
        self._windows.note(instance_uuid, [])

    def _tell_unusable(self, record: Record, drift: exception.Drifted) -> None:
        self._statistics.drifted(drift)
        LOG.warning("Instance %s: drift (%s): %s", record.instance_uuid, drift.reason, drift)

    def _absent(self, record: Record, absent: exception.GuestAbsent) -> None:
        LOG.debug("Instance %s: %s", record.instance_uuid, absent)
        if self._departures.forgets(record, absent):
            self._hypervisor.forget_migrated(record.instance_uuid)
            self._forget(record.instance_uuid)
            return
        # Also if nothing is asked any more: a domain that was saved comes
        # back with its pins.
        if isinstance(record.asked, Unreadable):
            self._refused(record, outcomes.not_understood(record.instance_uuid, record.asked))
        elif record.asked is not None:
            self._store.report(record, Status.ABSENT, absent, unobserved="")

    def _refused(self, record: Record, refusal: exception.Refused) -> None:
        if self._store.report(record, Status.REFUSED, refusal):
            self._statistics.refused(refusal)
            outcomes.log_refusal(record.instance_uuid, refusal)
