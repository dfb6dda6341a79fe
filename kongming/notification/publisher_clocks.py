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

"""The clocks of those who publish: what is wrong with one is told once, and outlived."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
import logging
import time

from kongming.allocation.cpuset import shown
from kongming.executor.store.residence import Place
from kongming.notification.event import InstanceEvent
from kongming.notification.order import SKEW_S, Verdict

LOG = logging.getLogger(__name__)

# A message that is so much older than another of its publisher is no mere matter of threads.
_SET_BACK_S = 5.0
# One that is so much older is told of: it may be lost, if it is not late.
_TOLD_S = 60.0
# Messages that waited come in a burst, each with a delay of its own. Those of a clock that was
# set back come as they are sent, with one delay: that of the clock.
_APART_S = 1.0
_ALIKE_S = 1.0
_PUBLISHERS_MAX = 1000

Said = tuple[InstanceEvent, Place]


@dataclass(slots=True)
class _Suspect:
    """Messages that were left out as late, if it was not the publisher's clock.

    :ivar delay_s: from when they were sent, by their publisher's clock, until they came.
    :ivar late_s: by how much the first one is older than what came before it.
    :ivar since: when the first one came, by the monotonic clock.
    :ivar said: the last of each instance.
    """

    delay_s: float
    late_s: float
    since: float
    said: dict[str, Said] = field(default_factory=dict)


class Publishers:
    """Watches the clocks of the publishers of this host's events.

    :param clock: tells the time, in seconds since the epoch.
    :param monotonic: seconds that only grow.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._suspects: dict[str, _Suspect] = {}
        self._told: set[tuple[str, str]] = set()

    def watch(self, event: InstanceEvent, place: Place, verdict: Verdict) -> list[Said] | None:
        """Look at when an event was sent, and tell what is wrong with its publisher's clock.

        :returns: the events that were left out as late and were not, if this one tells that
            its publisher's clock was set back; else None.
        """
        if event.ahead_s > SKEW_S:
            self._tell(
                event.publisher,
                "ahead",
                f"is {_far(-event.ahead_s)}: its events count from their arrival",
            )
        if verdict.behind_s > SKEW_S:
            self._tell(
                event.publisher,
                "behind",
                f"is behind that of {shown(verdict.behind)} by about {_long(verdict.behind_s)}, "
                "or its messages were delayed: events count in the order of arrival",
            )
        return self._set_back(event, place, verdict)

    def hear_of_others(self, event: InstanceEvent, place: Place) -> list[Said] | None:
        """Look at an event that is of no consequence otherwise; see :meth:`watch`.

        It tells nothing of its publisher but whether a clock was set back that may have been.
        """
        return self._set_back(event, place, Verdict())

    def _set_back(self, event: InstanceEvent, place: Place, verdict: Verdict) -> list[Said] | None:
        now, delay_s = self._monotonic(), self._clock() - event.dated_at
        suspect = self._suspects.get(event.publisher)
        alike = suspect is not None and abs(delay_s - suspect.delay_s) <= _ALIKE_S
        if suspect is not None and alike and now - suspect.since >= _APART_S:
            del self._suspects[event.publisher]
            self._tell(
                event.publisher,
                "set back",
                f"was set back and now is {_far(delay_s)}: earlier dates of its events no longer "
                "count",
            )
            suspect.said.pop(event.instance_uuid, None)
            return list(suspect.said.values())
        if verdict.late_s > _SET_BACK_S:
            if suspect is None or not alike:
                suspect = self._suspects[event.publisher] = _Suspect(delay_s, verdict.late_s, now)
                if len(self._suspects) > _PUBLISHERS_MAX:
                    del self._suspects[next(iter(self._suspects))]
            if verdict.late_s > _TOLD_S:
                self._tell(
                    event.publisher,
                    "late",
                    f"may have been set back: it dates a message {_long(verdict.late_s)} before "
                    "an earlier message. Unless more messages confirm this, the message is "
                    "ignored as late",
                )
            suspect.said[event.instance_uuid] = (event, place)
        elif suspect is not None and delay_s < suspect.delay_s - suspect.late_s / 2:
            del self._suspects[event.publisher]
        return None

    def _tell(self, publisher: str, kind: str, what: str) -> None:
        if (publisher, kind) in self._told or len(self._told) >= _PUBLISHERS_MAX:
            return
        self._told.add((publisher, kind))
        LOG.warning(
            "The clock of %s %s. Synchronize the clocks of all nodes (NTP)",
            shown(publisher),
            what,
        )


def _far(delay_s: float) -> str:
    """Write how a clock is to this host's."""
    where = "behind" if delay_s >= 0 else "ahead of"
    return f"{where} this host's by about {_long(abs(delay_s))}"


def _long(seconds: float) -> str:
    """Write a time as people say it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
