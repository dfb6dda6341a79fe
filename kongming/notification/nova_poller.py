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

"""Requests to Nova's API: instances that events hint at, and now and then all servers.

Lookups that are requested during a request wait for the next round, so a burst of events makes few
requests. While Nova is unavailable, all placements stay, and nothing is forgotten.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
import logging
import time
from typing import TYPE_CHECKING

from kongming import exception
from kongming.executor.store.residence import Place
from kongming.notification.metadata_trigger import MetadataTrigger
from kongming.notification.order import Moment
from kongming.notification.pending_lookups import ALL, Lookup, PendingLookups
from kongming.nova.polling import PollIntervals
from kongming.nova.server import Server
from kongming.runtime.availability import Availability
from kongming.runtime.loop import Loop
from kongming.runtime.timer import Timer

if TYPE_CHECKING:
    from kongming.nova.client import Nova

LOG = logging.getLogger(__name__)

# With more lookups than this, the servers of the host are listed instead.
_FEW = 8
# From one round to the next, so that lookups are gathered.
_ROUND_S = 0.5
_INTERVAL_S = 1.0
_RETRY_MAX_S = 60.0
# An event may be a moment ahead of Nova's database: the answers that may contradict it, and the
# delay before the second one, which doubles with each.
_ATTEMPTS = 4
_POSTPONE_S = 1.0
# For changes that Nova had not committed at the last poll, and for differing clocks of Nova.
_OVERLAP_S = 300.0
# The source of an answer to which no event led.
_RESYNC = "resync"


class NovaPoller:
    """Polls Nova's API in a thread of its own.

    :param held: returns the instances with a record.
    :param start_spread: the seconds within which all servers are polled first.
    :ivar intervals: those in force; they may be replaced at any time.
    """

    def __init__(
        self,
        host: str,
        nova: Nova,
        lookups: PendingLookups,
        trigger: MetadataTrigger,
        *,
        held: Callable[[], frozenset[str]],
        intervals: PollIntervals,
        start_spread: float,
    ) -> None:
        self._host = host
        self._nova = nova
        self._lookups = lookups
        self._trigger = trigger
        self._held = held
        self.intervals = intervals
        self._changes = Timer()
        self._all = Timer()
        self._start_spread = start_spread
        self._listed_at = 0.0
        self._availability = Availability("Nova", LOG)
        self._loop = Loop(
            "nova-poller",
            "polling Nova",
            self._step,
            interval_s=_INTERVAL_S,
            retry_max_s=_RETRY_MAX_S,
            on_error=self._report,
        )

    def start(self) -> None:
        """Start polling."""
        self._all.expire_within(self._start_spread)
        self._loop.start()

    def stop(self, timeout: float) -> None:
        """Stop polling; pending lookups are on disk, and done after the next start."""
        if self._loop.stop(timeout):
            self._lookups.close()

    def request(self, instance_uuid: str, *, here: bool | None = None) -> None:
        """Request a lookup of an instance; it is on disk on return.

        :param here: whether an event named this host; None if no event led to the lookup.
        :raises StoreUnavailable: if it can't be stored; retry.
        """
        self._lookups.add(instance_uuid, here=here)
        self._loop.wake()

    def request_all(self) -> None:
        """Poll all servers of this host soon."""
        self._all.expire_within(self._start_spread)
        self._loop.wake()

    def is_pending(self, instance_uuid: str) -> bool:
        """Return whether a lookup of an instance is pending."""
        return instance_uuid in self._lookups

    @property
    def is_available(self) -> bool:
        """Whether Nova could be used at the last attempt."""
        return self._availability.is_available

    @property
    def requests(self) -> Counter[str]:
        """The number of requests to Nova's API, by outcome."""
        return self._nova.requests

    @property
    def pending(self) -> int:
        """The number of pending lookups."""
        return len(self._lookups)

    def _step(self) -> float | None:
        """Poll what is due; return the seconds to pause, so that lookups are gathered."""
        if not self._poll():
            return None
        self._availability.restored()
        return _ROUND_S

    def _report(self, error: exception.KongmingError) -> None:
        if isinstance(error, exception.StoreUnavailable):
            if error.outage.should_log():
                LOG.error("No request to Nova's API: %s; it will be retried", error)
            return
        self._availability.lost(
            f"Nova's API can't be used ({error.reason}): {error}; keeping current placements "
            "until it can",
            kind=error.reason,
        )

    def _poll(self) -> bool:
        """Poll what is due; return whether anything was."""
        now = time.monotonic()
        due = {key: each for key, each in self._lookups.pending().items() if each.due <= now}
        if ALL in due or self._all.is_due(self.intervals.full_s):
            self._poll_all(due)
        elif self._changes.is_due(self.intervals.changes_s):
            self._poll_changes()
        elif len(due) > _FEW:
            moment = Moment.now()
            self._look_up(due, self._list(host=self._host), moment)
        elif due:
            self._look_up(due, {}, Moment.now())
        else:
            return False
        return True

    def _poll_all(self, due: dict[str, Lookup]) -> None:
        moment = Moment.now()
        found = self._list(host=self._host)
        listed_at = self._nova.listed_at
        for server in found.values():
            self._apply(server.instance_uuid, server, _RESYNC, moment)
        missing = sorted(self._held() - found.keys())
        if missing:
            LOG.debug("Not among the servers of %s: %s", self._host, ", ".join(missing))
            for instance_uuid in missing:
                self._lookups.add(instance_uuid)
        self._look_up(due, found, moment)
        if ALL in due:
            self._lookups.finish(ALL, due[ALL])
        LOG.log(
            logging.INFO if ALL in due else logging.DEBUG,
            "Resync: Nova lists %d servers on %s; all were checked",
            len(found),
            self._host,
        )
        self._listed_at = listed_at
        self._all.restart()
        self._changes.restart()

    def _poll_changes(self) -> None:
        moment = Moment.now()
        since = datetime.fromtimestamp(self._listed_at - _OVERLAP_S, UTC)
        changes = {"host": self._host, "changes-since": since.strftime("%Y-%m-%dT%H:%M:%SZ")}
        servers = self._list(**changes)
        self._listed_at = self._nova.listed_at
        for server in servers.values():
            self._apply(server.instance_uuid, server, _RESYNC, moment)
        self._changes.restart()

    def _list(self, **filters: str) -> dict[str, Server]:
        return {server.instance_uuid: server for server in self._nova.servers(**filters)}

    def _look_up(self, due: dict[str, Lookup], listed: dict[str, Server], moment: Moment) -> None:
        """Finish lookups: by the list, or else by one request for each."""
        held = self._held()
        for instance_uuid, lookup in due.items():
            if instance_uuid == ALL:
                continue
            server, requested = listed.get(instance_uuid), moment
            if server is None:
                requested = Moment.now()
                server = self._nova.server(instance_uuid)
            here = server is not None and server.host == self._host
            # An instance with a record is expected here: Nova's database may be a moment behind.
            expected = True if lookup.here is None and instance_uuid in held else lookup.here
            if expected in (None, here) or lookup.attempts >= _ATTEMPTS:
                cause = _RESYNC if lookup.here is None else "its event"
                self._apply(instance_uuid, server, cause, requested)
                self._lookups.finish(instance_uuid, lookup)
            else:
                delay_s = _POSTPONE_S * 2.0**lookup.attempts
                self._lookups.postpone(instance_uuid, lookup, delay_s)

    def _apply(
        self, instance_uuid: str, server: Server | None, cause: str, moment: Moment
    ) -> None:
        host = "" if server is None or server.host is None else server.host
        if server is not None and server.building and not host:
            return
        place = Place.ELSEWHERE if host else Place.NOWHERE
        if host == self._host:
            place = Place.HERE
            host = ""
        metadata = {} if server is None else server.metadata
        source = f"Nova's API ({cause})"
        announced = cause != _RESYNC
        self._trigger.handle_answer(
            instance_uuid, place, metadata, source, moment, host, announced=announced
        )
