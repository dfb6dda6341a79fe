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

"""The order of events: an older one must not undo what a newer one said.

A broker delivers again what was not acknowledged, perhaps behind newer ones.
"""

from __future__ import annotations

from collections import OrderedDict
import time

# Instances of one host are few; one that was not heard of for so long has
# nothing left on its way.
_MOST = 4096


class Order:
    """Remembers when the newest event of each instance was sent.

    Those of instances that nothing is known of are remembered, too, but
    apart, as there are so many of them: an event of ours that is behind one
    that says "elsewhere" must not bring the instance back.
    """

    def __init__(self) -> None:
        self._newest: OrderedDict[str, float] = OrderedDict()
        self._elsewhere: OrderedDict[str, float] = OrderedDict()
        self._heard: OrderedDict[str, float] = OrderedDict()

    def knows(self, instance_uuid: str) -> bool:
        """Tell whether an event of an instance was noted."""
        return instance_uuid in self._newest

    def is_late(self, instance_uuid: str, sent_at: float) -> bool:
        """Tell whether a newer event was noted before."""
        newest = self._newest.get(instance_uuid, sent_at)
        return sent_at < max(newest, self._elsewhere.get(instance_uuid, sent_at))

    def heard_since(self, instance_uuid: str, began: float) -> bool:
        """Tell whether an event was noted since then, by our monotonic clock."""
        return self._heard.get(instance_uuid, began) > began

    def note(self, instance_uuid: str, sent_at: float) -> None:
        """Note that an event was handled."""
        _note(self._newest, instance_uuid, sent_at)
        _note(self._heard, instance_uuid, time.monotonic())

    def note_elsewhere(self, instance_uuid: str, sent_at: float) -> None:
        """Note that an instance that nothing is known of is elsewhere."""
        _note(self._elsewhere, instance_uuid, sent_at)


def _note(newest: OrderedDict[str, float], instance_uuid: str, sent_at: float) -> None:
    newest[instance_uuid] = max(sent_at, newest.get(instance_uuid, sent_at))
    newest.move_to_end(instance_uuid)
    if len(newest) > _MOST:
        newest.popitem(last=False)
