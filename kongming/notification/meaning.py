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

"""What an instance event means to one host: the table of Nova's events.

An event is a hint: it says what is wanted now, never what is to be done.
"""

from __future__ import annotations

import enum

from kongming.notification.event import InstanceEvent


class Meaning(enum.Enum):
    """What one host makes of an event."""

    WANTED = "its metadata says what is wanted on this host"
    GONE = "the instance has left this host"
    NOTHING = "another host's, or of no consequence"


# The instance is nowhere any more.
_DELETED = frozenset({"instance.delete.end", "instance.soft_delete.end"})
# The instance's stay on the payload's host ends; where it is now others say.
_LEAVES = "instance.live_migration_post.end"
# Nova has cleared the payload's host: only the publisher tells.
_LEAVES_ITS_PUBLISHER = "instance.shelve_offload.end"
# Sent by the new host, with the old one in the payload, on evacuation.
_REBUILT = "instance.rebuild.end"
# Names the destination before there is a domain; resize_finish.end follows.
_TOO_EARLY = "instance.resize.end"


def meaning(event: InstanceEvent, host: str) -> Meaning:
    """Say what ``event`` means to ``host``.

    GONE is also the answer to every event of an instance that is elsewhere:
    whoever holds nothing of it has nothing to let go.
    """
    if event.name == _LEAVES_ITS_PUBLISHER:
        return _if(event.publisher_host == host or event.host == host, Meaning.GONE)
    if event.name.endswith(".start") or event.name == _TOO_EARLY or event.host is None:
        return Meaning.NOTHING
    if event.name == _REBUILT and event.publisher_host == host:
        return Meaning.WANTED
    if event.name in _DELETED:
        return Meaning.GONE
    if event.name == _LEAVES:
        return _if(event.host == host, Meaning.GONE)
    if event.name == _REBUILT and event.host == host:
        return Meaning.GONE
    return Meaning.WANTED if event.host == host else Meaning.GONE


def _if(condition: bool, what: Meaning) -> Meaning:
    return what if condition else Meaning.NOTHING
