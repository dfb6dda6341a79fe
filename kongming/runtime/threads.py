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

"""Short-lived threads, and errors that end any thread.

A thread that ends by an error ends the service, so that no service is ready without one.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
import logging
import threading
from typing import TypeVar

from oslo_context import context as oslo_context

LOG = logging.getLogger(__name__)

T = TypeVar("T")


def with_request_context(work: Callable[[], T]) -> Callable[[], T]:
    """Return work that logs with the request context of this thread, in any thread."""
    context: oslo_context.RequestContext | None = oslo_context.get_current()

    def run() -> T:
        if context is not None:
            context.update_store()
        return work()

    return run


def start(work: Callable[[], T], name: str) -> Future[T]:
    """Start work that may never end in a new thread; return its future.

    :param name: the name of the thread.
    """
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001, the future raises it
            done.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return done


class Faults:
    """The errors that have ended threads.

    :param on_fault: called after each was logged. It may not block.
    :ivar count: their number.
    """

    def __init__(self, on_fault: Callable[[], None]) -> None:
        self._on_fault = on_fault
        self.count = 0

    def install(self) -> None:
        """Receive the errors of all threads from now on."""
        threading.excepthook = self.take

    def take(self, ended: threading.ExceptHookArgs) -> None:
        """Log the error that has ended a thread."""
        if ended.exc_value is None or isinstance(ended.exc_value, SystemExit):
            return
        self.count += 1
        LOG.critical(
            "A fault of Kongming ended the thread %s; the service stops and, after its restart, "
            "continues from its stored state",
            ended.thread.name if ended.thread is not None else "(unknown)",
            exc_info=(type(ended.exc_value), ended.exc_value, ended.exc_traceback),
        )
        self._on_fault()
