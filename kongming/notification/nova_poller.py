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

"""Asking Nova what is wanted: what events hint at, and now and then everything.

Questions are gathered while one is under way: many events make few requests.
As long as Nova does not answer, all stays as it is and nothing is forgotten.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
import logging
import time

from kongming import exception
from kongming.executor.store.residence import Place
from kongming.notification.order import Moment
from kongming.notification.pending_lookups import ALL, Inquiries, Inquiry
from kongming.notification.requests import Wanted
from kongming.nova.client import Nova
from kongming.nova.polling import PollIntervals
from kongming.nova.server import Server
from kongming.runtime.availability import Availability
from kongming.runtime.loop import Loop
from kongming.runtime.timer import Timer

LOG = logging.getLogger(__name__)

# Who has more questions than this lists the servers of the host instead.
_FEW = 8
# From one round of questions to the next, so that what comes meanwhile is gathered.
_ROUND_S = 0.5
_LOOK_S = 1.0
_RETRY_MAX_S = 60.0
# Nova may announce what its database shows a moment later.
_PATIENCE = 4
# What Nova had not committed yet when it was last asked, and clocks of its own that differ.
_OVERLAP_S = 300.0
# Why Nova is asked if no event led to it.
_RESYNC = "resync"


class Inquirer:
    """Asks Nova, in a thread of its own.

    :param held: gives the instances that anything is known of.
    :ivar intervals: those in force; they may be replaced at any time.
    """

    def __init__(
        self,
        host: str,
        nova: Nova,
        inquiries: Inquiries,
        wanted: Wanted,
        *,
        held: Callable[[], frozenset[str]],
        intervals: PollIntervals,
        start_spread: float,
    ) -> None:
        self._host = host
        self._nova = nova
        self._inquiries = inquiries
        self._wanted = wanted
        self._held = held
        self.intervals = intervals
        self._changes = Timer()
        self._all = Timer()
        self._start_spread = start_spread
        self._asked_at = 0.0
        self._availability = Availability("Nova", LOG)
        self._loop = Loop(
            "nova-poller",
            "polling Nova",
            self._step,
            interval_s=_LOOK_S,
            retry_max_s=_RETRY_MAX_S,
            on_error=self._report,
        )

    def start(self) -> None:
        """Begin; returns at once."""
        self._all.expire_within(self._start_spread)
        self._loop.start()

    def stop(self, timeout: float) -> None:
        """End; what is open is on disk, and asked after the next start."""
        if self._loop.stop(timeout):
            self._inquiries.close()

    def ask(self, instance_uuid: str, *, here: bool | None = None) -> None:
        """Have Nova asked about an instance; that this is to be done is on disk on return.

        :param here: whether an event said that the instance is on this host; None if that is
            the question.
        :raises StoreUnavailable: if it could not be kept: try again.
        """
        self._inquiries.add(instance_uuid, here=here)
        self._loop.wake()

    def ask_all(self) -> None:
        """Have Nova asked about all servers of this host, soon."""
        self._all.expire_within(self._start_spread)
        self._loop.wake()

    def asks(self, instance_uuid: str) -> bool:
        """Tell whether an instance is to be asked about."""
        return instance_uuid in self._inquiries

    @property
    def is_available(self) -> bool:
        """Whether Nova could be used at the last attempt."""
        return self._availability.is_available

    @property
    def requests(self) -> Counter[str]:
        """How many requests were made, by what came of them."""
        return self._nova.requests

    @property
    def waiting(self) -> int:
        """Count what Nova is still to be asked about."""
        return len(self._inquiries)

    def _step(self) -> float | None:
        """Poll what is due; return the seconds to pause, so that requests are gathered."""
        if not self._round():
            return None
        self._availability.restored()
        return _ROUND_S

    def _report(self, error: exception.KongmingError) -> None:
        if isinstance(error, exception.StoreUnavailable):
            if error.outage.is_news():
                LOG.error("No request to Nova's API: %s; it will be retried", error)
            return
        self._availability.lost(
            f"Nova's API can't be used ({error.reason}): {error}; keeping current placements "
            "until it can",
            kind=error.reason,
        )

    def _round(self) -> bool:
        """Make one round; tell whether anything was asked."""
        now = time.monotonic()
        due = {about: one for about, one in self._inquiries.open().items() if one.due <= now}
        if ALL in due or self._all.is_due(self.intervals.full_s):
            self._ask_all(due)
        elif self._changes.is_due(self.intervals.changes_s):
            self._ask_changes()
        elif len(due) > _FEW:
            put = Moment.now()
            self._take(due, self._listed(host=self._host), put)
        elif due:
            self._take(due, {}, Moment.now())
        else:
            return False
        return True

    def _ask_all(self, due: dict[str, Inquiry]) -> None:
        put = Moment.now()
        found = self._listed(host=self._host)
        asked_at = self._nova.listed_at
        for server in found.values():
            self._learn(server.instance_uuid, server, _RESYNC, put)
        missing = sorted(self._held() - found.keys())
        if missing:
            LOG.debug("Not among the servers of %s: %s", self._host, ", ".join(missing))
            for instance_uuid in missing:
                self._inquiries.add(instance_uuid)
        self._take(due, found, put)
        if ALL in due:
            self._inquiries.close_one(ALL, due[ALL])
        LOG.log(
            logging.INFO if ALL in due else logging.DEBUG,
            "Resync: Nova lists %d servers on %s; all were checked",
            len(found),
            self._host,
        )
        self._asked_at = asked_at
        self._all.restart()
        self._changes.restart()

    def _ask_changes(self) -> None:
        put = Moment.now()
        since = datetime.fromtimestamp(self._asked_at - _OVERLAP_S, UTC)
        changes = {"host": self._host, "changes-since": since.strftime("%Y-%m-%dT%H:%M:%SZ")}
        servers = self._listed(**changes)
        self._asked_at = self._nova.listed_at
        for server in servers.values():
            self._learn(server.instance_uuid, server, _RESYNC, put)
        self._changes.restart()

    def _listed(self, **filters: str) -> dict[str, Server]:
        return {server.instance_uuid: server for server in self._nova.servers(**filters)}

    def _take(self, due: dict[str, Inquiry], found: dict[str, Server], put: Moment) -> None:
        """Answer what is asked: by the list, or else by a question of its own."""
        held = self._held()
        for instance_uuid, inquiry in due.items():
            if instance_uuid == ALL:
                continue
            server, asked = found.get(instance_uuid), put
            if server is None:
                asked = Moment.now()
                server = self._nova.server(instance_uuid)
            here = server is not None and server.host == self._host
            # What is kept here is expected here: Nova's database may be a moment behind.
            expected = True if inquiry.here is None and instance_uuid in held else inquiry.here
            if expected in (None, here) or inquiry.attempts >= _PATIENCE:
                why = _RESYNC if inquiry.here is None else "its event"
                self._learn(instance_uuid, server, why, asked)
                self._inquiries.close_one(instance_uuid, inquiry)
            else:
                self._inquiries.postpone(instance_uuid, inquiry, 2.0**inquiry.attempts)

    def _learn(self, instance_uuid: str, server: Server | None, why: str, put: Moment) -> None:
        host = "" if server is None or server.host is None else server.host
        place = Place.ELSEWHERE if host else Place.NOWHERE
        if host == self._host:
            place = Place.HERE
            host = ""
        metadata = {} if server is None else server.metadata
        by = f"Nova's API ({why})"
        announced = why != _RESYNC
        self._wanted.learn(instance_uuid, place, metadata, by, put, host, announced=announced)
