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

"""The executor of one host: triggers tell it what is wanted, workers do it.

What a trigger tells is on disk before the call returns.
"""

from __future__ import annotations

from collections.abc import Callable
import fcntl
import logging
from pathlib import Path
import threading
import time
from typing import IO

from kongming import exception
from kongming.allocation import Allocation
from kongming.executor.reconciler import Reconciler, log_refusal
from kongming.executor.store import Store
from kongming.executor.workqueue import WorkQueue
from kongming.hypervisor.connection import Connection

LOG = logging.getLogger(__name__)

_LOCK_NAME = "executor.lock"


class Executor:
    """All that decides and does on one host.

    :param state_path: directory of the store; made if need be.
    :param workers: number of instances worked on at once.
    :param retry_max: gives the longest delay between attempts, in seconds.
    :param on_connect: called each time libvirt has begun to answer.
    """

    def __init__(
        self,
        *,
        state_path: Path,
        connection_uri: str,
        keepalive: tuple[int, int],
        workers: int,
        retry_max: Callable[[], float],
        on_connect: Callable[[], None],
    ) -> None:
        self._lock = _lock(state_path)
        self._store = Store(state_path)
        self._queue = WorkQueue(retry_max)
        self._hypervisor = Connection(
            connection_uri,
            keepalive=keepalive,
            on_connect=self._connected,
            on_guest_start=self._wake,
        )
        self._on_connect = on_connect
        self._reconciler = Reconciler(self._store, self._hypervisor)
        self._workers = [
            threading.Thread(target=self._work, name=f"worker-{number}", daemon=True)
            for number in range(workers)
        ]

    def start(self) -> None:
        """Begin to work; returns at once, whether libvirt answers or not."""
        for worker in self._workers:
            worker.start()
        self._hypervisor.start()

    def stop(self, timeout: float) -> None:
        """Finish what has begun, for at most ``timeout`` seconds.

        What has not begun is on disk and is done after the next start.
        """
        self._queue.close()
        deadline = time.monotonic() + timeout
        for worker in self._workers:
            worker.join(max(0.0, deadline - time.monotonic()))
        self._hypervisor.stop()
        if not any(worker.is_alive() for worker in self._workers):
            self._store.close()
        self._lock.close()

    def ask(self, instance_uuid: str, allocation: Allocation) -> None:
        """Want ``allocation`` for an instance from now on.

        :raises StoreUnavailable: if that can't be kept.
        """
        if not allocation and not self._store.holds(instance_uuid):
            return
        if self._store.ask(instance_uuid, allocation):
            LOG.debug("Instance %s: asked for %s", instance_uuid, allocation.to_json())
        self._queue.add(instance_uuid)

    def refuse(self, instance_uuid: str, refusal: exception.Refused) -> None:
        """Keep that what is asked for an instance can't be read.

        :raises StoreUnavailable: if that can't be kept.
        """
        if self._store.refuse(instance_uuid, refusal):
            log_refusal(instance_uuid, refusal)
        self._queue.add(instance_uuid)

    def let_go(self, instance_uuid: str) -> None:
        """Forget an instance that is no longer on this host.

        :raises StoreUnavailable: if that can't be kept.
        """
        if self._store.holds(instance_uuid) and self._store.forget(instance_uuid):
            LOG.info("Instance %s: has left this host, let go", instance_uuid)

    def holds(self, instance_uuid: str) -> bool:
        """Tell whether anything is known of an instance; costs nothing."""
        return self._store.holds(instance_uuid)

    def _connected(self) -> None:
        held = self._store.held()
        if held:
            LOG.info("Checking all %d instances that anything is asked for", len(held))
        for instance_uuid in held:
            self._queue.add(instance_uuid)
        self._on_connect()

    def _wake(self, instance_uuid: str) -> None:
        if self._store.holds(instance_uuid):
            self._queue.add(instance_uuid)

    def _work(self) -> None:
        while (instance_uuid := self._queue.get()) is not None:
            self._queue.done(instance_uuid, succeeded=self._pass(instance_uuid))

    def _pass(self, instance_uuid: str) -> bool:
        try:
            return self._reconciler.reconcile(instance_uuid)
        except exception.HypervisorUnavailable as error:
            # All instances are gone through when the connection is back.
            LOG.debug("Instance %s: %s", instance_uuid, error)
            return True
        except exception.StoreUnavailable as error:
            unavailable = error
        except Exception as error:
            # A fault of ours must not end the worker, which others wait for.
            LOG.exception("Instance %s: %s; it will be tried again", instance_uuid, error)  # noqa: TRY401
            return False
        LOG.error("Instance %s: %s; it will be tried again", instance_uuid, unavailable)
        return False


def _lock(state_path: Path) -> IO[str]:
    """Keep a second executor away from the same state, until we end.

    :raises StoreUnavailable: if there is one, or the directory is unusable.
    """
    try:
        state_path.mkdir(mode=0o750, parents=True, exist_ok=True)
        lock = (state_path / _LOCK_NAME).open("w")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise exception.StoreUnavailable(
            f"another Kongming service runs on {state_path}: end it, or give this one a "
            "[DEFAULT] state_path of its own"
        ) from error
    except OSError as error:
        raise exception.StoreUnavailable(
            f"{state_path}: {error.strerror}; make the directory, owned by the user that this "
            "service runs as, or change [DEFAULT] state_path"
        ) from error
    return lock
