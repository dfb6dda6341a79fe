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

"""One pass over one instance: observe ▸ plan ▸ guard ▸ apply ▸ verify.

What is done depends only on what is wanted and what is, never on why the
pass is made: any pass may be made twice, late, or for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
import contextlib
import logging

from kongming import exception
from kongming.allocation import Allocation
from kongming.cpuset import CpuSet
from kongming.executor import guard, plan
from kongming.executor.store import Record, Status, Store
from kongming.hypervisor.connection import Connection
from kongming.hypervisor.definition import Definition
from kongming.hypervisor.guest import Guest

LOG = logging.getLogger(__name__)


class Reconciler:
    """Brings guests to what is wanted for them."""

    def __init__(self, store: Store, hypervisor: Connection) -> None:
        self._store = store
        self._hypervisor = hypervisor

    def reconcile(self, instance_uuid: str) -> bool:
        """Make one pass over an instance and keep its outcome.

        :returns: whether it came to an end; if not, it is to be tried again.
        :raises HypervisorUnavailable: if libvirt went away; all instances
            are gone through when it is back.
        :raises StoreUnavailable: if the store can't be used.
        """
        record = self._store.get(instance_uuid)
        if record is None:
            return True
        outcome = self._attempt(record)
        if isinstance(outcome, exception.GuestAbsent):
            self._absent(record, outcome)
        elif isinstance(outcome, exception.Refused):
            if self._store.report(record, Status.REFUSED, outcome):
                log_refusal(instance_uuid, outcome)
        elif isinstance(outcome, exception.Failed):
            if self._store.report(record, Status.FAILED, outcome):
                LOG.error(
                    "Instance %s: failed (%s): %s; it will be tried again",
                    instance_uuid,
                    outcome.reason,
                    outcome,
                )
            return False
        return True

    def _attempt(self, record: Record) -> exception.KongmingError | None:
        """Give back what came in between: oslo.log would say it a second time
        in whatever is logged while an exception is handled.
        """
        try:
            self._bring_about(record)
        except (exception.GuestAbsent, exception.Refused, exception.Failed) as error:
            return error
        return None

    def _bring_about(self, record: Record) -> None:
        guest = self._hypervisor.guest(record.instance_uuid)
        definition = guest.definition()
        if record.asked is None:
            # What is asked can't be read, and has been answered.
            self._fall_back(record, guest, definition)
        elif not record.asked:
            self._return_to_baseline(record, guest, definition)
        else:
            try:
                done = _place(record, record.asked, guest, definition)
            except exception.Refused:
                self._fall_back(record, guest, definition)
                raise
            self._store.report(record, Status.APPLIED, accepted=record.asked)
            _log_placed(record, done)

    def _fall_back(self, record: Record, guest: Guest, definition: Definition) -> None:
        """Keep in force what was accepted last, as long as it can be."""
        if record.accepted and record.accepted != record.asked:
            with contextlib.suppress(exception.Refused):
                _log_placed(record, _place(record, record.accepted, guest, definition))

    def _return_to_baseline(self, record: Record, guest: Guest, definition: Definition) -> None:
        if definition.baseline is not None:
            state = _state(guest, definition, definition.baseline)
            steps = plan.restore(definition.baseline, state, guest.host.online)
            carry_out(steps, guest)
            LOG.info(
                "Instance %s: nothing is asked any more, back to its baseline: %s",
                record.instance_uuid,
                steps,
            )
        self._store.forget(record.instance_uuid, generation=record.generation)

    def _absent(self, record: Record, absent: exception.GuestAbsent) -> None:
        LOG.debug("Instance %s: %s", record.instance_uuid, absent)
        # Also if nothing is asked any more: a domain that was saved comes
        # back with its pins.
        if record.asked is not None:
            self._store.report(record, Status.ABSENT, absent)


def _place(
    record: Record, allocation: Allocation, guest: Guest, definition: Definition
) -> plan.Plan:
    """Bring a guest to an allocation; give what was done for it."""
    guard.check_guest(definition)
    wanted = {}
    if allocation.vcpu_pinning is not None:
        wanted = allocation.vcpu_pinning.resolve(definition.vcpus)
    all_wanted = wanted | _no_longer_asked(record, definition, wanted)
    state = _state(guest, definition, all_wanted)
    steps = plan.place(all_wanted, state, guest.host.online)
    if steps or allocation != record.accepted:
        guard.check_cpus(CpuSet(cpu for cpus in wanted.values() for cpu in cpus), guest.host)
    if steps:
        carry_out(steps, guest)
    return steps


def _log_placed(record: Record, done: plan.Plan) -> None:
    if done:
        LOG.info("Instance %s: %s (applied, seen on the threads)", record.instance_uuid, done)


def carry_out(steps: plan.Plan, guest: Guest) -> None:
    """Apply the steps and see that they had their effect: all or nothing.

    :raises StepFailed: if libvirt refuses a step.
    :raises NotVerified: if the threads may run elsewhere than wanted.
    """
    begun: list[plan.Step] = []
    try:
        for step in steps.steps:
            begun.append(step)
            step.apply(guest)
        differences = plan.differences(steps.wanted, guest.affinity(), guest.host.online)
        if differences:
            raise exception.NotVerified(
                f"libvirt reported success, but {differences}; look for a cgroup above the "
                "guest's that allows fewer CPUs, and for others who pin it"
            )
    except (exception.Failed, exception.Refused) as error:
        raise type(error)(f"{error}; {_undo(begun, guest)}") from error


def _undo(begun: list[plan.Step], guest: Guest) -> str:
    """Undo the steps, the last first, and say what came of it."""
    kept = []
    for step in reversed(begun):
        try:
            step.undo(guest)
        except (exception.Failed, exception.Refused) as error:
            kept.append(f"{step} ({error})")
    if kept:
        return f"undone, except {', '.join(kept)}"
    return "the guest is as it was before"


def _state(guest: Guest, definition: Definition, wanted: Mapping[int, CpuSet]) -> plan.GuestState:
    """Observe the threads too, unless every vCPU is to be pinned in any case."""
    known = definition.baseline is not None
    if known and all(definition.pins[vcpu] != cpus for vcpu, cpus in wanted.items()):
        return plan.GuestState(definition.pins, {}, definition.baseline)
    return plan.GuestState(definition.pins, guest.affinity(), definition.baseline)


def _no_longer_asked(
    record: Record, definition: Definition, wanted: Mapping[int, CpuSet]
) -> dict[int, CpuSet]:
    """Give the baseline of those vCPUs that were pinned by the request before.

    What a guest has must not depend on the requests that led to the last one.
    """
    if record.accepted is None or record.accepted.vcpu_pinning is None:
        return {}
    return {
        vcpu: cpus
        for vcpu, cpus in (definition.baseline or {}).items()
        if vcpu not in wanted and record.accepted.vcpu_pinning.names(vcpu)
    }


def log_refusal(instance_uuid: str, refusal: exception.Refused) -> None:
    """Tell the operator of a refusal: said once, in one form, wherever it is found."""
    LOG.warning(
        "Instance %s: refused (%s): %s; the guest stays as it is",
        instance_uuid,
        refusal.reason,
        refusal,
    )
