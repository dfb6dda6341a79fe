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

"""The meaning of an instance event for one host: the table of Nova's events.

An event is a hint where Nova has the instance; it never decides what to do.
"""

from __future__ import annotations

from kongming.executor.store.residence import Place
from kongming.notification.event import InstanceEvent

#: The instance is nowhere, for ever.
DELETED = "instance.delete.end"
# It is nowhere, until it is restored.
_SOFT_DELETED = "instance.soft_delete.end"
# The instance leaves the payload's host; other events show its new host.
_LEAVES = "instance.live_migration_post.end"
# Nova has cleared the payload's host.
_OFFLOADED = "instance.shelve_offload.end"
# Sent by the new host, with the old one in the payload, on evacuation.
_REBUILT = "instance.rebuild.end"
# Names the destination before there is a domain; resize_finish.end follows.
_TOO_EARLY = "instance.resize.end"
# The state of an instance whose first host is not chosen yet, or is chosen again.
_BUILDING = "building"


def meaning(event: InstanceEvent, host: str) -> Place | None:
    """Return where an event shows the instance, seen from a host; None if it shows nothing."""
    if event.name in (DELETED, _SOFT_DELETED):
        return Place.NOWHERE
    if event.name.endswith(".start") or event.name == _TOO_EARLY:
        return None
    if event.name == _LEAVES:
        return Place.ELSEWHERE if event.host == host else None
    if event.name == _REBUILT and host in (event.host, event.publisher_host):
        return Place.HERE if event.publisher_host == host else Place.ELSEWHERE
    if event.name == _OFFLOADED:
        return Place.NOWHERE
    if event.host is None:
        # A build that failed is in the state 'error'.
        return None if event.state == _BUILDING else Place.NOWHERE
    return Place.HERE if event.host == host else Place.ELSEWHERE


def named_host(event: InstanceEvent) -> str:
    """Return the host on which an event shows the instance; empty if it names none."""
    if event.name == _LEAVES:
        return ""
    return event.publisher_host if event.name == _REBUILT else event.host or ""
