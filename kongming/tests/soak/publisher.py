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

"""Publishes very many notifications, and loses none of them, whatever becomes of the broker."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
import json
from urllib.parse import urlsplit

import amqp

from kongming.tests import captures
from kongming.tests.soak.world import Event

#: So many are sent before the broker's word that it has them is waited for.
BATCH = 200
TIMEOUT_S = 30
_ERRORS = (OSError, amqp.exceptions.AMQPError)
_TOPIC = "versioned_notifications.info"


class Publisher:
    """Publishes events in their order.

    Those that a broker did not confirm are published again, all of them, once it is back.

    :param url: of the broker, in oslo.messaging's form.
    :ivar published: how many it has confirmed.
    :ivar again: how many were sent once more.
    """

    def __init__(self, url: str, exchange: str) -> None:
        self._address = urlsplit(url)
        self._exchange = exchange
        self._template = captures.message("01-create", "instance.create.end")
        self._batch: list[str] = []
        self._connection: amqp.Connection | None = None
        self._outstanding: set[int] = set()
        self.published = self.again = 0

    def publish(self, event: Event) -> None:
        """Publish an event, at once or with those that follow."""
        self._batch.append(self._body(event))
        if len(self._batch) % BATCH == 0:
            self.flush()

    def flush(self) -> bool:
        """Send what was not sent yet; return whether the broker has all of it."""
        if not self._batch:
            return True
        try:
            self._send()
        except _ERRORS:
            self.again += len(self._batch)
            self.close()
            return False
        self.published += len(self._batch)
        self._batch.clear()
        return True

    def is_taken(self, queue: str, but: int = 0) -> bool:
        """Return whether the broker has sent all to the service, but so many."""
        try:
            channel = self._open().channel(1)
            waiting = channel.queue_declare(queue, passive=True).message_count
        except _ERRORS:
            self.close()
            return False
        return int(waiting) <= but

    def close(self) -> None:
        """Close the connection; the next use opens another one."""
        if self._connection is not None:
            with contextlib.suppress(*_ERRORS):
                self._connection.close()
            self._connection = None

    def _send(self) -> None:
        connection = self._open()
        channel = connection.channel(1)
        self._outstanding.update(range(self._sent + 1, self._sent + 1 + len(self._batch)))
        self._sent += len(self._batch)
        for body in self._batch:
            message = amqp.Message(body, content_type="application/json", delivery_mode=2)
            channel.basic_publish(message, self._exchange, _TOPIC)
        while self._outstanding:
            connection.drain_events(TIMEOUT_S)

    def _open(self) -> amqp.Connection:
        if self._connection is None:
            connection = amqp.Connection(
                f"{self._address.hostname}:{self._address.port}",
                self._address.username,
                self._address.password,
            )
            connection.connect()
            channel = connection.channel(1)
            channel.confirm_select()
            channel.events["basic_ack"].add(self._confirmed)
            self._sent = 0
            self._outstanding.clear()
            self._connection = connection
        return self._connection

    def _confirmed(self, tag: int, multiple: bool) -> None:
        if multiple:
            self._outstanding = {each for each in self._outstanding if each > tag}
        else:
            self._outstanding.discard(tag)

    def _body(self, event: Event) -> str:
        payload = self._template["payload"]
        data = payload["nova_object.data"]
        values = {"uuid": event.instance_uuid, "host": event.host, "metadata": event.metadata}
        message = {
            **self._template,
            "_unique_id": event.message_id.replace("-", ""),
            "message_id": event.message_id,
            "event_type": event.name,
            "publisher_id": f"nova-compute:{event.publisher}",
            "timestamp": datetime.fromtimestamp(event.sent_at, UTC).strftime("%F %T.%f"),
            "payload": {**payload, "nova_object.data": {**data, **values}},
        }
        return json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(message)})
