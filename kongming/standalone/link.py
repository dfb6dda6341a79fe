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

from collections.abc import Callable
import logging
import threading
import time
from typing import Any

from kongming import exception
from kongming.backoff import Backoff
from kongming.contact import Contact
from kongming.due import Due, anywhere
from kongming.rpc.client import ConductorClient
from kongming.standalone.wanted import Wanted

LOG = logging.getLogger(__name__)

_LOOK_S = 1.0
_RETRY_MAX_S = 30.0
# What comes of several requests at once is told at once.
_GATHER_S = 0.05
# What the host looks like is told so long after it has changed.
_VIEW_S = 2.0


class Link:
    """Talks to the conductors, in a thread of its own.

    :param about: what a conductor is told of this executor: ``version``,
        ``started_at``.
    :param interval: gives the seconds between two times that all is asked for.
    :param guests: gives the instances that run on this host.
    :param view: gives what the host looks like, and the digest of that; None
        if it can't be seen now.
    """

    def __init__(
        self,
        host: str,
        about: dict[str, Any],
        conductor: ConductorClient,
        wanted: Wanted,
        *,
        interval: Callable[[], float],
        guests: Callable[[], list[str]],
        view: Callable[[], tuple[dict[str, Any], str] | None],
    ) -> None:
        self._host = host
        self._about = about
        self._conductor = conductor
        self._wanted = wanted
        self._interval = interval
        self._guests = guests
        self._view = view
        self._all = Due(interval)
        self._backoff = Backoff(_RETRY_MAX_S)
        self._strangers: set[str] = set()
        self._lock = threading.Lock()
        self._told: dict[str, dict[str, Any]] = {}
        self._shown = ""
        self._show_at: float | None = None
        self._dirty = False
        self._changed = threading.Event()
        self._stopping = threading.Event()
        self._contact = Contact("A conductor", LOG)
        self._thread = threading.Thread(target=self._run, name="link", daemon=True)

    @property
    def since(self) -> float | None:
        """Since when no conductor answers, by the wall clock; None if one does."""
        return self._contact.since

    def start(self) -> None:
        """Begin; returns at once."""
        self._all.come_within(0.0)
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """End; what was not told is told after the next start."""
        self._stopping.set()
        self._changed.set()
        self._thread.join(timeout)

    def note(self, _instance_uuid: str) -> None:
        """Note that something may have come of what is wanted for an instance."""
        self._dirty = True
        self._changed.set()

    def meet(self, instance_uuid: str) -> None:
        """Ask what is wanted for a guest that nothing is known of."""
        with self._lock:
            self._strangers.add(instance_uuid)
        self._changed.set()

    def ask_soon(self) -> None:
        """Ask for all that is wanted."""
        self._all.come_within(0.0)
        self._changed.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            pause = self._step()
            if pause is not None:
                self._stopping.wait(pause)
            elif self._changed.wait(_LOOK_S):
                self._changed.clear()
                self._stopping.wait(_GATHER_S)

    def _step(self) -> float | None:
        """Say and ask what is due; give the seconds until the next attempt, None if none is."""
        try:
            spoke = self._talk()
        except exception.ConductorSilent as error:
            silent = error
        except exception.StoreUnavailable as error:
            if error.outage.is_news():
                LOG.error("What is wanted can't be asked for: %s", error)
            return self._backoff.next()
        except exception.HypervisorUnavailable as error:
            # Who runs here is not known; there is nothing to be done anyway.
            LOG.debug("%s", error)
            return None
        except Exception as error:
            LOG.exception("Talking to a conductor: %s; it will be tried again", error)  # noqa: TRY401
            return self._backoff.next()
        else:
            if spoke:
                self._backoff.reset()
                self._contact.answered()
            return None
        self._contact.lost(f"No conductor answers: {silent}; all stays as it is until one does")
        return self._backoff.next() * anywhere(0.5, 1.0)

    def _talk(self) -> bool:
        if self._all.has_come():
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
        guests = self._guests()
        with self._lock:
            self._strangers.clear()
        self._dirty = False
        reports = self._wanted.reports()
        seen = self._view()
        answer = self._exchange(
            complete=True, guests=guests, reports=reports, digest="" if seen is None else seen[1]
        )
        # Not before: what is wanted now has replaced it where both asked.
        self._wanted.forget_metadata()
        self._told = reports
        self._all.begin_anew()
        self._shown = "" if seen is None else seen[1]
        if answer.get("show") and seen is not None:
            self._conductor.show(self._host, *seen)

    def _ask_for_strangers(self) -> None:
        with self._lock:
            strangers = set(self._strangers)
        # One may have stopped, or stopped meanwhile.
        running = strangers.intersection(self._guests())
        if running:
            self._exchange(complete=False, guests=sorted(running), reports={}, digest="")
        with self._lock:
            self._strangers -= strangers
        self._show_at = time.monotonic() + _VIEW_S

    def _exchange(
        self, *, complete: bool, guests: list[str], reports: dict[str, dict[str, Any]], digest: str
    ) -> dict[str, Any]:
        asked_at = time.monotonic()
        known = self._wanted.known()
        if not complete:
            known = {uuid: known[uuid] for uuid in guests if uuid in known}
        answer = self._conductor.exchange(
            self._host,
            about={**self._about, "interval_s": self._interval()},
            complete=complete,
            guests=guests,
            known=known,
            reports=list(reports.values()),
            digest=digest,
        )
        self._wanted.learn(answer["wanted"], asked_at)
        self._wanted.let_go(answer["elsewhere"])
        self._wanted.confirmed(reports.values())
        return answer

    def _report(self) -> None:
        self._dirty = False
        reports = self._wanted.reports()
        news = {uuid: said for uuid, said in reports.items() if said != self._told.get(uuid)}
        if not news:
            return
        try:
            self._conductor.report(self._host, list(news.values()))
        except exception.ConductorSilent:
            self._dirty = True
            raise
        self._told = reports
        self._wanted.confirmed(news.values())
        self._show_at = time.monotonic() + _VIEW_S

    def _show(self) -> None:
        self._show_at = None
        seen = self._view()
        if seen is not None and seen[1] != self._shown:
            self._conductor.show(self._host, *seen)
            self._shown = seen[1]
