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

"""The legacy trigger: an event is the reason to look the instance up in Nova."""

from __future__ import annotations

from kongming.executor.store.residence import Place
from kongming.notification.event import InstanceEvent
from kongming.notification.metadata_trigger import MetadataTrigger
from kongming.notification.nova_poller import NovaPoller


class LegacyTrigger:
    """Looks up the instances of this host that have events."""

    def __init__(self, metadata: MetadataTrigger, poller: NovaPoller) -> None:
        self._metadata = metadata
        self._poller = poller

    def has_record(self, instance_uuid: str) -> bool:
        return self._metadata.has_record(instance_uuid) or self._poller.is_pending(instance_uuid)

    def note_elsewhere(self, event: InstanceEvent, place: Place) -> None:
        """Do nothing: a lookup shows where an instance is."""

    def handle(self, event: InstanceEvent, place: Place) -> bool:
        self._poller.request(event.instance_uuid, here=place is Place.HERE)
        return True
