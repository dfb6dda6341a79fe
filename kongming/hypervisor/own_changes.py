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

"""Distinction of Kongming's changes of guests from those of others.

libvirt reports every change of a guest that is made through it, including Kongming's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
import threading

# Events that never arrived, because libvirt was unavailable, must not add up.
_MOST = 10_000


class OwnChanges:
    """Kongming's changes whose events have not arrived yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._expected: Counter[tuple[str, str, str]] = Counter()

    def expect(self, instance_uuid: str, changes: Mapping[str, object]) -> None:
        """Register a change before it is made: its event may arrive at once.

        :param changes: as libvirt will report it: name → value.
        """
        with self._lock:
            if len(self._expected) > _MOST:
                self._expected.clear()
            self._expected.update(_keys(instance_uuid, changes))

    def withdraw(self, instance_uuid: str, changes: Mapping[str, object]) -> None:
        """Remove a change that was refused: there will be no event."""
        self.recognise(instance_uuid, changes)

    def recognise(self, instance_uuid: str, changes: Mapping[str, object]) -> bool:
        """Return whether a reported change is Kongming's as a whole; each is recognised once."""
        keys = _keys(instance_uuid, changes)
        with self._lock:
            own = all(self._expected[key] for key in keys)
            for key in keys:
                if self._expected[key] <= 1:
                    del self._expected[key]
                else:
                    self._expected[key] -= 1
        return own


def _keys(instance_uuid: str, changes: Mapping[str, object]) -> list[tuple[str, str, str]]:
    return [(instance_uuid, name, str(value)) for name, value in changes.items()]
