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

"""The clocks of publishers: a clock that is wrong is reported once, and does no harm."""

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

# Threads of one publisher do not explain a message that is older by more.
_SET_BACK_S = 5.0
# A message that is older by more is reported: it may be lost, if it is not late.
_REPORT_S = 60.0
# Messages that waited arrive in a burst, each with a delay of its own. Those of a clock that was
# set back arrive as they are sent, with one delay: that of the clock.
_APART_S = 1.0
_ALIKE_S = 1.0
_PUBLISHERS_MAX = 1000

PlacedEvent = tuple[InstanceEvent, Place]


@dataclass(slots=True)
class _Suspect:
    """Messages that were ignored as late; perhaps their publisher's clock was set back.

    :ivar delay_s: from their time by their publisher's clock until they arrived.
    :ivar late_s: the seconds by which the first one is older than an earlier message.
    :ivar since: when the first one arrived, by the monotonic clock.
    :ivar ignored: the last message of each instance.
    """

    delay_s: float
    late_s: float
    since: float
    ignored: dict[str, PlacedEvent] = field(default_factory=dict)


class PublisherClocks:
    """Checks the clocks of the publishers of this host's events.

    :param clock: returns the time in seconds since the epoch.
    :param monotonic: returns monotonic seconds.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._suspects: dict[str, _Suspect] = {}
        self._reported: set[tuple[str, str]] = set()

    def check(
        self, event: InstanceEvent, place: Place, verdict: Verdict
    ) -> list[PlacedEvent] | None:
        """Check the time of an event, and report a publisher's clock that is wrong.

        :returns: the events that were ignored as late and were not, if this one shows that
            its publisher's clock was set back; else None.
        """
        if event.ahead_s > SKEW_S:
            self._report(
                event.publisher,
                "ahead",
                f"is {_offset(-event.ahead_s)}: its events count from their arrival",
            )
        if verdict.behind_s > SKEW_S:
            self._report(
                event.publisher,
                "behind",
                f"is behind that of {shown(verdict.behind)} by about "
                f"{_duration(verdict.behind_s)}, or its messages were delayed: events count in "
                "the order of arrival",
            )
        return self._set_back(event, place, verdict)

    def check_foreign(self, event: InstanceEvent, place: Place) -> list[PlacedEvent] | None:
        """Check the time of an event of another host; see :meth:`check`.

        It can only confirm that a suspected clock was set back.
        """
        return self._set_back(event, place, Verdict())

    def _set_back(
        self, event: InstanceEvent, place: Place, verdict: Verdict
    ) -> list[PlacedEvent] | None:
        now, delay_s = self._monotonic(), self._clock() - event.dated_at
        suspect = self._suspects.get(event.publisher)
        alike = suspect is not None and abs(delay_s - suspect.delay_s) <= _ALIKE_S
        if suspect is not None and alike and now - suspect.since >= _APART_S:
            del self._suspects[event.publisher]
            self._report(
                event.publisher,
                "set back",
                f"was set back and now is {_offset(delay_s)}: earlier dates of its events no "
                "longer count",
            )
            suspect.ignored.pop(event.instance_uuid, None)
            return list(suspect.ignored.values())
        if verdict.late_s > _SET_BACK_S:
            if suspect is None or not alike:
                suspect = self._suspects[event.publisher] = _Suspect(delay_s, verdict.late_s, now)
                if len(self._suspects) > _PUBLISHERS_MAX:
                    del self._suspects[next(iter(self._suspects))]
            if verdict.late_s > _REPORT_S:
                self._report(
                    event.publisher,
                    "late",
                    f"may have been set back: it dates a message {_duration(verdict.late_s)} "
                    "before an earlier message. Unless more messages confirm this, the message "
                    "is ignored as late",
                )
            suspect.ignored[event.instance_uuid] = (event, place)
        elif suspect is not None and delay_s < suspect.delay_s - suspect.late_s / 2:
            del self._suspects[event.publisher]
        return None

    def _report(self, publisher: str, kind: str, problem: str) -> None:
        if (publisher, kind) in self._reported or len(self._reported) >= _PUBLISHERS_MAX:
            return
        self._reported.add((publisher, kind))
        LOG.warning(
            "The clock of %s %s. Synchronize the clocks of all nodes (NTP)",
            shown(publisher),
            problem,
        )


def _offset(delay_s: float) -> str:
    """Return the difference between a clock and this host's, in words."""
    where = "behind" if delay_s >= 0 else "ahead of"
    return f"{where} this host's by about {_duration(abs(delay_s))}"


def _duration(seconds: float) -> str:
    """Return a duration in the largest unit that fits."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
