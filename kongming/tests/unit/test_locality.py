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

"""Whether libvirt's host is this machine is checked, whatever the URI is."""

import libvirt
import pytest

from kongming.hypervisor import locality
from kongming.hypervisor.kernel_files import KernelFiles
from kongming.tests.libvirt_errors import error

TICK = 10_000_000
#: user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice
STAT = "cpu  10 5 20 900 7 3 4 0 0 0\ncpu0 1 1 1 1 1 1 1 0 0 0\n"
SAME = {"user": 15 * TICK, "kernel": 27 * TICK, "idle": 0, "iowait": 0}

LOCAL = "qemu:///system"
REMOTE = "qemu+tcp://compute-7/system"


class Connection:
    def __init__(self, answer=SAME, driver="QEMU", alive=True):
        self._answer = answer
        self._alive = alive
        self._driver = driver

    def getType(self):  # noqa: N802
        return self._driver

    def isAlive(self):  # noqa: N802
        return self._alive

    def getCPUStats(self, cpu):  # noqa: N802
        assert cpu == -1
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


@pytest.fixture
def files(tmp_path):
    (tmp_path / "stat").write_text(STAT)
    return KernelFiles(proc=tmp_path)


def locate(files, uri=LOCAL, **connection):
    return locality.locate(Connection(**connection), uri, files)


@pytest.mark.parametrize(
    "uri", [LOCAL, REMOTE, "qemu+tcp://127.0.0.1/system", "qemu+ssh:///system"]
)
def test_a_libvirt_that_has_counted_the_same_cpu_time_is_local(files, uri):
    found = locate(files, uri)
    assert (found.here, found.certain, found.has_processes) == (True, True, True)
    assert str(found) == "on this machine (libvirt reports the same CPU time)"


@pytest.mark.parametrize("uri", [LOCAL, REMOTE])
@pytest.mark.parametrize(
    "other",
    [
        {"user": 14 * TICK},
        {"user": 16 * TICK},
        {"kernel": 26 * TICK},
        {"kernel": 28 * TICK},
        {"user": 0, "kernel": 0},
    ],
)
def test_a_libvirt_that_has_counted_other_cpu_time_is_remote(files, uri, other):
    found = locate(files, uri, answer=SAME | other)
    assert (found.here, found.certain) == (False, True)
    assert str(found) == "on another machine (libvirt reports another CPU time)"


def test_cpu_time_advances_during_the_query_of_libvirt(files):
    class Slow(Connection):
        def getCPUStats(self, cpu):  # noqa: N802
            (files.proc / "stat").write_text(STAT.replace("10 5", "12 5").replace("20", "21"))
            return super().getCPUStats(cpu)

    for user, kernel, here in ((17, 28, True), (18, 28, False), (17, 29, False), (15, 27, True)):
        (files.proc / "stat").write_text(STAT)
        answer = {"user": user * TICK + 1, "kernel": kernel * TICK + 1}
        assert locality.locate(Slow(answer), LOCAL, files).here is here


@pytest.mark.parametrize(("uri", "here"), [(LOCAL, True), (REMOTE, False)])
@pytest.mark.parametrize("text", [None, "", "cpu 1 2", "cpu a b c d e f g", "cpu0 1 2 3 4 5 6 7"])
def test_an_unreadable_cpu_time_proves_no_locality(files, uri, here, text):
    (files.proc / "stat").unlink()
    if text is not None:
        (files.proc / "stat").write_text(text)
    found = locate(files, uri)
    assert (found.here, found.certain) == (here, False)
    assert str(found).startswith("assumed to be on ")
    assert "no guest has been found yet" in str(found)


def test_a_substitute_for_the_kernels_file_proves_no_locality(files):
    # It is of another device than the folder that it is in.
    (files.proc / "stat").unlink()
    (files.proc / "stat").symlink_to("/proc/stat")
    found = locate(files, answer=SAME | {"user": 0})
    assert (found.here, found.certain) == (True, False)
    assert "as with lxcfs" in found.why


def test_a_libvirt_that_does_not_report_cpu_time_proves_no_locality(files):
    for code in (libvirt.VIR_ERR_NO_SUPPORT, libvirt.VIR_ERR_ACCESS_DENIED):
        found = locate(files, REMOTE, answer=error(code))
        assert (found.here, found.certain) == (False, False)
    assert locate(files, answer={"idle": 5}).certain is False
    with pytest.raises(libvirt.libvirtError):
        locate(files, answer=error(libvirt.VIR_ERR_RPC), alive=False)


def test_a_driver_in_this_process_is_local_and_one_without_processes_remote(files):
    assert locate(files, "qemu:///embed?root=/x", answer={}).here
    found = locate(files, "test:///default", driver="TEST")
    assert (found.here, found.has_processes) == (False, False)
    assert str(found) == "on no machine (libvirt's driver TEST has no processes)"
