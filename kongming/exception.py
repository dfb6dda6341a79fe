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

"""Kongming's errors: each has a stable reason code and says what to do next.

The codes are the same in logs, metrics, the command line and the API.
"""

from __future__ import annotations

from datetime import UTC, datetime
import threading
from typing import ClassVar


class KongmingError(Exception):
    """The base of all our errors.

    ``reason`` is the stable code; the message is for the operator.
    """

    reason: ClassVar[str] = "internal_error"

    @property
    def for_clients(self) -> str:
        """The message without what only operators are told."""
        return str(self)


class Refused(KongmingError):
    """What was asked is not going to be done; the guest stays as it is.

    A refusal is an answer, not a fault: trying again changes nothing until
    the request, the guest or the host has changed.
    """

    reason = "refused"


class RequestInvalid(Refused):
    """The request can't be read."""

    reason = "request_invalid"


class StoredInvalid(Refused):
    """What is kept of a request is not understood by this version."""

    reason = "stored_invalid"


class RequestKeyUnknown(Refused):
    """The metadata has a ``kongming-`` key that means nothing to us."""

    reason = "request_key_unknown"


class CpuUnknown(Refused):
    """A CPU was asked for that the host does not have."""

    reason = "cpu_unknown"


class CpuOffline(Refused):
    """A CPU was asked for that is offline now."""

    reason = "cpu_offline"


class CpuNotInSlice(Refused):
    """A CPU was asked for that a control group above the guest's lacks."""

    reason = "cpu_not_in_slice"


class CpuNotAllowed(Refused):
    """A CPU was asked for that the operator does not give to Kongming."""

    reason = "cpu_not_allowed"


class CpuReserved(Refused):
    """A CPU was asked for that the operator keeps for the host."""

    reason = "cpu_reserved"


class CpuDedicated(Refused):
    """A CPU was asked for that Nova gives to guests with dedicated CPUs."""

    reason = "cpu_dedicated"


class NodeUnknown(Refused):
    """A NUMA node was asked for that the host lacks, or that has no memory."""

    reason = "node_unknown"


class NodeNotAllowed(Refused):
    """A NUMA node was asked for that the operator does not give to Kongming."""

    reason = "node_not_allowed"


class ProjectNotAllowed(Refused):
    """The instance belongs to a project that may not ask for anything."""

    reason = "project_not_allowed"


class Overlap(Refused):
    """A CPU was asked for that another guest is pinned to."""

    reason = "overlap"


class SmtSibling(Refused):
    """A CPU was asked for whose core another guest is pinned to, on another CPU of it."""

    reason = "smt_sibling"


class VcpuUnknown(Refused):
    """A vCPU was named that the guest does not have."""

    reason = "vcpu_unknown"


class IothreadUnknown(Refused):
    """An iothread was named that the guest does not have."""

    reason = "iothread_unknown"


class SharesOutOfRange(Refused):
    """The kernel of this host would not take this weight."""

    reason = "shares_out_of_range"


class SharesUnsupported(Refused):
    """libvirt does not control the CPU time of this guest."""

    reason = "shares_unsupported"


class QuotaUnsupported(Refused):
    """libvirt has no control group for each vCPU of this guest to limit."""

    reason = "quota_unsupported"


class MemoryFixed(Refused):
    """The guest's memory was bound when it started, in a mode that stays."""

    reason = "memory_fixed"


class NotNova(Refused):
    """The libvirt domain was not made by Nova."""

    reason = "not_nova"


class NovaOwned(Refused):
    """Nova itself decides where this guest runs."""

    reason = "nova_owned"


class OutsideGrant(Refused):
    """A thread of a guest with a NUMA topology is to run where Nova did not let it."""

    reason = "outside_grant"


class DedicatedCpus(Refused):
    """A guest's dedicated CPUs are not permuted as a whole."""

    reason = "dedicated_cpus"


class AcrossCells(Refused):
    """A vCPU is to run on a dedicated CPU of another NUMA cell of its guest."""

    reason = "across_cells"


class RealtimeCpu(Refused):
    """The emulator or an iothread is to run on the CPU of a real-time vCPU."""

    reason = "realtime_cpu"


class NumaMemory(Refused):
    """The memory of a guest with a NUMA topology is to move."""

    reason = "numa_memory"


class MemoryUnsupported(Refused):
    """libvirt does not control which NUMA nodes the memory of this guest is on."""

    reason = "memory_unsupported"


class Unsupported(Refused):
    """libvirt can't do what a step needs, for this guest on this host."""

    reason = "unsupported"


class LibvirtForbids(Refused):
    """libvirt does not let this service do what a step needs: read-only, or access control."""

    reason = "libvirt_forbids"


class PinningUnsupported(Refused):
    """libvirt has no thread for each vCPU of this guest to pin."""

    reason = "pinning_unsupported"


class Drifted(KongmingError):
    """The guest does not have what is wanted, and can't have it now."""

    reason = "drifted"


class Repinned(Drifted):
    """Somebody else has changed the guest; it was corrected."""

    reason = "repinned"


class CpuWentOffline(Drifted):
    """A CPU that is wanted went offline: it is pinned again when it is back."""

    reason = "cpu_went_offline"


class SliceNarrowed(Drifted):
    """A control group above the guest's was taken a CPU that the guest was given."""

    reason = "cpu_not_in_slice"


class Failed(KongmingError):
    """It should have worked and did not; it will be tried again."""

    reason = "failed"


class StepFailed(Failed):
    """libvirt refused a step; the steps before it were undone."""

    reason = "step_failed"


class NotVerified(Failed):
    """libvirt agreed to every step, but the threads run elsewhere."""

    reason = "not_verified"


class GuestHung(Failed):
    """A call that concerns the guest does not return."""

    reason = "guest_hung"

    @classmethod
    def since(cls, what: str, moment: float) -> GuestHung:
        """Make the error.

        :param what: what hangs, as a sentence begins with it.
        :param moment: since when, in seconds since the epoch.
        """
        written = datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return cls(f"{what} since {written}: check the guest's storage and QEMU's log")


class GuestBusy(KongmingError):
    """A job of libvirt's keeps the guest; it is placed when that has ended."""

    reason = "guest_busy"


class GuestAbsent(KongmingError):
    """There is no running domain to work on now."""

    reason = "guest_absent"


class DomainOff(GuestAbsent):
    """The domain is defined, and does not run."""


class DomainGone(GuestAbsent):
    """There is no domain at all.

    :ivar migrated: whether libvirt has migrated it to another host.
    """

    def __init__(self, message: str, *, migrated: bool = False) -> None:
        super().__init__(message)
        self.migrated = migrated


class ClaimedElsewhere(KongmingError):
    """The guest runs here, though Nova says that the instance is not on this host."""

    reason = "claimed_elsewhere"


class HypervisorUnavailable(KongmingError):
    """libvirt does not answer."""

    reason = "hypervisor_unavailable"


class HypervisorBusy(HypervisorUnavailable):
    """libvirt gives no further connection, though the one that hears its events stands."""


class Outage:
    """A time in which something can't be used: many notice, one tells."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told = False

    def is_news(self) -> bool:
        """Tell whether nobody has told the operator yet; whoever asks does it."""
        with self._lock:
            news, self._told = not self._told, True
        return news


class StoreUnavailable(KongmingError):
    """What is wanted can't be read from or written to the state path.

    :ivar outage: what all errors have in common until the store works again.
    """

    reason = "store_unavailable"

    def __init__(self, message: str, outage: Outage | None = None) -> None:
        super().__init__(message)
        self.outage = outage or Outage()


class NovaUnavailable(KongmingError):
    """Nova's API gives no usable answer now.

    :ivar retry_after: for how many seconds it asked not to be asked; 0 if it
        did not.
    """

    reason = "nova_unavailable"

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NovaDenied(NovaUnavailable):
    """Nova, or Keystone, does not let the service user ask."""

    reason = "nova_denied"


class NovaAmbiguous(NovaUnavailable):
    """Keystone's catalogue names several Novas, or Nova names this host otherwise."""

    reason = "nova_ambiguous"


class EventMalformed(KongmingError):
    """A notification can't be understood."""

    reason = "event_malformed"


class MessageRefused(KongmingError):
    """What another service sent over the bus is not taken."""

    reason = "message_refused"


class MessageInvalid(MessageRefused):
    """A message, or a part of it, is not what it should be."""

    reason = "message_invalid"


class SignatureInvalid(MessageRefused):
    """Nothing proves who sent a message: it is not signed, or not rightly."""

    reason = "signature_invalid"


class ConfigInvalid(KongmingError):
    """An option, or a file that it names, can't be used as it is."""

    reason = "config_invalid"


class DatabaseUnavailable(KongmingError):
    """The database does not answer, or is not what this version works with.

    The driver's words are for operators.
    """

    reason = "database_unavailable"

    def __init__(self, message: str, for_clients: str = "") -> None:
        super().__init__(message)
        self._for_clients = for_clients or message

    @property
    def for_clients(self) -> str:
        return self._for_clients


class ThreadsBusy(KongmingError):
    """All threads of the server but one wait for others."""

    reason = "busy"


class DatabaseFault(KongmingError):
    """The database refuses a statement as such: a fault of Kongming."""

    reason = "internal_error"


class Conflict(KongmingError):
    """What was to be changed is not as the caller believes it to be."""

    reason = "conflict"


class GenerationConflict(Conflict):
    """Somebody else has changed it since the caller read it."""

    reason = "generation_conflict"


class MapConflict(Conflict):
    """An instance belongs to another allocation map."""

    reason = "map_conflict"


class Unknown(KongmingError):
    """There is nothing of that name."""

    reason = "unknown"


class AllocationUnknown(Unknown):
    """Nothing is asked for that instance."""

    reason = "allocation_unknown"


class MapUnknown(Unknown):
    """There is no allocation map of that name."""

    reason = "map_unknown"


class HostUnknown(Unknown):
    """No executor of that host was ever heard of."""

    reason = "host_unknown"


class Silent(KongmingError):
    """Who was asked over the message bus does not answer.

    :ivar others_too: whether nobody else could be asked, either.
    """

    reason = "unresponsive"
    others_too = True


class HostSilent(Silent):
    """The executor of a host does not answer."""

    reason = "host_silent"


class ConductorSilent(Silent):
    """No conductor answers."""

    reason = "conductor_silent"
