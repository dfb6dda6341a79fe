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

"""Other names of this host: events that would be its own if names were not compared exactly.

Nova's name of a host and ours must be equal. That they are not is seen by hosts whose name
differs by case, or by being given with its domain, and is told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
import logging
import threading

from kongming import exception
from kongming.allocation.cpuset import shown
from kongming.notification.event import InstanceEvent
from kongming.notification.event_store import Memory

LOG = logging.getLogger(__name__)

# So many events of such a name are told of; of fewer only if a guest of theirs runs here.
_LOOKS = (5, 10, 20)
# Names that are remembered, and instances of each.
_NAMES_MAX = 10_000
_INSTANCES_MAX = 64


def _in_a_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="lookalikes", daemon=True).start()


class Lookalikes:
    """Counts the events of hosts that look like this one, and tells of each once.

    :param running: gives the instances that run on this host; raises HypervisorUnavailable.
    :param memory: keeps what was found, for kongming-status.
    :param start: does what may take its time, while the next event is looked at.
    """

    def __init__(
        self,
        host: str,
        running: Callable[[], list[str]],
        memory: Memory,
        start: Callable[[Callable[[], None]], None] = _in_a_thread,
    ) -> None:
        self._start = start
        self._host = host
        self._running = running
        self._memory = memory
        # Of each name how many events it had; None if it does not look like ours.
        self._names: dict[str, int | None] = {}
        self._instances: dict[str, dict[str, None]] = {}
        self._told: set[str] = set()
        self._own_heard = False
        self._lock = threading.Lock()

    def look(self, event: InstanceEvent) -> None:
        """Look at the host that an event names; may not block."""
        name = event.host
        if name is None:
            return
        try:
            events = self._names[name]
        except KeyError:
            events = self._meet(name)
        if events is not None:
            self._count(name, events + 1, event.instance_uuid)

    def _meet(self, name: str) -> int | None:
        if name == self._host and not self._own_heard:
            self._own_heard = True
            self._memory.forget_lookalikes()
        if len(self._names) >= _NAMES_MAX:
            self._names.clear()
            self._instances.clear()
        alike = 0 if name != self._host and looks_like(name, self._host) else None
        self._names[name] = alike
        return alike

    def _count(self, name: str, events: int, instance_uuid: str) -> None:
        self._names[name] = events
        instances = self._instances.setdefault(name, {})
        if len(instances) < _INSTANCES_MAX:
            instances[instance_uuid] = None
        if events in _LOOKS and name not in self._told:
            self._start(partial(self._tell, name, list(instances), events == _LOOKS[-1]))

    def _tell(self, name: str, instances: Sequence[str], enough: bool) -> None:
        """Tell of a name if one of its instances runs here, or enough events had it."""
        try:
            running = set(self._running())
        except exception.KongmingError as error:
            LOG.debug("The running guests of this host are unknown: %s", error)
            running = set()
        here = next((each for each in instances if each in running), "")
        # Where domains are told apart, and our name is heard, it is another host.
        other = self._own_heard and "." in name and "." in self._host
        if not here and (not enough or (other and name.casefold() != self._host.casefold())):
            return
        with self._lock:
            # A look that took its time may have told of it meanwhile.
            if name in self._told:
                return
            self._told.add(name)
        self._memory.keep_lookalike(name, here)
        LOG.warning("%s", describe(name, self._host, here))


def looks_like(name: str, host: str) -> bool:
    """Tell whether a name may be another spelling of a host's: by case, or with its domain."""
    name, host = name.casefold(), host.casefold()
    return name == host or name.partition(".")[0] == host.partition(".")[0]


def describe(name: str, host: str, instance_uuid: str) -> str:
    """Say what to do about events that name a host that looks like this one.

    :param instance_uuid: one of that host's instances that runs here; empty if none is known.
    """
    told = f"Nova's events name host {shown(name)}, but [DEFAULT] host is {shown(host)}"
    if instance_uuid:
        return (
            f"{told}. Instance {instance_uuid} of host {shown(name)} runs here: set [DEFAULT] "
            f"host to {shown(name)}, or use the same name in nova.conf"
        )
    return (
        f"{told}. If both names mean this host, set [DEFAULT] host to {shown(name)}: names are "
        "compared exactly, and events of other hosts are ignored"
    )
