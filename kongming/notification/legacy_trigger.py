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

"""The legacy trigger: an event says that something may be wanted, Nova's API what."""

from __future__ import annotations

from kongming.executor.store.residence import Place
from kongming.notification.event import InstanceEvent
from kongming.notification.nova_poller import Inquirer
from kongming.notification.requests import Wanted


class Asking:
    """Has Nova asked about the instances of this host that there are events of."""

    def __init__(self, wanted: Wanted, inquirer: Inquirer) -> None:
        self._wanted = wanted
        self._inquirer = inquirer

    def knows(self, instance_uuid: str) -> bool:
        return self._wanted.knows(instance_uuid) or self._inquirer.asks(instance_uuid)

    def is_elsewhere(self, event: InstanceEvent, place: Place) -> None:
        """Nova says where it is, once it is asked."""

    def hear(self, event: InstanceEvent, place: Place) -> bool:
        self._inquirer.ask(event.instance_uuid, here=place is Place.HERE)
        return True
