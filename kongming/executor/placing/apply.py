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

"""Carries out a plan: all or nothing, with verification."""

from __future__ import annotations

from collections.abc import Mapping

from kongming import exception
from kongming.allocation import target
from kongming.allocation.target import Target, Value
from kongming.executor.placing import plan
from kongming.hypervisor.guest import Guest
from kongming.hypervisor.reading import Reading


def carry_out(steps: plan.Plan, guest: Guest) -> Mapping[Target, Reading]:
    """Apply the steps and verify their effect: all or nothing.

    :returns: what was observed of the plan's goals afterwards.
    :raises Refused: if a step is impossible with such a guest.
    :raises StepFailed: if libvirt refuses a step.
    :raises NotVerified: if the guest has something else than was set.
    :raises GuestBusy: if libvirt does not let the guest be changed now, or if the domain was
        restarted meanwhile.
    """
    begun: list[plan.Step] = []
    try:
        return _all_or_nothing(steps, guest, begun)
    finally:
        if guest.has_restarted():
            _note_for_next(begun, steps.baseline, guest)
            raise exception.GuestBusy("the domain was restarted while the guest was placed")


def _all_or_nothing(
    steps: plan.Plan, guest: Guest, begun: list[plan.Step]
) -> Mapping[Target, Reading]:
    """Apply the steps; ``begun`` gets each one that was tried."""
    try:
        for step in steps.steps:
            begun.append(step)
            step.apply(guest)
        return _verify(steps, guest)
    except (exception.GuestBusy, exception.LibvirtForbids) as error:
        # libvirt has not carried out the last step.
        raise type(error)(f"{error}; {_undo(begun[:-1], guest)}") from error
    except (exception.Failed, exception.Refused) as error:
        raise type(error)(f"{error}; {_undo(begun, guest)}") from error


def _verify(steps: plan.Plan, guest: Guest) -> Mapping[Target, Reading]:
    observed = guest.observe(steps.goals)
    if differences := plan.differences(steps.goals, observed, guest.host):
        found = target.describe(
            (what, f"{partition}, desired {steps.goals[what]}")
            for what, partition in differences.items()
        )
        raise exception.NotVerified(
            f"libvirt reported success, but observed are {found}; check what else places the "
            "guest, and whether this service may move its threads (CAP_SYS_NICE)"
        )
    return observed


def _note_for_next(begun: list[plan.Step], baseline: Mapping[Target, Value], guest: Guest) -> None:
    """Note the baseline in a domain that was restarted while it was placed.

    Some steps were applied to it, and it was defined like the former one.
    """
    changed = {step.target for step in begun if isinstance(step, plan.Change)}
    guest.write_baseline({what: baseline[what] for what in changed})


def _undo(begun: list[plan.Step], guest: Guest) -> str:
    """Undo the steps, the last first; return the result for the error message.

    If a step can't be undone, the baseline is needed: the next attempt would take the present
    state for it. So nothing is undone without it, either. If the guest is busy, no further step
    is tried, which would take half a minute each: the next attempt undoes the rest.
    """
    remaining: list[str] = []
    continues = True
    for step in reversed(begun):
        if remaining and isinstance(step, plan.KeepBaseline):
            continue
        if not continues:
            remaining.append(str(step))
            continue
        try:
            step.undo(guest)
        except exception.PinningUnsupported:
            # A thread that can't be pinned has not been pinned.
            continue
        except (exception.Failed, exception.Refused, exception.GuestBusy) as error:
            remaining.append(f"{step} ({error})")
            busy = isinstance(error, exception.GuestBusy)
            continues = not (busy or isinstance(step, plan.KeepBaseline))
    if remaining:
        return f"undone, except {', '.join(remaining)}"
    return "the guest is as it was before"
