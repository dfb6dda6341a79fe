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

"""What a call costs, in what can be counted: lines that it executes, and bytes at its peak."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
import gc
import signal
import sys
import tracemalloc
from types import FrameType
from typing import Any

import kongming

_OURS = kongming.__path__[0]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a call cost.

    :ivar lines: of Kongming's own code that this thread executed.
    :ivar peak: the most bytes that all threads held at once, beyond those held before.
    """

    lines: int
    peak: int

    def __add__(self, other: Cost) -> Cost:
        """Add the cost of what came next."""
        return Cost(self.lines + other.lines, max(self.peak, other.peak))

    def within(self, lines: float, peak: float) -> bool:
        """Tell whether it is no more than that."""
        return self.lines <= lines and self.peak <= peak


def cost(call: Callable[[], object]) -> Cost:
    """Count what a call costs."""
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    try:
        executed = lines(call)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return Cost(executed, peak - before)


def lines(call: Callable[[], object]) -> int:
    """Count the lines of Kongming's own code that a call executes in this thread."""
    executed = 0

    def count(_frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal executed
        executed += event == "line"
        return count

    def trace(frame: FrameType, _event: str, _argument: Any) -> Any:
        return count if frame.f_code.co_filename.startswith(_OURS) else None

    former = sys.gettrace()
    # What was garbage before is not to be freed meanwhile.
    gc.disable()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(former)
        gc.enable()
    return executed


@contextmanager
def soon(cpu_s: float = 20.0) -> Iterator[None]:
    """Raise AssertionError in what goes on for so long; it should take a fraction of that."""

    def expired(_number: int, _frame: FrameType | None) -> None:
        raise AssertionError(f"not done after {cpu_s} s of CPU time")

    former = signal.signal(signal.SIGVTALRM, expired)
    signal.setitimer(signal.ITIMER_VIRTUAL, cpu_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, former)
