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
import threading

# The names of the loggers: one is oslo.log's, the other Python's own.
DRIVER = "oslo.messaging._drivers.impl_rabbit"
LISTENER = "oslo_messaging._drivers.amqpdriver"

_UNDECODABLE = "Failed to process message"
_AWAY = ("is unreachable", "closed the connection", "Connection failed")
_BACK = "Reconnected to AMQP server"
# The first were handled before the connection broke: nothing is lost. Of the
# others the caller learns by an exception.
_NO_NEWS = (
    "ignoring duplicate message",
    "Failed to declare consumer",
    "Unable to connect to AMQP server",
)

LOG = logging.getLogger(__name__)


class DriverLog(logging.Filter):
    """Listens to the driver's log and tells what concerns the operator.

    :param on_undecodable: called with the kind of the error, for each
        message that the driver could not decode (and has dropped).
    """

    def __init__(self, on_undecodable: Callable[[str], None]) -> None:
        super().__init__()
        self._on_undecodable = on_undecodable
        self._away = False
        self._level = self._shown = logging.NOTSET

    @property
    def away(self) -> bool:
        """Tell whether the broker is away, by what the driver said last."""
        return self._away

    def install(self) -> None:
        """Begin to listen; records of before are not seen."""
        driver = logging.getLogger(DRIVER)
        # That the broker is back is said at INFO: it is to be heard here even
        # if the operator wants to read less of this logger.
        self._level, self._shown = driver.level, driver.getEffectiveLevel()
        driver.setLevel(min(self._shown, logging.INFO))
        for name in (DRIVER, LISTENER):
            logging.getLogger(name).addFilter(self)

    def remove(self) -> None:
        """Leave the log as it was."""
        logging.getLogger(DRIVER).setLevel(self._level)
        for name in (DRIVER, LISTENER):
            logging.getLogger(name).removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether the record is to be logged as it is."""
        template = str(record.msg)
        if template.startswith(_UNDECODABLE):
            kind = record.exc_info[0] if record.exc_info else None
            what = f"undecodable ({kind.__name__ if kind else 'unknown error'})"
            _apart(lambda: self._on_undecodable(what))
        elif any(words in template for words in _AWAY):
            if not self._away:
                self._away = True
                what = record.getMessage()
                _apart(lambda: LOG.warning("RabbitMQ is away (%s): waiting for it", what))
        elif _BACK in template:
            self.connected()
        else:
            wanted = record.name != DRIVER or record.levelno >= self._shown
            return wanted and not template.startswith(_NO_NEWS)
        return False

    def connected(self) -> None:
        """Note that a connection has come about."""
        if self._away:
            self._away = False
            LOG.info("RabbitMQ is back, listening again")


def _apart(tell: Callable[[], None]) -> None:
    """Log outside the exception that the driver is handling at the moment.

    oslo.log would append it to the line, and it may quote a message's body.
    """
    teller = threading.Thread(target=tell, name="driver-log")
    teller.start()
    teller.join()
