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

"""Guests without a record that have a baseline of Kongming: an old definition restored it.

They return to their baseline if this host's store wrote it, if they came from another host and no
event about them follows, or as soon as Nova reports that nothing is requested for them. Baselines
of other stores of this host stay: that store was lost, and the next event restores its request.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
import logging
import time

from kongming import exception
from kongming.executor.store.residence import Action, Hint, LocalState, Place, Presence, decide
from kongming.executor.store.store import Store
from kongming.hypervisor.guest import Guest
from kongming.hypervisor.hypervisor import Hypervisor

LOG = logging.getLogger(__name__)

# Nova's event about a guest that has just arrived may come after libvirt's.
_GRACE_S = 10.0
_MAX = 4096


class Unclaimed:
    """Checks guests without a record. Any thread may call any method.

    :param request_lookup: called with an instance whose metadata Nova must be asked for.
    :param clock: returns seconds, and is never set back.
    """

    def __init__(
        self,
        store: Store,
        hypervisor: Hypervisor,
        request_lookup: Callable[[str], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._hypervisor = hypervisor
        self._request_lookup = request_lookup
        self._clock = clock
        # Those for which Nova reports no request, and those without a baseline.
        self._unrequested: OrderedDict[str, None] = OrderedDict()
        self._plain: set[str] = set()
        self._found: dict[str, float] = {}

    def note_unrequested(self, instance_uuid: str) -> bool:
        """Note that nothing is requested for an instance, as Nova reports.

        :returns: whether its guest needs a check.
        """
        self._unrequested[instance_uuid] = None
        self._unrequested.move_to_end(instance_uuid)
        if len(self._unrequested) > _MAX:
            self._unrequested.popitem(last=False)
        return instance_uuid not in self._plain

    def note_requested(self, instance_uuid: str) -> None:
        """Note that something is requested for an instance."""
        self._unrequested.pop(instance_uuid, None)

    def note_event(self, instance_uuid: str | None = None) -> None:
        """Note that a guest may have restarted, or that any guest may have."""
        if instance_uuid is None:
            self._plain.clear()
        else:
            self._plain.discard(instance_uuid)
            self._found.pop(instance_uuid, None)

    def find(self) -> list[str]:
        """Return the guests without a record that have a baseline.

        :raises HypervisorUnavailable: if libvirt is unavailable.
        """
        instances = self._store.instances()
        return [
            guest.instance_uuid
            for guest in self._hypervisor.occupants()
            if guest.touched and guest.instance_uuid not in instances
        ]

    def check(self, instance_uuid: str) -> bool:
        """Check a guest without a record; to be released, it gets one.

        :returns: whether to check again soon.
        :raises HypervisorUnavailable: if libvirt is unavailable.
        :raises StoreUnavailable: if the store can't be used.
        """
        try:
            with self._hypervisor.guest(instance_uuid) as guest:
                state = self._state_of(guest)
                arriving = state is not LocalState.NOTHING and _is_arriving(guest)
        except (exception.GuestAbsent, exception.LibvirtForbids, exception.Failed) as error:
            LOG.debug("Instance %s: %s", instance_uuid, error)
            return isinstance(error, exception.Failed)
        if state is LocalState.NOTHING:
            self._plain.add(instance_uuid)
            return False
        if arriving:
            # Its request arrives with it.
            self._found.pop(instance_uuid, None)
            return True
        return self._decide(instance_uuid, state)

    def _decide(self, instance_uuid: str, state: LocalState) -> bool:
        """Decide about a guest with a baseline; return whether to check again soon."""
        hint = Hint(Place.HERE) if instance_uuid in self._unrequested else None
        decision = decide(Presence.RUNS, hint, state)
        if decision.lookup and instance_uuid not in self._found:
            self._request_lookup(instance_uuid)
        since = self._found.setdefault(instance_uuid, self._clock())
        if decision.action is not Action.RELEASE:
            return False
        if hint is None and self._clock() - since < _GRACE_S:
            return True
        self._found.pop(instance_uuid, None)
        LOG.info(
            "Instance %s: an old definition has restored a placement that nothing requests any "
            "more; it is released",
            instance_uuid,
        )
        self._store.release(instance_uuid, "Kongming: an old definition had restored it")
        return False

    def _state_of(self, guest: Guest) -> LocalState:
        definition = guest.definition()
        if not definition.nova or not definition.baseline:
            return LocalState.NOTHING
        # The store of another host can't help here.
        own = definition.is_placed_by(self._store.identity) or definition.has_foreign_baseline
        return LocalState.OWN_BASELINE if own else LocalState.FOREIGN_BASELINE


def _is_arriving(guest: Guest) -> bool:
    """Return whether a guest is migrating to or from this host."""
    try:
        guest.check_free()
    except exception.GuestBusy:
        return True
    return False
