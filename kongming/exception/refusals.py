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
    """This version can't read the stored request."""

    reason = "stored_invalid"


class RequestKeyUnknown(Refused):
    """The metadata has an unknown ``kongming-`` key."""

    reason = "request_key_unknown"


class CpuUnknown(Refused):
    """The host lacks a requested CPU."""

    reason = "cpu_unknown"


class CpuOffline(Refused):
    """A requested CPU is offline."""

    reason = "cpu_offline"


class CpuNotInSlice(Refused):
    """A control group above the guest's lacks a requested CPU."""

    reason = "cpu_not_in_slice"


class CpuNotAllowed(Refused):
    """The operator does not allow a requested CPU."""

    reason = "cpu_not_allowed"


class CpuReserved(Refused):
    """The operator reserves a requested CPU for the host."""

    reason = "cpu_reserved"


class CpuDedicated(Refused):
    """Nova gives a requested CPU to guests with dedicated CPUs."""

    reason = "cpu_dedicated"


class NodeUnknown(Refused):
    """The host lacks a requested NUMA node, or the node has no memory."""

    reason = "node_unknown"


class NodeNotAllowed(Refused):
    """The operator does not allow a requested NUMA node."""

    reason = "node_not_allowed"


class ProjectNotAllowed(Refused):
    """The operator does not allow requests of the instance's project."""

    reason = "project_not_allowed"


class Overlap(Refused):
    """Another guest is pinned to a requested CPU."""

    reason = "overlap"


class SmtSibling(Refused):
    """Another guest is pinned to another CPU of a requested CPU's core."""

    reason = "smt_sibling"


class VcpuUnknown(Refused):
    """The guest lacks a requested vCPU."""

    reason = "vcpu_unknown"


class IothreadUnknown(Refused):
    """The guest lacks a requested iothread."""

    reason = "iothread_unknown"


class SharesOutOfRange(Refused):
    """The kernel of this host does not accept the weight."""

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
    """The libvirt domain was not created by Nova."""

    reason = "not_nova"


class NovaOwned(Refused):
    """Nova itself decides where this guest runs."""

    reason = "nova_owned"


class OutsideGrant(Refused):
    """A thread of a guest with a NUMA topology would leave Nova's grant."""

    reason = "outside_grant"


class DedicatedCpus(Refused):
    """A guest's dedicated CPUs are not permuted as a whole."""

    reason = "dedicated_cpus"


class AcrossCells(Refused):
    """A vCPU would run on a dedicated CPU of another NUMA cell of its guest."""

    reason = "across_cells"


class RealtimeCpu(Refused):
    """The emulator or an iothread would run on the CPU of a real-time vCPU."""

    reason = "realtime_cpu"


class NumaMemory(Refused):
    """The memory of a guest with a NUMA topology would move."""

    reason = "numa_memory"


class MemoryUnsupported(Refused):
    """libvirt does not control the NUMA nodes of this guest's memory."""

    reason = "memory_unsupported"


class Unsupported(Refused):
    """libvirt does not support a step for this guest on this host."""

    reason = "unsupported"


class LibvirtForbids(Refused):
    """libvirt denies a step to this service: read-only connection, or access control."""

    reason = "libvirt_forbids"


class PinningUnsupported(Refused):
    """libvirt has no thread for each vCPU of this guest to pin."""

    reason = "pinning_unsupported"
