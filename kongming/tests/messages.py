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

"""Notifications as oslo.messaging hands them over, of any moment and any publisher."""

import copy
from datetime import UTC, datetime
import itertools
from typing import Any

from kongming.tests import captures

HOST = "compute-1"
KEY = "kongming-vcpu-pinning"
_CREATED = captures.message("01-create", "instance.create.end")
_number = itertools.count()


def message(
    instance_uuid: str,
    sent_at: float,
    *,
    name: str = "instance.update",
    host: str | None = HOST,
    publisher: str | None = None,
    message_id: str | None = None,
    state: str = "active",
    **metadata: str,
) -> dict[str, Any]:
    """Give a notification.

    :param sent_at: in seconds since the epoch, by the publisher's clock.
    :param publisher: nova-compute of the host unless it is given.
    :param message_id: one of its own unless it is given; empty for none.
    :param metadata: ``vcpu_pinning="1"`` and the like.
    """
    payload = copy.deepcopy(_CREATED["payload"])
    values = {f"kongming-{key.replace('_', '-')}": value for key, value in metadata.items()}
    data = {"uuid": instance_uuid, "host": host, "metadata": values, "state": state}
    payload["nova_object.data"] |= data
    made: dict[str, Any] = {
        "event_type": name,
        "publisher_id": publisher or f"nova-compute:{host}",
        "timestamp": datetime.fromtimestamp(sent_at, UTC).strftime("%Y-%m-%d %H:%M:%S.%f"),
        "payload": payload,
        "priority": "INFO",
    }
    if message_id != "":
        made["message_id"] = message_id or f"message-{next(_number)}"
    return made
