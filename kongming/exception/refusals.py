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
"""Refusals: requests that are not carried out, by the rule that says so."""

from __future__ import annotations

from kongming.exception.base import Refused


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
