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

"""Guests that nothing is kept of and that still have our note: an old definition brought it back.

They go back to their baseline if this host's store wrote the note, if they came from another host
and no event about them follows, or as soon as Nova says that nothing is requested for them. Notes
of other stores of this host stay: the store was lost, and the next event brings back what it knew.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
import logging
import time

from kongming import exception
from kongming.executor.store.residence import Fate, Hint, Kept, Place, Presence, decide
from kongming.executor.store.store import Store
from kongming.hypervisor.guest import Guest
from kongming.hypervisor.hypervisor import Hypervisor

LOG = logging.getLogger(__name__)

# An event about a guest that has just come may be behind libvirt's.
_PATIENCE_S = 10.0
_MOST = 4096


class Unclaimed:
    """Looks at guests that nothing is kept of. Any thread may call any method.

    :param on_doubt: called with an instance of which Nova is to be asked what it has.
    :param clock: seconds that only grow.
    """

    def __init__(
        self,
        store: Store,
        hypervisor: Hypervisor,
        on_doubt: Callable[[str], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._hypervisor = hypervisor
        self._on_doubt = on_doubt
        self._clock = clock
        # Those that Nova says nothing is requested for, and those without a note.
        self._unrequested: OrderedDict[str, None] = OrderedDict()
        self._plain: set[str] = set()
        self._found: dict[str, float] = {}

    def unrequested(self, instance_uuid: str) -> bool:
        """Note that Nova says that nothing is requested for an instance.

        :returns: whether its guest is to be looked at.
        """
        self._unrequested[instance_uuid] = None
        self._unrequested.move_to_end(instance_uuid)
        if len(self._unrequested) > _MOST:
            self._unrequested.popitem(last=False)
        return instance_uuid not in self._plain

    def requested(self, instance_uuid: str) -> None:
        """Note that something is requested for an instance."""
        self._unrequested.pop(instance_uuid, None)

    def happened(self, instance_uuid: str | None = None) -> None:
        """Note that a guest may have started anew, or that any may."""
        if instance_uuid is None:
            self._plain.clear()
        else:
            self._plain.discard(instance_uuid)
            self._found.pop(instance_uuid, None)

    def find(self) -> list[str]:
        """Return the guests that nothing is kept of and that have a note.

        :raises HypervisorUnavailable: if libvirt does not answer.
        """
        held = self._store.held()
        return [
            guest.instance_uuid
            for guest in self._hypervisor.occupants()
            if guest.touched and guest.instance_uuid not in held
        ]

    def look(self, instance_uuid: str) -> bool:
        """Look at a guest that nothing is kept of; it may be kept to be released then.

        :returns: whether to look again soon.

        :raises HypervisorUnavailable: if libvirt does not answer.
        :raises StoreUnavailable: if the store can't be used.
        """
        try:
            with self._hypervisor.guest(instance_uuid) as guest:
                kept = self._kept(guest)
                arriving = kept is not Kept.NOTHING and _is_arriving(guest)
        except (exception.GuestAbsent, exception.LibvirtForbids, exception.Failed) as error:
            LOG.debug("Instance %s: %s", instance_uuid, error)
            return isinstance(error, exception.Failed)
        if kept is Kept.NOTHING:
            self._plain.add(instance_uuid)
            return False
        if arriving:
            # What is requested for it comes along.
            self._found.pop(instance_uuid, None)
            return True
        return self._decide(instance_uuid, kept)

    def _decide(self, instance_uuid: str, kept: Kept) -> bool:
        """Decide on a guest with a note; tell whether to look again soon."""
        hint = Hint(Place.HERE) if instance_uuid in self._unrequested else None
        decision = decide(Presence.RUNS, hint, kept)
        if decision.ask and instance_uuid not in self._found:
            self._on_doubt(instance_uuid)
        since = self._found.setdefault(instance_uuid, self._clock())
        if decision.fate is not Fate.RELEASED:
            return False
        if hint is None and self._clock() - since < _PATIENCE_S:
            return True
        self._found.pop(instance_uuid, None)
        LOG.info(
            "Instance %s: an old definition has restored a placement that nothing requests any "
            "more; it is released",
            instance_uuid,
        )
        self._store.release(instance_uuid, "Kongming: an old definition had restored it")
        return False

    def _kept(self, guest: Guest) -> Kept:
        definition = guest.definition()
        if not definition.nova or not definition.baseline:
            return Kept.NOTHING
        # What the store of another host knew is of no use here.
        own = definition.is_placed_by(self._store.identity) or definition.has_foreign_baseline
        return Kept.OWN_NOTE if own else Kept.FOREIGN_NOTE


def _is_arriving(guest: Guest) -> bool:
    """Tell whether a guest is on its way from or to another host."""
    try:
        guest.check_free()
    except exception.GuestBusy:
        return True
    return False
