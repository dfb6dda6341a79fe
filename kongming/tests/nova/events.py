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

"""Nova's notifications, received beside Kongming: by them a test knows how far Nova is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from oslo_config import cfg
import oslo_messaging

from kongming.tests.testbed.nova import TOPIC
from kongming.tests.testbed.process import wait_until

EXCHANGE = "nova"
# The name of its own queue.
POOL = "kongming-nova-suite"


@dataclass(frozen=True)
class Event:
    """What matters of one notification about an instance."""

    name: str
    instance_uuid: str
    metadata: dict[str, str]
    fault: str


class Failed(Exception):
    """Nova reported that it could not carry out a request."""


class Events:
    """All that came since it was entered; a context manager."""

    def __init__(self, transport_url: str) -> None:
        conf = cfg.ConfigOpts()
        conf([], default_config_files=[], default_config_dirs=[])
        self._received: list[Event] = []
        self._listener = oslo_messaging.get_notification_listener(
            oslo_messaging.get_notification_transport(conf, transport_url),
            [oslo_messaging.Target(exchange=EXCHANGE, topic=TOPIC)],
            [_Endpoint(self._received)],
            executor="threading",
            pool=POOL,
        )

    def __enter__(self) -> Self:
        self._listener.start(override_pool_size=1)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.stop()
        self._listener.wait()

    def now(self) -> int:
        """The moment after which an event is to come, for `wait` and `since`."""
        return len(self._received)

    def since(self, moment: int) -> list[Event]:
        """Return what was received after a moment."""
        return self._received[moment:]

    def wait(
        self,
        instance_uuid: str,
        name: str,
        *,
        after: int,
        timeout: float,
        matching: Callable[[Event], bool] = lambda event: True,
    ) -> None:
        """Wait for an instance's event.

        :raises Failed: an error of the instance came instead
        """

        def arrived() -> bool:
            for event in self._received[after:]:
                if event.instance_uuid != instance_uuid:
                    continue
                if event.name.endswith(".error"):
                    raise Failed(f"{event.name}: {event.fault}")
                if event.name == name and matching(event):
                    return True
            return False

        wait_until(arrived, timeout, f"{name} of instance {instance_uuid}")


class _Endpoint:
    """Takes the notifications of every priority that Nova uses."""

    def __init__(self, received: list[Event]) -> None:
        self._received = received

    def info(
        self, context: Any, publisher_id: str, event_type: str, payload: Any, metadata: Any
    ) -> None:
        data = payload["nova_object.data"]
        # The second ones are those of a task that failed before any host had the instance.
        instance_uuid = data.get("uuid") or data.get("instance_uuid")
        fault = data.get("fault") or data.get("reason") or {}
        message = fault.get("nova_object.data", {}).get("exception_message", "")
        if instance_uuid:
            instance_metadata = data.get("metadata", {})
            self._received.append(Event(event_type, instance_uuid, instance_metadata, message))

    error = info
