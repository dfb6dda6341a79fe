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

"""Telling our own changes of guests from those of others.

libvirt reports every change of a guest that is made through it, by anyone,
our own included.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
import threading

# Reports that never came (libvirt went away meanwhile) must not add up.
_MOST = 10_000


class OwnChanges:
    """The changes that we made and that libvirt has yet to report."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._expected: Counter[tuple[str, str, str]] = Counter()

    def expect(self, instance_uuid: str, changes: Mapping[str, object]) -> None:
        """Note a change before it is made: its report may come at once.

        :param changes: as libvirt will report it: name → value.
        """
        with self._lock:
            if len(self._expected) > _MOST:
                self._expected.clear()
            self._expected.update(_keys(instance_uuid, changes))

    def withdraw(self, instance_uuid: str, changes: Mapping[str, object]) -> None:
        """Note that a change was refused: no report will come."""
        self.recognise(instance_uuid, changes)

    def recognise(self, instance_uuid: str, changes: Mapping[str, object]) -> bool:
        """Tell whether a reported change is all our own; it counts once."""
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
