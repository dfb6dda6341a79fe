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

"""The log of oslo.messaging's driver, reworded for operators.

A message that can't be decoded, and the reason why the driver can't listen, appear only in its
log. A filter takes all records of the driver and the libraries below it. Most of them matter
little, or are reported elsewhere, and are logged at DEBUG only; the others are logged once, in
one line. None is passed on unchanged: the libraries do not name a way out, and their tracebacks
may quote a message's body.
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

# The loggers of the driver, and of the libraries below it; oslo.log names some of them.
_ABOVE = ("oslo.messaging.", "oslo_messaging.", "oslo_utils.excutils.", "kombu.", "amqp.")

LOG = logging.getLogger(__name__)


class DriverLog(logging.Filter):
    """A filter that replaces the records of the driver.

    :param on_undecodable: called with the kind of the error for each message that the driver
        could not decode, and has dropped.
    :param on_trouble: called with each error that keeps the driver from listening or sending.
        Neither may use the driver.
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
        # Set while a connection is blocked.
        self._alarm: Hourly | None = None

    def install(self) -> None:
        """Add the filter to all existing loggers."""
        for logger in _loggers():
            logger.addFilter(self)

    def remove(self) -> None:
        """Remove the filter."""
        for logger in _loggers():
            logger.removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace a record; return whether to log it unchanged."""
        if record.levelno <= logging.DEBUG:
            return True
        # In another thread: here oslo.log would append the exception that the driver is handling,
        # and that may quote a message's body.
        arguments = (record, _error(record) or sys.exception())
        thread = threading.Thread(target=self._replace, args=arguments, name="driver-log")
        # While the process ends no thread can be started.
        with contextlib.suppress(RuntimeError):
            thread.start()
            thread.join()
        return False

    def _replace(self, record: logging.LogRecord, error: BaseException | None) -> None:
        what = meaning(str(record.msg))
        if what is Meaning.UNDECODABLE:
            kind = type(error).__name__ if error else "unknown error"
            unreadable = isinstance(error, Unreadable)
            self._on_undecodable(str(error) if unreadable else f"undecodable ({kind})")
            return
        LOG.debug("%s: %s", record.name, record.getMessage(), exc_info=record.exc_info)
        after = None if error is None else not_acknowledged(error)
        if after is not None:
            self._log_once("not acknowledged", logging.WARNING, _REQUEUED, after)
        elif what is Meaning.TROUBLE and error is not None and explain(error).kind != UNKNOWN:
            self._on_trouble(error)
        elif what is Meaning.BLOCKED:
            self._blocked()
        elif what is Meaning.UNBLOCKED:
            self._unblocked()
        elif what is Meaning.DECLARED_OTHERWISE:
            self._log_once(what.name, logging.WARNING, _OTHERWISE)
        elif what is Meaning.STUCK:
            LOG.warning(_STUCK, _first(record))
        elif what is not Meaning.NO_NEWS:
            why = "" if error is None else f": {explain(error).words}"
            arguments = (record.name, record.getMessage(), why)
            self._log_once(str(record.msg), record.levelno, "%s: %s%s", *arguments)

    def _blocked(self) -> None:
        """Log the first blocked connection, and again each hour: the end may have been missed."""
        self._alarm = self._alarm or Hourly()
        if self._alarm.should_log(Meaning.BLOCKED):
            LOG.warning(_BLOCKED)

    def _unblocked(self) -> None:
        if self._alarm is not None:
            self._alarm = None
            LOG.info("RabbitMQ accepts messages again")

    def _log_once(self, what: str, level: int, text: str, *arguments: object) -> None:
        """Log something, unless it was logged within the hour."""
        if self._hourly.should_log(what):
            LOG.log(level, text, *arguments)


_REQUEUED = (
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
    """Yield the driver's loggers; a logger's filter does not apply to its children."""
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
