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

"""Threads beside those that a part has for good.

A thread that ends by an error ends the service: no part dies while the rest says Ready.
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


def of_this_request(work: Callable[[], T]) -> Callable[[], T]:
    """Return some work whose lines in the log are of this thread's request, in any thread."""
    asking: oslo_context.RequestContext | None = oslo_context.get_current()

    def carry_out() -> T:
        if asking is not None:
            asking.update_store()
        return work()

    return carry_out


def begin(work: Callable[[], T], name: str) -> Future[T]:
    """Do some work that may never end in a thread of its own; nobody needs to wait for it.

    :param name: of the thread.
    """
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001, it is raised where it is waited for
            done.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return done


class Faults:
    """Takes the errors that threads end by.

    :param on_fault: called after each, once it is told. It may not block.
    :ivar count: how many there were.
    """

    def __init__(self, on_fault: Callable[[], None]) -> None:
        self._on_fault = on_fault
        self.count = 0

    def install(self) -> None:
        """Take those of all threads from now on."""
        threading.excepthook = self.take

    def take(self, ended: threading.ExceptHookArgs) -> None:
        """Tell of one thread that has ended by an error."""
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
