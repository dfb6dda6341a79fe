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

"""The calls to libvirt in progress: what they do, for which instance, and since when.

libvirt's calls can't be interrupted, and some do not return: QEMU or libvirtd may hang. So other
threads watch them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
import threading
import time

#: Calls that take longer than this do not return by themselves; seconds.
PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Call:
    """One call.

    :ivar thread_id: the Python thread that made it.
    :ivar instance_uuid: the instance it concerns; empty if it concerns the host.
    :ivar doing: what it does, for a sentence: «setting vCPU 0 to 1».
    :ivar began: when it began, by the monotonic clock.
    :ivar began_at: likewise, in seconds since the epoch.
    :ivar patience_s: how long it may take before something is wrong.
    """

    thread_id: int
    instance_uuid: str
    doing: str
    began: float
    began_at: float
    patience_s: float

    def age(self) -> float:
        """Return how long it has been in progress, in seconds."""
        return time.monotonic() - self.began


class Calls:
    """The calls in progress, one per thread. Any thread may call any method."""

    def __init__(self) -> None:
        # Single operations on a dict are atomic, so no lock is needed.
        self._under_way: dict[int, Call] = {}

    @contextmanager
    def make(
        self, doing: str, instance_uuid: str = "", patience_s: float = PATIENCE_S
    ) -> Iterator[None]:
        """Register a call while the block runs."""
        thread_id = threading.get_ident()
        outer = self._under_way.get(thread_id)
        self._under_way[thread_id] = Call(
            thread_id, instance_uuid, doing, time.monotonic(), time.time(), patience_s
        )
        try:
            yield
        finally:
            if outer is None:
                self._under_way.pop(thread_id, None)
            else:
                self._under_way[thread_id] = outer

    def older_than(self, seconds: float) -> list[Call]:
        """Return the calls that have been in progress for longer than this."""
        return [call for call in list(self._under_way.values()) if call.age() > seconds]
