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
"""Waiting until what was asked for has been done, and telling how far it is."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
import time
from typing import Any, TextIO

from osc_lib import exceptions

from kongming.escaping import escape
from kongming.osc.client import NoAnswer

_POLL_MIN_S = 0.2
_POLL_MAX_S = 3.0
_PATIENCE_S = 3.0
# A terminal has no room for more.
_TOLD_MAX = 40

# Those that the hosts are still working on.
_OPEN = frozenset({"pending", "releasing"})
_DONE = "applied"
_ABSENT = "absent"

Allocations = Sequence[Mapping[str, Any]]


def add_options(parser: argparse.ArgumentParser, seconds: float) -> None:
    """Add ``--wait`` and ``--timeout``."""
    parser.add_argument(
        "--wait",
        action="store_true",
        help="Wait until the hosts have done it; ends with 1 if anything was not done.",
    )
    parser.add_argument(
        "--timeout",
        metavar="<seconds>",
        type=float,
        default=seconds,
        help=f"With --wait: how long at most (default: {seconds:g}).",
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of waiting.

    :ivar allocations: as they were at the end.
    :ivar status: the exit status: 1 if anything was not done.
    """

    allocations: Allocations
    status: int


class Waiter:
    """Polls, and tells on the standard error how far it is.

    :param timeout: in seconds.
    :param patience: for so many seconds an absent guest may still turn up: it
        has just been started, and its host has not told of it yet.
    """

    def __init__(self, stderr: TextIO, timeout: float, *, patience: float = _PATIENCE_S) -> None:
        self._stderr = stderr
        self._patience = patience
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self._told = ""

    def settled(self, look: Callable[[], Allocations]) -> Outcome:
        """Wait until all have been placed, or it is known why not.

        :param look: gives the allocations as they are.
        :raises ClientException: if they are not known any more.
        """
        last: Allocations = ()
        since: float | None = None

        def over() -> bool:
            nonlocal last, since
            seen = self._look(look)
            if seen is None:
                return False
            last = seen
            self._progress(_standing(seen))
            found = {each["status"] for each in seen}
            if found & _OPEN or _ABSENT not in found:
                since = None
                return not found & _OPEN
            since = since or time.monotonic()
            return time.monotonic() - since >= self._patience

        done = self._until(over) or since is not None
        missing = [each for each in last if each["status"] != _DONE]
        self._tell_each(missing)
        if not done:
            self._tell(f"not done within {self._timeout:g} s; it is kept, and goes on")
        absent = all(each["status"] == _ABSENT for each in missing)
        return Outcome(last, 0 if done and absent else 1)

    def released(self, look: Callable[[], Allocations], total: int) -> Outcome:
        """Wait until all are back at their baseline.

        :param look: gives those that are not yet.
        :param total: how many there were.
        """
        last: Allocations = ()

        def over() -> bool:
            nonlocal last
            left = self._look(look)
            if left is None:
                return False
            last = left
            self._progress(f"{max(0, total - len(left))} of {total} released")
            return not left

        done = self._until(over)
        self._tell_each(last)
        if not done:
            self._tell(f"not done within {self._timeout:g} s; it goes on")
        return Outcome(last, 0 if done else 1)

    def _look(self, look: Callable[[], Allocations]) -> Allocations | None:
        """Look once; None if the API can't say now."""
        try:
            return look()
        except NoAnswer as error:
            self._progress(str(error))
        except exceptions.ClientException as error:
            if int(error.code) < 500:
                raise
            self._progress(str(error))
        return None

    def _until(self, over: Callable[[], bool]) -> bool:
        pause = _POLL_MIN_S
        while not over():
            left = self._deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, _POLL_MAX_S)
        return True

    def _tell_each(self, allocations: Allocations) -> None:
        for each in allocations[:_TOLD_MAX]:
            self._tell(describe(each))
        if len(allocations) > _TOLD_MAX:
            self._tell(f"and {len(allocations) - _TOLD_MAX} more: see 'kongming allocation list'")

    def _progress(self, text: str) -> None:
        if text != self._told:
            self._told = text
            self._tell(text)

    def _tell(self, text: str) -> None:
        self._stderr.write(f"{escape(text)}\n")
        self._stderr.flush()


def counts(allocations: Allocations) -> dict[str, int]:
    """Count the allocations of each status."""
    return dict(sorted(Counter(each["status"] for each in allocations).items()))


def describe(allocation: Mapping[str, Any]) -> str:
    """Say what became of an allocation, where, and why."""
    host = _host(allocation)
    where = f" on {host}" if host else ""
    text = f"{allocation['instance_uuid']}{where}: {allocation['status']}"
    if allocation.get("reason"):
        text += f" ({allocation['reason']}): {allocation['message']}"
    elif allocation["status"] == _ABSENT:
        text += ": there is no running guest; it is done when it starts"
    if allocation["status"] in _OPEN:
        text += _silence(allocation)
    return text


def _host(allocation: Mapping[str, Any]) -> str:
    """Give the host that answers for it; empty if none does."""
    return allocation.get("host") or allocation.get("reported_by") or ""


def _silence(allocation: Mapping[str, Any]) -> str:
    if allocation.get("host_state") == "silent":
        return f"; the executor of {_host(allocation)} is silent"
    if allocation.get("host_state") == "unknown":
        return "; no executor was heard of that has it"
    return ""


def _standing(allocations: Allocations) -> str:
    found = counts(allocations)
    text = f"{found.pop(_DONE, 0)} of {len(allocations)} applied"
    others = ", ".join(f"{number} {status}" for status, number in found.items())
    silent = {
        _host(each)
        for each in allocations
        if each["status"] in _OPEN and each.get("host_state") == "silent"
    }
    if silent:
        others += f"; silent: {', '.join(sorted(silent))}"
    return f"{text} ({others})" if others else text
