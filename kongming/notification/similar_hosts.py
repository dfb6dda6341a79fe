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

"""Events of hosts with a similar name: [DEFAULT] host may be misspelt.

Nova's name of this host and [DEFAULT] host must be equal. If they are not, events name a host
that differs by case, or by its domain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
import logging
import threading

from kongming import exception
from kongming.allocation.cpuset import shown
from kongming.notification.event import InstanceEvent
from kongming.notification.event_store import EventStore

LOG = logging.getLogger(__name__)

# The numbers of events with a name at which it is checked. It is reported at the last one, and
# earlier if one of their guests runs here.
_CHECKS = (5, 10, 20)
# The most names, and instances of each, that are remembered.
_NAMES_MAX = 10_000
_INSTANCES_MAX = 64


def _in_a_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="similar-hosts", daemon=True).start()


class SimilarHosts:
    """Counts the events of hosts whose name resembles this one's, and reports each name once.

    :param running: returns the instances that run here; may raise HypervisorUnavailable.
    :param store: keeps the names, for kongming-status.
    :param start: runs a check, which may block.
    """

    def __init__(
        self,
        host: str,
        running: Callable[[], list[str]],
        store: EventStore,
        start: Callable[[Callable[[], None]], None] = _in_a_thread,
    ) -> None:
        self._start = start
        self._host = host
        self._running = running
        self._store = store
        # The number of events with each name; None if it does not resemble this host's.
        self._names: dict[str, int | None] = {}
        self._instances: dict[str, dict[str, None]] = {}
        self._reported: set[str] = set()
        self._has_own_events = False
        self._lock = threading.Lock()

    def check(self, event: InstanceEvent) -> None:
        """Check the name of an event's host; does not block."""
        name = event.host
        if name is None:
            return
        try:
            events = self._names[name]
        except KeyError:
            events = self._add(name)
        if events is not None:
            self._count(name, events + 1, event.instance_uuid)

    def _add(self, name: str) -> int | None:
        if name == self._host and not self._has_own_events:
            self._has_own_events = True
            self._store.clear_similar_hosts()
        if len(self._names) >= _NAMES_MAX:
            self._names.clear()
            self._instances.clear()
        events = 0 if name != self._host and is_similar(name, self._host) else None
        self._names[name] = events
        return events

    def _count(self, name: str, events: int, instance_uuid: str) -> None:
        self._names[name] = events
        instances = self._instances.setdefault(name, {})
        if len(instances) < _INSTANCES_MAX:
            instances[instance_uuid] = None
        if events in _CHECKS and name not in self._reported:
            self._start(partial(self._report, name, list(instances), events == _CHECKS[-1]))

    def _report(self, name: str, instances: Sequence[str], enough: bool) -> None:
        """Report a name if one of its instances runs here, or if it had enough events."""
        try:
            running = set(self._running())
        except exception.KongmingError as error:
            LOG.debug("The running guests of this host are unknown: %s", error)
            running = set()
        here = next((each for each in instances if each in running), "")
        # If this host's own name has events, a name with another domain is another host.
        other = self._has_own_events and "." in name and "." in self._host
        if not here and (not enough or (other and name.casefold() != self._host.casefold())):
            return
        with self._lock:
            # A slow check may have reported it meanwhile.
            if name in self._reported:
                return
            self._reported.add(name)
        self._store.add_similar_host(name, here)
        LOG.warning("%s", describe(name, self._host, here))


def is_similar(name: str, host: str) -> bool:
    """Return whether two names differ only by case, or by the domain of one."""
    name, host = name.casefold(), host.casefold()
    return name == host or name.partition(".")[0] == host.partition(".")[0]


def describe(name: str, host: str, instance_uuid: str) -> str:
    """Return what the operator should do about events with a similar name.

    :param instance_uuid: an instance of that host that runs here; empty if none is known.
    """
    text = f"Nova's events name host {shown(name)}, but [DEFAULT] host is {shown(host)}"
    if instance_uuid:
        return (
            f"{text}. Instance {instance_uuid} of host {shown(name)} runs here: set [DEFAULT] "
            f"host to {shown(name)}, or use the same name in nova.conf"
        )
    return (
        f"{text}. If both names mean this host, set [DEFAULT] host to {shown(name)}: names are "
        "compared exactly, and events of other hosts are ignored"
    )
