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

"""What oslo.messaging's driver says only in its log, told in our words.

A message that it can't decode, and why it can't listen, never reach the code
above it. All that it and the libraries below it log is taken here: most is
told elsewhere, or of no consequence, and seen at DEBUG only; the rest is told
once, in one line. None of it is passed on as it is: the libraries do not know
what an operator can do, and their tracebacks may quote a message's body.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
import contextlib
import logging
import sys
import threading

from kongming.bus.driver_messages import Meaning, meaning
from kongming.bus.incoming import Unreadable
from kongming.bus.reasons import UNKNOWN, explain, not_acknowledged
from kongming.runtime.hourly import Hourly

# All loggers of the driver, and of the libraries below it: some are named by oslo.log.
_ABOVE = ("oslo.messaging.", "oslo_messaging.", "oslo_utils.excutils.", "kombu.", "amqp.")

LOG = logging.getLogger(__name__)


class DriverLog(logging.Filter):
    """Takes the driver's log and tells what concerns the operator.

    :param on_undecodable: called with the kind of the error, for each
        message that the driver could not decode (and has dropped).
    :param on_trouble: called with each error that keeps the driver from
        listening or sending. Neither may use the driver.
    """

    def __init__(
        self,
        on_undecodable: Callable[[str], None] = lambda _what: None,
        on_trouble: Callable[[BaseException], None] = lambda _error: None,
    ) -> None:
        super().__init__()
        self._on_undecodable = on_undecodable
        self._on_trouble = on_trouble
        self._hourly = Hourly()
        # Since the first connection was blocked, and none was freed.
        self._alarm: Hourly | None = None

    def install(self) -> None:
        """Begin to take it: what all loggers say that there are by now."""
        for logger in _loggers():
            logger.addFilter(self)

    def remove(self) -> None:
        """Leave the log as it was."""
        for logger in _loggers():
            logger.removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Take one record; tell whether it is to be logged as it is."""
        if record.levelno <= logging.DEBUG:
            # Who asked for this wants all of it.
            return True
        # Apart: oslo.log would append the exception that the driver is
        # handling at the moment, and it may quote a message's body.
        told = (record, _error(record) or sys.exception())
        teller = threading.Thread(target=self._take, args=told, name="driver-log")
        # At the very end of the process no thread may begin.
        with contextlib.suppress(RuntimeError):
            teller.start()
            teller.join()
        return False

    def _take(self, record: logging.LogRecord, error: BaseException | None) -> None:
        what = meaning(str(record.msg))
        if what is Meaning.UNDECODABLE:
            kind = type(error).__name__ if error else "unknown error"
            unreadable = isinstance(error, Unreadable)
            self._on_undecodable(str(error) if unreadable else f"undecodable ({kind})")
            return
        LOG.debug("%s: %s", record.name, record.getMessage(), exc_info=record.exc_info)
        after = None if error is None else not_acknowledged(error)
        if after is not None:
            self._once("not acknowledged", logging.WARNING, _TAKEN_BACK, after)
        elif what is Meaning.TROUBLE and error is not None and explain(error).kind != UNKNOWN:
            self._on_trouble(error)
        elif what is Meaning.BLOCKED:
            self._blocked()
        elif what is Meaning.UNBLOCKED:
            self._unblocked()
        elif what is Meaning.DECLARED_OTHERWISE:
            self._once(what.name, logging.WARNING, _OTHERWISE)
        elif what is Meaning.STUCK:
            LOG.warning(_STUCK, _first(record))
        elif what is not Meaning.NO_NEWS:
            why = "" if error is None else f": {explain(error).words}"
            told = (record.name, record.getMessage(), why)
            self._once(str(record.msg), record.levelno, "%s: %s%s", *told)

    def _blocked(self) -> None:
        """Tell it for the first of all connections, and hourly: its end may have got lost."""
        self._alarm = self._alarm or Hourly()
        if self._alarm.is_news(Meaning.BLOCKED):
            LOG.warning(_BLOCKED)

    def _unblocked(self) -> None:
        if self._alarm is not None:
            self._alarm = None
            LOG.info("RabbitMQ accepts messages again")

    def _once(self, what: str, level: int, text: str, *arguments: object) -> None:
        """Tell something, unless it was told within the hour."""
        if self._hourly.is_news(what):
            LOG.log(level, text, *arguments)


_TAKEN_BACK = (
    "RabbitMQ requeued messages that were not acknowledged within its consumer_timeout (%g s), "
    "because they could not be stored. Nothing is lost, they are delivered again; find out why "
    "the state path can't be written"
)
_BLOCKED = (
    "RabbitMQ accepts no messages: its memory or disk alarm is on, see 'rabbitmqctl status'. "
    "Until the alarm ends, calls fail, and hints wait or are dropped"
)
_OTHERWISE = (
    "An exchange or queue of Kongming was declared with other values of [oslo_messaging_rabbit] "
    "amqp_durable_queues or rabbit_quorum_queue and is used unchanged: set the values that it was "
    "declared with, or delete it"
)
_STUCK = (
    "The queue %s is on an unavailable node of RabbitMQ: it is deleted and declared again, and "
    "its messages are lost"
)


def _loggers() -> Iterator[logging.Logger]:
    """Yield the driver's loggers; a filter does not count for those below its own."""
    for name, logger in [*logging.root.manager.loggerDict.items()]:
        if isinstance(logger, logging.Logger) and f"{name}.".startswith(_ABOVE):
            yield logger


def _first(record: logging.LogRecord) -> object:
    return record.args[0] if isinstance(record.args, tuple) and record.args else "?"


def _error(record: logging.LogRecord) -> BaseException | None:
    """Return the error that a record is about."""
    arguments = record.args.values() if isinstance(record.args, Mapping) else record.args or ()
    for each in arguments:
        if isinstance(each, BaseException):
            return each
    return record.exc_info[1] if record.exc_info else None
