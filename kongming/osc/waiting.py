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
"""Waiting until hosts have carried a request out: how often, how long, what ends it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
import contextlib
from dataclasses import dataclass
from http import HTTPStatus
import time
from typing import TextIO

from kongming.osc.progress import Progress, describe
from kongming.osc.responses import Fault
from kongming.runtime.escaping import escape
from kongming.terminal import options

_POLL_MIN_S = 0.2
_POLL_MAX_S = 3.0
_PATIENCE_S = 3.0
# For the first look, however little was left for it.
_LOOK_MIN_S = 1.0
# A terminal has no room for more.
_TOLD_MAX = 40


def add_options(parser: argparse.ArgumentParser, default: float) -> None:
    """Add ``--wait`` and ``--timeout``."""
    parser.add_argument(
        "--wait",
        action="store_true",
        help="Wait until the hosts have carried it out; exit with 1 if anything was not.",
    )
    parser.add_argument(
        "--timeout",
        metavar="<seconds>",
        type=options.seconds,
        default=default,
        help=f"With --wait: the maximum time in seconds (default: {default:g}).",
    )


class Speaker:
    """Writes lines for people to the standard error, which may be closed."""

    def __init__(self, stderr: TextIO | None) -> None:
        self._stderr = stderr

    def say(self, text: str) -> None:
        """Write a line."""
        if self._stderr is not None:
            # What is waited for goes on, whoever reads of it.
            with contextlib.suppress(OSError, ValueError):
                self._stderr.write(f"{escape(text)}\n")
                self._stderr.flush()


@dataclass(frozen=True, slots=True)
class End:
    """What waiting ended with.

    :ivar progress: as it was last seen; None if it never was.
    :ivar done: whether all was done, or will be when the guests start.
    :ivar why: what ended it before anybody knew what came of the request; empty otherwise.
    """

    progress: Progress | None
    done: bool
    why: str = ""


class Waiter:
    """Polls, and says how far it is.

    :param timeout: in seconds, from now on.
    :param patience: for so many seconds an absent guest may still turn up: it
        has just been started, and its host has not told of it yet.
    """

    def __init__(
        self,
        speaker: Speaker,
        timeout: float,
        *,
        patience: float = _PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._speaker = speaker
        self._timeout = timeout
        self._patience = patience
        self._clock = clock
        self._sleep = sleep
        self._deadline = clock() + timeout
        self._looks_until = self._deadline
        self._absent_since: float | None = None
        self._told = ""
        self.last: Progress | None = None

    def left(self) -> float:
        """Return how many seconds there still are."""
        return self._deadline - self._clock()

    def left_for_looks(self) -> float:
        """Return how many seconds a request may take that looks how far it is."""
        return self._looks_until - self._clock()

    def wait(self, look: Callable[[], Progress]) -> End:
        """Look until nothing is open any more, or it is of no use to go on."""
        self._looks_until = max(self._deadline, self._clock() + _LOOK_MIN_S)
        pause, denied = _POLL_MIN_S, 0
        while True:
            again_in = pause
            try:
                seen = look()
            except Fault as fault:
                # keystoneauth gets a new token once by itself, where it can.
                denied = denied + 1 if fault.status == HTTPStatus.UNAUTHORIZED else 0
                if not fault.passing or denied > 1:
                    return End(self.last, done=False, why=str(fault))
                self._tell(str(fault))
                again_in = max(pause, fault.retry_after)
            else:
                self.last, denied = seen, 0
                self._tell(seen.text)
                if self._is_over(seen):
                    return End(seen, done=not seen.replaced and not seen.undone)
            left = self.left()
            if left <= 0:
                return self._timed_out()
            self._sleep(min(again_in, left))
            pause = min(pause * 1.5, _POLL_MAX_S)

    def _is_over(self, seen: Progress) -> bool:
        """Tell whether it is known what came of it; absent guests are given some time."""
        if seen.open or not seen.absent:
            self._absent_since = None
            return not seen.open or bool(seen.replaced)
        if self._absent_since is None:
            self._absent_since = self._clock()
        patient = self._clock() - self._absent_since < self._patience
        return bool(seen.replaced) or not patient

    def _timed_out(self) -> End:
        if self.last is not None and self._absent_since is not None:
            return End(self.last, done=not self.last.undone)
        return End(self.last, done=False, why=f"not carried out within {self._timeout:g} s")

    def _tell(self, text: str) -> None:
        if text != self._told:
            self._told = text
            self._speaker.say(text)


def tell_each(speaker: Speaker, progress: Progress) -> None:
    """Say of each instance that was not done what it is with it."""
    missing = [*progress.undone, *progress.waiting]
    for each in missing[:_TOLD_MAX]:
        speaker.say(describe(each))
    if len(missing) > _TOLD_MAX:
        speaker.say(f"and {len(missing) - _TOLD_MAX} more: see 'kongming allocation list'")
