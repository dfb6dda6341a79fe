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

"""libvirt's domain as a class, and a Guest of it."""

import libvirt

from kongming.allocation.cpuset import CpuSet
from kongming.hypervisor.calls import Calls
from kongming.hypervisor.guest import Guest
from kongming.hypervisor.host import Host
from kongming.hypervisor.lost_cpus import LostCpus
from kongming.hypervisor.observer import Observer
from kongming.hypervisor.own_changes import OwnChanges
from kongming.hypervisor.visibility import Visibility

UUID = "5f0c3b52-6a0e-4c6e-9a5f-0d6a4f0b8c11"
ALL = CpuSet(range(4))
XML = """
<domain type='kvm' id='3'><memory unit='KiB'>2097152</memory><vcpu>2</vcpu>
<iothreads>1</iothreads>
<cputune><vcpupin vcpu='0' cpuset='1'/><iothreadpin iothread='1' cpuset='2'/></cputune>
</domain>
"""


class Domain:
    """libvirt's domain: each call answers, raises, or is noted.

    :ivar calls: the names of the calls, in their order.
    """

    def __init__(self, **answers):
        self.calls = []
        self.alive = True
        self._answers = {
            "UUIDString": UUID,
            "ID": 3,
            "XMLDesc": XML,
            "isActive": 1,
            "controlInfo": [0, 0, 0],
            "jobInfo": [0] * 12,
            "state": [libvirt.VIR_DOMAIN_RUNNING, 0],
            "vcpus": ([(0, 1, 0, 0), (1, 1, 0, 0)], [(True,) * 4, (False, True) * 2]),
            "schedulerParametersFlags": {
                "cpu_shares": 1024,
                "vcpu_quota": -1,
                "vcpu_period": 100_000,
            },
            "numaParameters": {"numa_nodeset": "1"},
            "getType": "QEMU",
        } | answers

    def __getattr__(self, name):
        def call(*_arguments):
            self.calls.append(name)
            answer = self._answers.get(name)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call

    def become(self, **answers):
        self._answers |= answers

    def connect(self):
        return self

    def isAlive(self):  # noqa: N802
        return self.alive


def guest_of(domain, kernel=None, host=None):
    return Guest(
        domain,
        host or Host(ALL, ALL, CpuSet([0, 1])),
        Observer(UUID, None, None, Visibility()) if kernel is None else kernel.observer(),
        own_changes=OwnChanges(),
        lost_cpus=LostCpus(),
        calls=Calls(),
    )
