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

"""A libvirt that lists its domains."""

from contextlib import nullcontext

import libvirt

from kongming.allocation.target import EMULATOR
from kongming.hypervisor.hypervisor import Hypervisor
from kongming.hypervisor.kernel_files import KernelFiles
from kongming.tests.kernel import PID, THREADS, Kernel
from kongming.tests.libvirt_errors import error
from kongming.tests.unit.domains import UUID, XML, Domain


class Connection:
    """A libvirt with one domain, or none."""

    def __init__(self, domain=None):
        self.domain = domain

    def lookupByUUIDString(self, _uuid):  # noqa: N802
        if self.domain is None:
            raise error(libvirt.VIR_ERR_NO_DOMAIN)
        return self.domain

    def isAlive(self):  # noqa: N802
        return True

    def getInfo(self):  # noqa: N802
        return ["x86_64", 2048, 4, 2000, 1, 1, 4, 1]

    def getType(self):  # noqa: N802
        return "TEST"

    def getCPUMap(self):  # noqa: N802
        return 4, [True] * 4, 4

    def getCapabilities(self):  # noqa: N802
        return "<capabilities><host/></capabilities>"


class Qemu(Connection):
    """A libvirt of QEMU's driver, which has counted some CPU time.

    :param counted: in ticks.
    """

    def __init__(self, domain, counted=5):
        super().__init__(domain)
        self.counted = counted

    def getType(self):  # noqa: N802
        return "QEMU"

    def getFreeMemory(self):  # noqa: N802
        return 1 << 30

    def listAllDomains(self, _flags):  # noqa: N802
        return [self.domain] if self.domain else []

    def getCPUStats(self, _cpu):  # noqa: N802
        return dict.fromkeys(("user", "kernel"), self.counted * 10_000_000)


class Machine:
    """A machine with a guest, as the service finds it.

    :ivar uri: how libvirt is reached.
    """

    def __init__(self, root, uri="qemu+tcp://127.0.0.1/system", version=2, **options):
        self.kernel = Kernel(root, version, **options)
        self.proc = self.kernel.proc
        (self.proc / "stat").write_text("cpu 5 0 5 0 0 0 0 0\n")
        (self.proc / "self/ns").mkdir(parents=True)
        (self.proc / "self/ns/pid").symlink_to("pid:[4026531836]")
        (self.proc / "self/mounts").write_text("")
        for thread, name in THREADS.items():
            (self.proc / f"{PID}/task/{thread}/comm").write_text(f"{name}\n")
        self.appear()
        for name, text in {"cpu/present": "0-3", "cpu/online": "0-3"}.items():
            (root / "system" / name).parent.mkdir(parents=True, exist_ok=True)
            (root / "system" / name).write_text(f"{text}\n")
        xml = XML.replace("<vcpu>", f"<uuid>{UUID}</uuid><vcpu>")
        self.connection = Qemu(Domain(getType="QEMU", XMLDesc=xml))
        files = KernelFiles(system=root / "system", cgroup=self.kernel.cgroup, proc=self.proc)
        self.hypervisor = Hypervisor(uri, lambda: nullcontext(self.connection), files=files)

    def appear(self):
        (self.proc / f"{PID}/cmdline").write_text(f"qemu\0-uuid\0{UUID}\0")

    def vanish(self):
        (self.proc / f"{PID}/cmdline").unlink()

    def observe(self):
        """Observe the guest; return whether the kernel's values count, and what hides others."""
        with self.hypervisor.guest(UUID) as guest:
            found = guest.observe([EMULATOR])[EMULATOR].by_kernel
            assert found is guest.is_found
            return found, guest.hidden
