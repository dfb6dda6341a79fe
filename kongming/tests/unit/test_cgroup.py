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
"""The control groups of a guest, of either version."""

import pytest

from kongming import exception
from kongming.allocation import target
from kongming.allocation.cpuset import CpuSet
from kongming.allocation.target import NO_QUOTA, Quota
from kongming.hypervisor import cgroup
from kongming.tests.kernel import ABOVE, Kernel

both = pytest.mark.parametrize("version", [1, 2])


@both
def test_the_threads_of_each_group_are_listed(tmp_path, version):
    groups = Kernel(tmp_path, version).groups()
    assert groups.version == version
    assert groups.tasks(target.EMULATOR) == [700, 701, 703]
    assert groups.tasks(target.iothread(1)) == [702]
    assert groups.tasks(target.vcpu(1)) == [705]
    assert groups.tasks(target.vcpu(2)) == []


@both
def test_the_quota_of_every_vcpu_is_read(tmp_path, version):
    kernel = Kernel(tmp_path, version)
    kernel.quota(1, 25_000, 50_000)
    assert kernel.groups().vcpu_quotas() == {0: NO_QUOTA, 1: Quota(25_000, 50_000)}


@both
def test_the_cpus_of_all_parent_groups_are_read_outermost_first(tmp_path, version):
    kernel = Kernel(tmp_path, version)
    folder = kernel.cpus(-len(ABOVE[version]) + 1, "0-1")
    above = kernel.groups().cpus_above()
    assert next(iter(above)) == folder
    assert [*above][-1].name == ABOVE[version][-1]
    assert [str(cpus) for cpus in above.values()] == ["0-1"] + ["0-3"] * (len(above) - 1)
    assert len(above) == len(ABOVE[version])


@both
@pytest.mark.parametrize(
    ("controllers", "cpu", "cpuset"), [(("cpuset",), False, True), (("cpu",), True, False)]
)
def test_a_controller_that_libvirt_does_not_use_is_missing(
    tmp_path, version, controllers, cpu, cpuset
):
    groups = Kernel(tmp_path, version, controllers).groups()
    assert (groups.has_cpu, groups.has_cpuset) == (cpu, cpuset)
    assert groups.tasks(target.vcpu(0)) == [704]
    assert bool(groups.vcpu_quotas()) is cpu
    assert bool(groups.cpus_above()) is cpuset


def test_a_guest_without_groups_of_its_own_has_none(tmp_path):
    assert Kernel(tmp_path, None).groups() is None


@both
def test_groups_that_are_not_mounted_differ_from_no_groups(tmp_path, version):
    kernel = Kernel(tmp_path, version)
    kernel.cgroup.rename(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="not mounted here") as raised:
        kernel.groups()
    assert raised.value.filename == str(kernel.cgroup)


def test_groups_outside_of_a_namespace_are_not_visible(tmp_path):
    kernel = Kernel(tmp_path, 2)
    path = kernel.proc / "700/cgroup"
    path.write_text(path.read_text().replace("0::/", "0::/../"))
    with pytest.raises(OSError, match="not mounted here"):
        kernel.groups()


@pytest.mark.parametrize("text", ["0\n", "::", "\x00"])
def test_a_list_of_groups_that_is_odd_is_named(tmp_path, text):
    kernel = Kernel(tmp_path, 2)
    path = kernel.proc / "700/cgroup"
    path.write_text(text)
    if text == "::":
        assert kernel.groups() is None
        return
    with pytest.raises(OSError, match="what a kernel writes") as raised:
        kernel.groups()
    assert raised.value.filename == str(path)


def test_a_main_thread_that_lost_its_group_is_found_by_the_parent_group(tmp_path):
    kernel = Kernel(tmp_path, 1)
    path = kernel.proc / "700/cgroup"
    path.write_text(path.read_text().replace("/emulator", ""))
    assert kernel.groups().tasks(target.vcpu(0)) == [704]


def test_hierarchies_that_are_mounted_together_are_found(tmp_path):
    kernel = Kernel(tmp_path, 1)
    (kernel.cgroup / "cpu").rename(kernel.cgroup / "cpu,cpuacct")
    path = kernel.proc / "700/cgroup"
    path.write_text(path.read_text().replace(":cpu:", ":cpu,cpuacct:"))
    assert kernel.groups().has_cpu
    (kernel.cgroup / "cpu,cpuacct").rename(kernel.cgroup / "cpu")
    assert kernel.groups().has_cpu


def test_an_empty_group_has_no_cpus(tmp_path):
    kernel = Kernel(tmp_path, 1)
    kernel.cpus(0, "")
    assert [*kernel.groups().cpus_above().values()] == [CpuSet(range(4)), CpuSet()]


def test_lost_cpus_are_added_to_those_that_a_group_has(tmp_path):
    folder = Kernel(tmp_path, 1).cpus(0, "0-1")
    cgroup.restore(folder, CpuSet([3]))
    assert (folder / "cpuset.cpus").read_text() == "0-1,3"


def test_a_group_that_can_not_be_written_is_reported_with_the_value_to_write(
    tmp_path, monkeypatch
):
    folder = Kernel(tmp_path, 1).cpus(0, "0-2")

    def refuse(self, text):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.write_text", refuse)
    with pytest.raises(
        exception.Failed, match=r"libvirt-qemu/cpuset.cpus .*write 0-3 to that file as"
    ):
        cgroup.restore(folder, CpuSet([3]))
