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

"""The executor of one host and the conductors, kept of one mind.

What comes of each request is reported at once. What is wanted is asked for at
the start, when a guest starts that nothing is known of, and at an interval,
so that no message that was lost matters for long. While no conductor answers,
all stays as it was said last.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
import logging
import math
import threading
import time
from typing import Any

from kongming import exception
from kongming.rpc.client import ConductorClient
from kongming.rpc.messages import (
    Exchange,
    ExchangeAnswer,
    ExecutorInfo,
    Refusal,
    Report,
    of_instances,
)
from kongming.runtime.availability import Availability
from kongming.runtime.backoff import Backoff
from kongming.runtime.loop import Loop
from kongming.runtime.timer import Timer
from kongming.standalone.desired import DesiredAllocations

LOG = logging.getLogger(__name__)

_LOOK_S = 1.0
_RETRY_MAX_S = 30.0
# What comes of several requests at once is told at once.
_GATHER_S = 0.05
# What the host looks like is told so long after it has changed.
_VIEW_S = 2.0
# Where an instance is may not be settled yet.
_CONTEST_MAX_S = 30.0
# When RabbitMQ is back, all hosts listen again at once.
_SPREAD_S = 5.0


class ConductorSync:
    """Talks to the conductors, in a thread of its own.

    :ivar about: what a conductor is told of this executor; may be replaced at any time.
    :param guests: gives the instances that run on this host.
    :param view: gives what the host looks like, and the digest of that; None
        if it can't be seen now.
    """

    def __init__(
        self,
        host: str,
        about: ExecutorInfo,
        conductor: ConductorClient,
        wanted: DesiredAllocations,
        *,
        guests: Callable[[], list[str]],
        view: Callable[[], tuple[dict[str, Any], str] | None],
    ) -> None:
        self._host = host
        self.about = about
        self._conductor = conductor
        self._wanted = wanted
        self._guests = guests
        self._view = view
        self._all = Timer()
        self._contest = Backoff(_CONTEST_MAX_S)
        self._strangers: set[str] = set()
        self._lock = threading.Lock()
        self._told: dict[str, Report] = {}
        self._refused: dict[str, Report] = {}
        self._shown = ""
        self._unfit_view = ""
        self._show_at: float | None = None
        self._dirty = False
        self._availability = Availability("A conductor", LOG)
        self._listening_at: float | None = None
        self._answered_at = -math.inf
        self._loop = Loop(
            "conductor-sync",
            "the exchange with conductors",
            self._step,
            interval_s=_LOOK_S,
            gather_s=_GATHER_S,
            retry_max_s=_RETRY_MAX_S,
            on_error=self._report_error,
        )

    @property
    def is_available(self) -> bool:
        """Whether a conductor responded at the last attempt."""
        return self._availability.is_available

    @property
    def is_settled(self) -> bool:
        """Tell whether a conductor has answered what was asked since calls are heard here.

        What was sent before that is known, then, or undone.
        """
        return self._listening_at is not None and self._answered_at >= self._listening_at

    def listening(self) -> None:
        """Note that calls are heard here from now on, those that waited, too."""
        is_first, self._listening_at = self._listening_at is None, time.monotonic()
        self.ask(0.0 if is_first else _SPREAD_S)

    def start(self) -> None:
        """Begin; returns at once."""
        self._all.expire_within(0.0)
        self._loop.start()

    def stop(self, timeout: float) -> None:
        """End; what was not told is told after the next start."""
        self._loop.stop(timeout)

    def note(self, _instance_uuid: str) -> None:
        """Note that something may have come of what is wanted for an instance."""
        self._dirty = True
        self._loop.wake()

    def meet(self, instance_uuid: str) -> None:
        """Ask what is wanted for a guest that nothing is known of."""
        with self._lock:
            self._strangers.add(instance_uuid)
        self._loop.wake()

    def ask(self, seconds: float = 0.0) -> None:
        """Ask for all that is wanted, within so many seconds."""
        self._all.expire_within(seconds)
        self._loop.wake()

    def _step(self) -> None:
        """Send and request what is due."""
        try:
            if self._talk():
                self._availability.restored()
        except (exception.HypervisorUnavailable, exception.LibvirtForbids) as error:
            # Which guests run here is unknown, and nothing can be done on them anyway.
            LOG.debug("%s", error)

    def _report_error(self, error: exception.KongmingError) -> None:
        if isinstance(error, exception.StoreUnavailable):
            if error.outage.is_news():
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

    def _talk(self) -> bool:
        if self._all.is_due(self.about.interval_s):
            self._ask_all()
        elif self._strangers:
            self._ask_for_strangers()
        elif self._dirty:
            self._report()
        elif self._show_at is not None and time.monotonic() >= self._show_at:
            self._show()
        else:
            return False
        return True

    def _ask_all(self) -> None:
        asked_at = time.monotonic()
        guests = self._guests()
        with self._lock:
            self._strangers.clear()
        self._dirty = False
        reports = self._wanted.reports()
        view, digest = self._view() or (None, "")
        # Before it is asked: what is to be asked again meanwhile is not forgotten.
        self._all.restart()
        try:
            answer = self._exchange(complete=True, guests=guests, reports=reports, digest=digest)
        except Exception:
            self._all.expire_within(0.0)
            raise
        # Not before: what is wanted now has replaced it where both asked.
        self._wanted.forget_metadata()
        self._told = reports
        self._refused = {uuid: self._refused[uuid] for uuid in self._refused.keys() & reports}
        self._answered_at = asked_at
        self._shown = digest
        self._ask_again_about(answer.contested)
        if answer.send_snapshot and view is not None:
            self._show_view(view, digest)

    def _ask_for_strangers(self) -> None:
        with self._lock:
            strangers = set(self._strangers)
        # One may have stopped, or stopped meanwhile.
        running = strangers.intersection(self._guests())
        if running:
            answer = self._exchange(complete=False, guests=sorted(running), reports={}, digest="")
            self._ask_again_about(answer.contested)
        with self._lock:
            self._strangers -= strangers
        self._show_at = time.monotonic() + _VIEW_S

    def _exchange(
        self, *, complete: bool, guests: list[str], reports: dict[str, Report], digest: str
    ) -> ExchangeAnswer:
        asked_at = time.monotonic()
        known = self._wanted.known()
        if not complete:
            known = {uuid: known[uuid] for uuid in guests if uuid in known}
        told = self._without_refused(reports)
        answer = self._conductor.exchange(
            Exchange(self._host, self.about, complete, tuple(guests), known, tuple(told), digest)
        )
        self._wanted.learn(answer.desired, asked_at)
        self._wanted.let_go(answer.elsewhere)
        self._confirm(told, answer.refused)
        return answer

    def _ask_again_about(self, contested: Collection[str]) -> None:
        """Ask again soon while instances that run here count as being elsewhere."""
        if contested:
            self._all.expire_within(self._contest.next())
        else:
            self._contest.reset()

    def _report(self) -> None:
        self._dirty = False
        reports = self._wanted.reports()
        news = {uuid: said for uuid, said in reports.items() if said != self._told.get(uuid)}
        told = self._without_refused(news)
        if not told:
            return
        try:
            answer = self._conductor.report(self._host, told)
        except (exception.ConductorUnresponsive, exception.MessageRefused):
            self._dirty = True
            raise
        self._told = reports
        self._confirm(told, answer.refused)
        self._show_at = time.monotonic() + _VIEW_S

    def _without_refused(self, reports: dict[str, Report]) -> list[Report]:
        """Leave out what was refused before, and is still the same."""
        return [said for uuid, said in reports.items() if said != self._refused.get(uuid)]

    def _confirm(self, told: list[Report], refused: Iterable[Refusal]) -> None:
        """Note what was kept of what was told, and what never will be."""
        named = of_instances(refused)
        self._wanted.confirmed(said for said in told if said.instance_uuid not in named)
        unkept = [said for said in told if said.instance_uuid in named]
        for said in told:
            self._refused.pop(said.instance_uuid, None)
        for said in unkept:
            self._refused[said.instance_uuid] = said
        if unkept:
            first = unkept[0].instance_uuid
            LOG.warning(
                "A conductor rejects the reports of %d instances, among them %s: %s; each report "
                "is sent again when it changes",
                len(unkept),
                first,
                named[first].message,
            )

    def _show(self) -> None:
        self._show_at = None
        view, digest = self._view() or (None, "")
        if view is not None and digest != self._shown:
            self._show_view(view, digest)
            self._shown = digest

    def _show_view(self, view: dict[str, Any], digest: str) -> None:
        if digest == self._unfit_view:
            return
        try:
            refused = self._conductor.send_snapshot(self._host, view, digest).refused
        except exception.MessageInvalid as error:
            self._unfit_view = digest
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
