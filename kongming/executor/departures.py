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

"""Instances that have left by Nova's word: forgotten where libvirt agrees, else told."""

from __future__ import annotations

from collections.abc import Callable
import logging
import time

from kongming import exception
from kongming.allocation.statuses import Status
from kongming.executor.store.record import Record
from kongming.executor.store.residence import Decision, Fate, Hint, Kept, Presence, decide
from kongming.executor.store.store import Store

LOG = logging.getLogger(__name__)

# Nova may say that a guest is elsewhere a moment before its domain ends, and that it is here
# a moment after its domain has started.
_GRACE_S = 5.0


class Departures:
    """Decides whether instances that something is kept of are still here.

    :param host: the name of this host.
    :param on_doubt: called with an instance of which Nova is to be asked where it is.
    :param clock: seconds that only grow.
    """

    def __init__(
        self,
        host: str,
        store: Store,
        on_doubt: Callable[[str], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._host = host
        self._store = store
        self._on_doubt = on_doubt
        self._clock = clock
        # The incarnation that was first found running in spite of a hint, and when.
        self._found: dict[str, tuple[int, Hint, float]] = {}
        self._claims: dict[str, exception.ClaimedElsewhere] = {}
        self._asked: dict[str, Hint] = {}
        self._all_told = False

    def may_place(self, record: Record, domain_id: int) -> bool:
        """Tell whether a guest that runs is to be worked on; look again soon if it is not.

        :raises StoreUnavailable: if the store can't be used.
        """
        instance_uuid = record.instance_uuid
        hint = self._store.hints.get(instance_uuid)
        decision = decide(Presence.RUNS, hint, _kept(record))
        self._ask(instance_uuid, hint, decision)
        if hint is None or decision.fate is not Fate.CLAIMED:
            self._found.pop(instance_uuid, None)
            if self._claims.pop(instance_uuid, None) or record.status is Status.ELSEWHERE:
                LOG.info("Instance %s: Nova reports again that it is on this host", instance_uuid)
                self._all_told = False
            return True
        before = self._found.get(instance_uuid)
        if before is None or before[:2] != (domain_id, hint):
            before = self._found[instance_uuid] = (domain_id, hint, self._clock())
        if self._clock() - before[2] < _GRACE_S:
            return False
        self._claim(record, hint)
        return True

    def claim(self, instance_uuid: str) -> exception.ClaimedElsewhere | None:
        """Return what there is to tell of a guest that runs here in spite of Nova's word."""
        return self._claims.get(instance_uuid)

    def forgets(self, record: Record, absent: exception.GuestAbsent) -> bool:
        """Forget an instance without a guest if it has left; tell whether that was done.

        :raises StoreUnavailable: if the store can't be used.
        """
        presence = _presence(absent)
        if presence is None:
            return False
        instance_uuid = record.instance_uuid
        hint = self._store.hints.get(instance_uuid)
        decision = decide(presence, hint, _kept(record))
        self._ask(instance_uuid, hint, decision)
        self._found.pop(instance_uuid, None)
        self._claims.pop(instance_uuid, None)
        if decision.fate is not Fate.FORGOTTEN:
            return False
        migrated = presence is Presence.MIGRATED
        why = "libvirt has migrated it" if migrated else f"Nova reports that {hint}"
        if not self._store.give_up(record, hint, f"has left this host: {why}"):
            return False
        self._asked.pop(instance_uuid, None)
        LOG.info("Instance %s: has left this host, forgotten: %s", instance_uuid, why)
        return True

    def _claim(self, record: Record, hint: Hint) -> None:
        instance_uuid = record.instance_uuid
        claim = exception.ClaimedElsewhere(
            f"it runs on this host, {self._host}, but Nova reports that {hint}; its placement is "
            "kept"
        )
        told = self._claims.get(instance_uuid)
        self._claims[instance_uuid] = claim
        before = str(told) if told else record.status is Status.ELSEWHERE and record.message
        if before != str(claim):
            LOG.warning(
                "Instance %s: elsewhere (%s): %s. Find out which of them is right: check "
                "'openstack server show' and [DEFAULT] host",
                instance_uuid,
                claim.reason,
                claim,
            )
        self._tell_if_all()

    def _tell_if_all(self) -> None:
        """Tell once if Nova says of all that is kept here that it is not here."""
        held, astray = self._store.held(), self._store.hints.astray()
        everyone = len(held) > 1 and held <= astray
        if everyone and not self._all_told:
            LOG.warning(
                "Nova reports that none of the %d instances kept here is on this host: check that "
                "[DEFAULT] host, which is %s, is the name that nova-compute has here, and that "
                "[nova] region_name is the region of this host",
                len(held),
                self._host,
            )
        self._all_told = everyone

    def _ask(self, instance_uuid: str, hint: Hint | None, decision: Decision) -> None:
        if hint is None or not decision.ask:
            self._asked.pop(instance_uuid, None)
        elif self._asked.get(instance_uuid) != hint:
            self._on_doubt(instance_uuid)
            self._asked[instance_uuid] = hint


def _kept(record: Record) -> Kept:
    # What can't be read is a request, too.
    return Kept.RETURNING if record.asked is not None and not record.asked else Kept.REQUEST


def _presence(absent: exception.GuestAbsent) -> Presence | None:
    """Return what libvirt has; None if it is not certain, as while a domain is being ended."""
    if isinstance(absent, exception.DomainGone):
        return Presence.MIGRATED if absent.migrated else Presence.GONE
    return Presence.OFF if isinstance(absent, exception.DomainOff) else None
