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

"""Messages from RabbitMQ, decoded at a cost that is limited by their length.

kombu decompresses and decodes as the sender chooses: a megabyte may become a gigabyte, or take an
hour in one of Python's quadratic codecs. A message that crashes its reader is delivered again, to
the next one.
"""

from __future__ import annotations

import bz2
from collections.abc import Callable
import json
from typing import Any
import zlib

from kombu.transport import pyamqp

#: In bytes; a decoded message takes up to thirty times as many.
LENGTH_MAX = 8 * 2**20

# The methods of oslo.messaging's option, by kombu's names.
_DECOMPRESSORS: dict[str, Callable[[], Any]] = {
    "application/x-gzip": zlib.decompressobj,
    "application/x-bz2": bz2.BZ2Decompressor,
}


class Unreadable(ValueError):
    """The message is rejected."""


class Incoming(pyamqp.Message):  # type: ignore[misc]
    """A message of oslo.messaging: JSON, compressed or not."""

    def __init__(self, msg: Any, channel: Any = None, **options: Any) -> None:
        headers = msg.properties.get("application_headers") or {}
        self._compression = headers.pop("compression", None)
        super().__init__(msg, channel=channel, **options)

    def _decode(self) -> Any:
        if self.content_type != "application/json":
            raise Unreadable("it is not JSON")
        body = _bounded(self.body)
        if self._compression is not None:
            body = _bounded(self._decompressed(body))
        return json.loads(body)

    def _decompressed(self, body: bytes) -> bytes:
        decompressor = _DECOMPRESSORS.get(str(self._compression))
        if decompressor is None:
            raise Unreadable("its compression is unknown to oslo.messaging")
        taken: bytes = decompressor().decompress(body, LENGTH_MAX + 1)
        return taken


def read_bounded() -> None:
    """Limit the decoding of all messages in this process."""
    pyamqp.Channel.Message = Incoming


def _bounded(body: bytes) -> bytes:
    if len(body) > LENGTH_MAX:
        raise Unreadable(f"it is longer than {LENGTH_MAX} bytes")
    return body
