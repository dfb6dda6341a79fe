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

"""The guard: what may not be done, whoever asks. It can only refuse.

Functions without side effects; each raises a refusal with its reason.
"""

from kongming import exception
from kongming.cpuset import CpuSet
from kongming.hypervisor.definition import Definition
from kongming.hypervisor.host import HostCpus


def check_guest(definition: Definition) -> None:
    """Refuse a guest that isn't ours to place.

    :raises NotNova: if Nova did not make the domain.
    :raises NovaOwned: if Nova itself decides where it runs.
    """
    if not definition.nova:
        raise exception.NotNova(
            "the domain was not made by Nova (it has no nova:instance metadata); Kongming "
            "leaves it alone"
        )
    if definition.nova_owns is not None:
        raise exception.NovaOwned(
            f"Nova decides the placement: {definition.nova_owns}; remove the request, or use a "
            "flavor and an image without NUMA topology, huge pages and CPU policy"
        )


def check_cpus(asked: CpuSet, host: HostCpus) -> None:
    """Refuse CPUs that the host can't run anything on.

    libvirt drops a CPU that the host lacks without a word, and the kernel
    one that is offline, as long as any other is left.

    :raises CpuUnknown: if the host has no such CPU.
    :raises CpuOffline: if a CPU is offline now.
    """
    if unknown := CpuSet(cpu for cpu in asked if cpu >= host.count):
        raise exception.CpuUnknown(
            f"CPU {unknown} does not exist: this host's CPUs are 0 to {host.count - 1}"
        )
    if offline := CpuSet(asked - host.online):
        raise exception.CpuOffline(
            f"CPU {offline} is offline: online are {host.online}; ask for those, or bring it "
            "online"
        )
