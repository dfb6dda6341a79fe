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

"""What oslo.messaging's RabbitMQ driver says only through its log.

A message that it can't decode, and a broker that is away, never reach the
code above it; here both are told in our words: once, without traceback.
"""

from __future__ import annotations

from collections.abc import Callable
import logging

_DRIVER = "oslo_messaging._drivers.impl_rabbit"
_LISTENER = "oslo_messaging._drivers.amqpdriver"

_UNDECODABLE = "Failed to process message"
_DUPLICATE = "ignoring duplicate message"
_AWAY = ("is unreachable", "closed the connection", "Connection failed")
_BACK = "Reconnected to AMQP server"


class DriverLog(logging.Filter):
    """Listens to the driver's log and rewrites what concerns the operator.

    :param on_undecodable: called with the kind of the error, for each
        message that the driver could not decode (and has dropped).
    """

    def __init__(self, on_undecodable: Callable[[str], None]) -> None:
        super().__init__()
        self._on_undecodable = on_undecodable
        self._away = False

    def install(self) -> None:
        """Begin to listen; records of before are not seen."""
        for name in (_DRIVER, _LISTENER):
            logging.getLogger(name).addFilter(self)

    def remove(self) -> None:
        """Leave the log as it was."""
        for name in (_DRIVER, _LISTENER):
            logging.getLogger(name).removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether the record is to be logged, perhaps rewritten."""
        template = str(record.msg)
        if template.startswith(_UNDECODABLE):
            kind = record.exc_info[0] if record.exc_info else None
            self._on_undecodable(f"undecodable ({kind.__name__ if kind else 'unknown error'})")
            return False
        if template.startswith(_DUPLICATE):
            # It was handled before the connection broke: nothing is lost.
            return False
        if any(words in template for words in _AWAY):
            return self._tell_away(record)
        if _BACK in template and self._away:
            self._away = False
            record.msg, record.args = "RabbitMQ is back, listening again", ()
        return True

    def connected(self) -> None:
        """Note that the first connection has come about."""
        if self._away:
            self._away = False
            logging.getLogger(__name__).info("RabbitMQ is there now")

    def _tell_away(self, record: logging.LogRecord) -> bool:
        if self._away:
            return False
        self._away = True
        record.msg = f"RabbitMQ is away ({record.getMessage()}): waiting for it"
        record.args = ()
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        return True
