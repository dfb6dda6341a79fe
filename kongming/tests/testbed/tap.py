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

"""What the broker carries between Kongming's services: each message, by its copy."""

from __future__ import annotations

from collections import Counter
import json
from typing import Any

import kombu

from kongming.rpc.bus import EXCHANGE
from kongming.tests.testbed.broker import kombu_url
from kongming.tests.testbed.process import Service, wait_until

REPLY = "reply"


class Tap(Service):
    """A queue that gets a copy of all that is sent to conductors and executors.

    A response goes straight to its caller: each call has exactly one, so
    a call counts for two messages.
    """

    def __init__(self, transport_url: str) -> None:
        self._connection = kombu.Connection(kombu_url(transport_url))
        self._counts: Counter[str] = Counter()

    def start(self) -> None:
        """Count from now on."""
        topic = kombu.Exchange(EXCHANGE, type="topic")
        name = f"tap-{id(self)}"
        tapped = kombu.Queue(name, topic, "#", durable=False, exclusive=True)
        consumer = self._connection.Consumer(
            [tapped], callbacks=[self._take], no_ack=True, accept=["json"]
        )
        consumer.consume()

    def counts(self) -> Counter[str]:
        """Give the number of messages so far by method, and that of replies."""
        try:
            while True:
                self._connection.drain_events(timeout=0.05)
        except TimeoutError:
            return Counter(self._counts)

    def wait_counts(self, method: str, number: int, timeout: float = 60) -> Counter[str]:
        """Wait until so many of a method were sent; give all that were."""
        wait_until(lambda: self.counts()[method] >= number, timeout, f"{number} messages {method}")
        return self.counts()

    def _take(self, body: Any, _message: Any) -> None:
        call = json.loads(body["oslo.message"])
        self._counts[call["method"]] += 1
        if call.get("_reply_q"):
            self._counts[REPLY] += 1

    def _end(self) -> None:
        self._connection.release()
