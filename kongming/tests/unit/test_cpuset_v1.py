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

"""Widening control groups of version 1 after a CPU was offline."""

import pytest

from kongming import exception
from kongming.cpuset import CpuSet
from kongming.hypervisor import cpuset_v1


@pytest.fixture
def widen(tmp_path):
    process = tmp_path / "proc/7"
    process.mkdir(parents=True)
    (process / "cgroup").write_text(
        "5:cpu,cpuacct:/machine/qemu-1/emulator\n4:cpuset:/machine/qemu-1/emulator\n0::/\n"
    )
    for group, cpus in {"": "0-7", "machine": "0-6", "machine/qemu-1": "", ".../x": "3"}.items():
        folder = tmp_path / "cpuset" / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cpuset.cpus").write_text(f"{cpus}\n")
    emulator = tmp_path / "cpuset/machine/qemu-1/emulator"
    emulator.mkdir()
    (emulator / "cpuset.cpus").write_text("0\n")

    def widen(cpus):
        return cpuset_v1.widen(7, CpuSet(cpus), proc=tmp_path / "proc", cgroup=tmp_path)

    return widen


def test_all_groups_above_get_what_they_lack(widen, tmp_path):
    cpuset = tmp_path / "cpuset"
    assert widen([6, 7])
    assert (cpuset / "machine/cpuset.cpus").read_text() == "0-7"
    assert (cpuset / "machine/qemu-1/cpuset.cpus").read_text() == "6-7"
    assert (cpuset / "machine/qemu-1/emulator/cpuset.cpus").read_text() == "0\n"
    assert (cpuset / "cpuset.cpus").read_text() == "0-7\n"
    assert not widen([6, 7])


def test_threads_that_were_moved_to_the_group_above(widen, tmp_path):
    (tmp_path / "proc/7/cgroup").write_text("4:cpuset:/machine/qemu-1\n")
    assert widen([7])
    assert (tmp_path / "cpuset/machine/qemu-1/cpuset.cpus").read_text() == "7"


def test_what_may_not_be_written_is_said_with_what_to_write(widen, tmp_path, monkeypatch):
    def refuse(self, text):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.write_text", refuse)
    with pytest.raises(exception.Failed, match=r"machine/cpuset.cpus .*write 0-7 to it as root"):
        widen([7])
