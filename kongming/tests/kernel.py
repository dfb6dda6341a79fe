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
"""A kernel to look at: the files of /proc and of the control groups of one guest."""

from collections.abc import Sequence
from pathlib import Path

from kongming.hypervisor.cgroup import Groups, find
from kongming.hypervisor.observer import Observer
from kongming.hypervisor.process import QemuProcess
from kongming.hypervisor.visibility import Visibility

UUID = "5f0c3b52-6a0e-4c6e-9a5f-0d6a4f0b8c11"
PID = 700
#: The threads of a guest of two vCPUs and one iothread: id → name.
THREADS = {
    PID: "qemu-system-x86",
    701: "qemu-system-x86",
    702: "IO iothread1",
    703: "IO mon_iothread",
    704: "CPU 0/KVM",
    705: "CPU 1/KVM",
}
GROUPS = {"emulator": (PID, 701, 703), "iothread1": (702,), "vcpu0": (704,), "vcpu1": (705,)}
ABOVE = {
    1: ("machine", "qemu-1-vm.libvirt-qemu"),
    2: ("machine.slice", "machine-qemu\\x2d1\\x2dvm.scope", "libvirt"),
}


class Kernel:
    """A kernel with one guest, below a folder.

    :param version: of the control groups: 1 (cpu and cpuset apart), 2, or None for none.
    :param controllers: those that the guest's groups have.
    """

    def __init__(
        self, root: Path, version: int | None, controllers: Sequence[str] = ("cpu", "cpuset")
    ) -> None:
        self.proc, self.cgroup = root / "proc", root / "cgroup"
        self.version = version
        self._controllers = controllers
        for thread, name in THREADS.items():
            self.thread(thread, name)
        lines = ["9:name=systemd:/system.slice/libvirtd.service"]
        if version == 1:
            path = "/".join(("", *ABOVE[1], "emulator"))
            lines += [f"{number}:{name}:{path}" for number, name in enumerate(controllers, 2)]
            lines.append("0::/system.slice/libvirtd.service")
        elif version == 2:
            lines = ["0::" + "/".join(("", *ABOVE[2], "emulator"))]
        (self.proc / f"{PID}/cgroup").write_text("\n".join(lines) + "\n")
        if version is not None:
            self._make_groups()

    def thread(
        self, thread: int, name: str, cpus: str = "0-3", nodes: str = "0-1", group: str = ""
    ) -> None:
        """Make a thread of QEMU's, or one of the kernel's that works for it."""
        for folder in (self.proc / str(thread), self.proc / f"{PID}/task/{thread}"):
            if name.startswith("vhost-") and folder.parent.name == "task":
                continue
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "status").write_text(
                f"Name:\t{name}\nState:\tS (sleeping)\nCpus_allowed_list:\t{cpus}\n"
                f"Mems_allowed_list:\t{nodes}\n"
            )
        if group:
            for folder in self.folders(group):
                tasks = folder / self._tasks
                tasks.write_text(f"{tasks.read_text()}{thread}\n")

    def quota(self, vcpu: int, quota_us: int, period_us: int = 100_000) -> None:
        """Set the quota of a vCPU, -1 for none, behind libvirt's back."""
        for folder in self.folders(f"vcpu{vcpu}"):
            if self.version == 1:
                (folder / "cpu.cfs_quota_us").write_text(f"{quota_us}\n")
                (folder / "cpu.cfs_period_us").write_text(f"{period_us}\n")
            else:
                written = "max" if quota_us < 0 else quota_us
                (folder / "cpu.max").write_text(f"{written} {period_us}\n")

    def cpus(self, above: int, cpus: str) -> Path:
        """Set the CPUs of the domain's group (0) or of one above it (-1, …)."""
        names = self._above
        folder = self._root("cpuset").joinpath(*names[: len(names) + above])
        for name in ("cpuset.cpus", "cpuset.cpus.effective"):
            (folder / name).write_text(f"{cpus}\n")
        return folder

    def groups(self) -> Groups | None:
        return find(PID, proc=self.proc, cgroup=self.cgroup)

    def observer(self) -> Observer:
        return Observer(UUID, QemuProcess(PID, self.proc), self.groups(), Visibility())

    def folders(self, group: str = "") -> list[Path]:
        """The folder of a group in each hierarchy."""
        names = [name for name in self._controllers if self.version == 1] or [""]
        return [self._root(name).joinpath(*self._above, group) for name in names]

    @property
    def _above(self) -> tuple[str, ...]:
        return ABOVE[self.version or 1]

    @property
    def _tasks(self) -> str:
        return "tasks" if self.version == 1 else "cgroup.threads"

    def _root(self, controller: str) -> Path:
        return self.cgroup / controller if self.version == 1 else self.cgroup

    def _make_groups(self) -> None:
        for group, threads in GROUPS.items():
            for folder in self.folders(group):
                folder.mkdir(parents=True)
                (folder / self._tasks).write_text("".join(f"{each}\n" for each in threads))
                if self.version == 2 and "cpuset" in self._controllers:
                    (folder / "cpuset.cpus").write_text("\n")
                if self.version == 2 and "cpu" in self._controllers:
                    (folder / "cpu.max").write_text("max 100000\n")
        if "cpu" in self._controllers:
            for vcpu in (0, 1):
                self.quota(vcpu, -1)
        if "cpuset" in self._controllers:
            for above in range(-len(self._above) + 1, 1):
                self.cpus(above, "0-3")
