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

"""What a worker does with one key of the work queue: a pass, whatever its outcome."""

from __future__ import annotations

from collections.abc import Callable
import logging

from kongming import exception
from kongming.executor.contention import Contention
from kongming.executor.reconciler import Reconciler, Result
from kongming.executor.store.store import Store
from kongming.executor.unclaimed import Unclaimed
from kongming.executor.workqueue import WorkQueue
from kongming.hypervisor.calls import Call
from kongming.runtime.hourly import Hourly

LOG = logging.getLogger(__name__)

#: In the work queue instead of an instance: find the unclaimed guests.
UNCLAIMED = ""


class PassRunner:
    """Makes the passes of the workers. Any thread may call any method.

    :param on_pass: called with an instance after each pass.
    """

    def __init__(
        self,
        store: Store,
        queue: WorkQueue,
        reconciler: Reconciler,
        unclaimed: Unclaimed,
        on_pass: Callable[[str], None],
    ) -> None:
        self._store = store
        self._queue = queue
        self._reconciler = reconciler
        self._unclaimed = unclaimed
        self._on_pass = on_pass
        self._contention = Contention()
        self._hourly = Hourly()

    def run(self, key: str) -> None:
        """Make a pass over an instance, or find those that are :data:`UNCLAIMED`."""
        result = self._try_pass(key)
        if key != UNCLAIMED:
            self._on_pass(key)
        corrected = result is Result.CORRECTED
        pause = self._contention.add_correction(key) if corrected else 0.0
        self._queue.done(key, succeeded=result is not Result.RETRY, pause=pause)

    def report_hung(self, call: Call) -> None:
        """Report a call that does not return.

        If it returns later, the outcome of its pass is reported then.
        """
        hung = exception.GuestHung.since(f"{call.doing} has not returned", call.began_at)
        about = f"Instance {call.instance_uuid}" if call.instance_uuid else "libvirt"
        LOG.error("%s: failed (%s): %s", about, hung.reason, hung)
        try:
            self._reconciler.report_hung(call.instance_uuid, hung)
        except exception.StoreUnavailable as error:
            LOG.debug("%s", error)
        self._on_pass(call.instance_uuid)

    def _pass(self, key: str) -> Result:
        if key == UNCLAIMED:
            return self._find_unclaimed()
        result = self._reconciler.reconcile(key)
        if self._store.has_record(key):
            return result
        retry = self._unclaimed.check(key)
        if self._store.has_record(key):
            return self._reconciler.reconcile(key)
        return Result.RETRY if retry else Result.DONE

    def _find_unclaimed(self) -> Result:
        try:
            found = self._unclaimed.find()
        except (exception.Failed, exception.LibvirtForbids) as error:
            if self._hourly.should_log(str(error)):
                LOG.warning(
                    "The guests of this host can't be listed (%s): %s; it will be retried",
                    error.reason,
                    error,
                )
            return Result.RETRY
        for instance_uuid in found:
            self._queue.add(instance_uuid)
        return Result.DONE

    def _try_pass(self, key: str) -> Result:
        try:
            return self._pass(key)
        except exception.HypervisorUnavailable as error:
            # If the connection was lost, all instances get a pass when it is restored.
            LOG.debug("Instance %s: %s", key, error)
            busy = isinstance(error, exception.HypervisorBusy)
            return Result.RETRY if busy else Result.DONE
        except exception.StoreUnavailable as error:
            if error.outage.should_log():
                LOG.error("Instance %s: %s; it will be retried", key, error)
        except Exception as error:
            # A bug must not end the worker, which other instances need.
            LOG.exception("Instance %s: %s; it will be retried", key, error)  # noqa: TRY401
        return Result.RETRY
