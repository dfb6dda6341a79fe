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

"""Instances that Nova reports elsewhere: forgotten if libvirt agrees, otherwise reported."""

from __future__ import annotations

from collections.abc import Callable
import logging
import threading
import time

from kongming import exception
from kongming.allocation.statuses import Status
from kongming.executor.store.record import Record
from kongming.executor.store.residence import Action, Decision, Hint, LocalState, Presence, decide
from kongming.executor.store.store import Store

LOG = logging.getLogger(__name__)

# Nova may report that a guest is elsewhere shortly before its domain ends, and that it is here
# shortly after its domain has started.
_GRACE_S = 5.0


class Departures:
    """Decides whether instances with a record are still on this host.

    :param host: the name of this host.
    :param request_lookup: called with an instance whose location Nova must be asked for.
    :param clock: returns seconds, and is never set back.
    """

    def __init__(
        self,
        host: str,
        store: Store,
        request_lookup: Callable[[str], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._host = host
        self._store = store
        self._request_lookup = request_lookup
        self._clock = clock
        # The incarnation that was first found running in spite of the hint, and when.
        self._found: dict[str, tuple[int, Hint, float]] = {}
        self._claims: dict[str, exception.ClaimedElsewhere] = {}
        self._looked_up: dict[str, Hint] = {}
        self._warned_of_all = False
        # Workers of several instances may find at once that all are elsewhere.
        self._warning = threading.Lock()

    def may_place(self, record: Record, domain_id: int) -> bool:
        """Return whether to place a running guest now; if not, retry soon.

        :raises StoreUnavailable: if the store can't be used.
        """
        instance_uuid = record.instance_uuid
        hint = self._store.hints.get(instance_uuid)
        decision = decide(Presence.RUNS, hint, _state_of(record))
        self._look_up(instance_uuid, hint, decision)
        if hint is None or decision.action is not Action.CLAIM:
            self._found.pop(instance_uuid, None)
            if self._claims.pop(instance_uuid, None) or record.status is Status.ELSEWHERE:
                LOG.info("Instance %s: Nova reports again that it is on this host", instance_uuid)
                self._warned_of_all = False
            return True
        before = self._found.get(instance_uuid)
        if before is None or before[:2] != (domain_id, hint):
            before = self._found[instance_uuid] = (domain_id, hint, self._clock())
        if self._clock() - before[2] < _GRACE_S:
            return False
        self._claim(record, hint)
        return True

    def claim(self, instance_uuid: str) -> exception.ClaimedElsewhere | None:
        """Return what to report of a guest that runs here although Nova reports it elsewhere."""
        return self._claims.get(instance_uuid)

    def forget_departed(self, record: Record, absent: exception.GuestAbsent) -> bool:
        """Forget an instance that has no guest and has left this host; return whether it has.

        :raises StoreUnavailable: if the store can't be used.
        """
        presence = _presence(absent)
        if presence is None:
            return False
        instance_uuid = record.instance_uuid
        hint = self._store.hints.get(instance_uuid)
        decision = decide(presence, hint, _state_of(record))
        self._look_up(instance_uuid, hint, decision)
        self._found.pop(instance_uuid, None)
        self._claims.pop(instance_uuid, None)
        if decision.action is not Action.FORGET:
            return False
        migrated = presence is Presence.MIGRATED
        why = "libvirt has migrated it" if migrated else f"Nova reports that {hint}"
        if not self._store.forget_if_unchanged(record, hint, f"has left this host: {why}"):
            return False
        self._looked_up.pop(instance_uuid, None)
        LOG.info("Instance %s: has left this host, forgotten: %s", instance_uuid, why)
        return True

    def _claim(self, record: Record, hint: Hint) -> None:
        instance_uuid = record.instance_uuid
        claim = exception.ClaimedElsewhere(
            f"it runs on this host, {self._host}, but Nova reports that {hint}; its placement is "
            "kept"
        )
        former = self._claims.get(instance_uuid)
        self._claims[instance_uuid] = claim
        reported = str(former) if former else record.status is Status.ELSEWHERE and record.message
        if reported != str(claim):
            LOG.warning(
                "Instance %s: elsewhere (%s): %s. Find out which of them is right: check "
                "'openstack server show' and [DEFAULT] host",
                instance_uuid,
                claim.reason,
                claim,
            )
        self._warn_if_all_elsewhere()

    def _warn_if_all_elsewhere(self) -> None:
        """Warn once if Nova reports that none of the instances with a record is here."""
        with self._warning:
            instances, elsewhere = self._store.instances(), self._store.hints.elsewhere()
            all_elsewhere = len(instances) > 1 and instances <= elsewhere
            if all_elsewhere and not self._warned_of_all:
                LOG.warning(
                    "Nova reports that none of the %d instances kept here is on this host: check "
                    "that [DEFAULT] host, which is %s, is the name that nova-compute has here, "
                    "and that [nova] region_name is the region of this host",
                    len(instances),
                    self._host,
                )
            self._warned_of_all = all_elsewhere

    def _look_up(self, instance_uuid: str, hint: Hint | None, decision: Decision) -> None:
        if hint is None or not decision.lookup:
            self._looked_up.pop(instance_uuid, None)
        elif self._looked_up.get(instance_uuid) != hint:
            self._request_lookup(instance_uuid)
            self._looked_up[instance_uuid] = hint


def _state_of(record: Record) -> LocalState:
    # A request that can't be read is one, too.
    return (
        LocalState.RETURNING
        if record.requested is not None and not record.requested
        else LocalState.REQUEST
    )


def _presence(absent: exception.GuestAbsent) -> Presence | None:
    """Return what libvirt has; None if that is uncertain, as while a domain is being stopped."""
    if isinstance(absent, exception.DomainGone):
        return Presence.MIGRATED if absent.migrated else Presence.ABSENT
    return Presence.OFF if isinstance(absent, exception.DomainOff) else None
