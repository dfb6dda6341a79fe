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

"""Which CPUs are isolated, and the findings about sets of them."""

from oslo_config import cfg
from oslo_upgradecheck.upgradecheck import Code
import pytest

from kongming.allocation import target
from kongming.allocation.cpuset import CpuSet
from kongming.host import isolated_sets
from kongming.host.rules import Rules
from kongming.hypervisor.isolation import isolated_cpus
from kongming.hypervisor.kernel_files import KernelFiles
from kongming.status import cpus as check_cpus
from kongming.status import finding

SYSTEM, CGROUP, V1 = "system/cpu", "cgroup", "cgroup/cpuset"
ISOLATED = CpuSet.parse("4-7")


@pytest.fixture
def isolated(tmp_path):
    """Write files, and return the CPUs that are isolated by them."""

    def isolated(**files):
        for path, text in files.items():
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{text}\n")
        files = KernelFiles(system=tmp_path / "system", cgroup=tmp_path / CGROUP)
        return str(isolated_cpus(files))

    return isolated


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({}, ""),
        ({f"{SYSTEM}/isolated": "", f"{SYSTEM}/nohz_full": "  (null)"}, ""),
        ({f"{SYSTEM}/isolated": "2-3"}, "2-3"),
        ({f"{SYSTEM}/isolated": "2-3", f"{SYSTEM}/nohz_full": "3-5"}, "2-5"),
        # Since Linux 6.8 one file lists all partitions.
        (
            {
                f"{SYSTEM}/isolated": "1",
                f"{CGROUP}/cpuset.cpus.isolated": "6",
                f"{CGROUP}/a/cpuset.cpus.partition": "isolated",
                f"{CGROUP}/a/cpuset.cpus.effective": "7",
            },
            "1,6",
        ),
        ({f"{CGROUP}/cpuset.cpus.isolated": ""}, ""),
        (
            {
                f"{CGROUP}/a/cpuset.cpus.partition": "isolated",
                f"{CGROUP}/a/cpuset.cpus.effective": "2-3",
                f"{CGROUP}/b/cpuset.cpus.partition": "root",
                f"{CGROUP}/b/cpuset.cpus.effective": "4",
                f"{CGROUP}/b/c/cpuset.cpus.partition": "isolated",
                f"{CGROUP}/b/c/cpuset.cpus.effective": "5",
                # A partition is only below another one.
                f"{CGROUP}/d/cpuset.cpus.partition": "member",
                f"{CGROUP}/d/e/cpuset.cpus.partition": "isolated",
                f"{CGROUP}/d/e/cpuset.cpus.effective": "6",
                f"{CGROUP}/f/cpuset.cpus.partition": "isolated invalid (Cpu list is empty)",
                f"{CGROUP}/f/cpuset.cpus.effective": "7",
                f"{CGROUP}/g/cpuset.cpus": "8",
            },
            "2-3,5",
        ),
        # Control groups v1: isolated is what no group has balanced.
        (
            {
                f"{SYSTEM}/online": "0-9",
                f"{V1}/cpuset.sched_load_balance": "0",
                f"{V1}/cpuset.effective_cpus": "0-9",
                f"{V1}/a/cpuset.sched_load_balance": "1",
                f"{V1}/a/cpuset.effective_cpus": "0-3",
                f"{V1}/b/cpuset.sched_load_balance": "0",
                f"{V1}/b/cpuset.effective_cpus": "4-9",
                f"{V1}/b/c/cpuset.sched_load_balance": "1",
                f"{V1}/b/c/cpuset.effective_cpus": "6",
                f"{V1}/b/d/cpuset.sched_load_balance": "0",
                f"{V1}/b/d/cpuset.effective_cpus": "7",
            },
            "4-5,7-9",
        ),
        (
            {
                f"{SYSTEM}/online": "0-9",
                f"{SYSTEM}/isolated": "8",
                f"{V1}/cpuset.sched_load_balance": "1",
                f"{V1}/a/cpuset.sched_load_balance": "0",
                f"{V1}/a/cpuset.effective_cpus": "4-9",
            },
            "8",
        ),
    ],
)
def test_cpus_are_isolated_by_the_boot_or_by_cpusets(isolated, files, cpus):
    assert isolated(**files) == cpus


def findings(requested):
    pins = isolated_sets.of_request({what: CpuSet.parse(text) for what, text in requested.items()})
    return isolated_sets.warnings(pins, ISOLATED)


@pytest.mark.parametrize(
    "requested",
    [
        {target.vcpu(0): "4", target.vcpu(1): "5"},
        # Two on one CPU are meant so.
        {target.vcpu(0): "4", target.vcpu(1): "4", target.EMULATOR: "5"},
        {target.vcpu(0): "0-3,8-9", target.EMULATOR: "0-1"},
    ],
)
def test_pins_to_single_cpus_or_to_other_cpus_have_no_finding(requested):
    assert findings(requested) == []


def test_one_cpu_for_each_vcpu_is_proposed():
    (found,) = findings({target.vcpu(n): "4-7" for n in range(3)})
    assert found == (
        "vCPU 0-2 on isolated CPUs (4-7): the kernel does not spread threads over isolated CPUs, "
        "several may share one; pin each to one CPU: 0:4;1:5;2:6"
    )


def test_a_partly_isolated_set_is_described_as_such():
    (found,) = findings({target.vcpu(0): "3-5"})
    assert found.startswith("vCPU 0 on CPUs of which 4-5 are isolated (3-5): ")
    assert found.endswith("pin each to one CPU: 0:3")


def test_too_few_cpus_lead_to_no_proposal():
    (found,) = findings({target.vcpu(n): "4-5" for n in range(3)})
    assert found.endswith("; request as many CPUs as vCPUs, or others")
    (found,) = findings({target.vcpu(n): "4-5" for n in range(2)})
    assert found.endswith(": 0:4;1:5")


def test_a_proposal_for_many_vcpus_shows_the_first_ones():
    many = {target.vcpu(n): "4-40" for n in range(16)}
    assert findings(many)[0].endswith(";14:18;15:19")
    many[target.vcpu(16)] = "4-40"
    assert findings(many)[0].endswith("one CPU: 0:4;1:5;...")


def test_each_set_is_described_and_other_threads_are_named():
    found = findings(
        {
            target.vcpu(0): "4-5",
            target.vcpu(1): "6-7",
            target.vcpu(2): "4-5",
            target.EMULATOR: "4-5",
            target.iothread(1): "4-5",
        }
    )
    assert [each.partition(" on isolated")[0] for each in found] == [
        "vCPU 0,2",
        "vCPU 1",
        "emulator and iothread 1",
    ]
    assert found[2].endswith("; request one CPU, or others")


def test_no_cpu_is_proposed_twice_or_that_another_vcpu_has():
    found = findings(
        {
            target.vcpu(0): "4",
            target.vcpu(1): "4-6",
            target.vcpu(2): "4-7",
            target.vcpu(3): "4-7",
            target.EMULATOR: "5",
        }
    )
    assert found[0].endswith("; pin each to one CPU: 1:5")
    assert found[1].endswith("; pin each to one CPU: 2:6;3:7")
    found = findings({target.vcpu(0): "4-5", target.vcpu(1): "4-6", target.vcpu(2): "5-6"})
    assert [each.rpartition("; ")[2] for each in found] == [
        "pin each to one CPU: 0:4",
        "pin each to one CPU: 1:5",
        "pin each to one CPU: 2:6",
    ]
    found = findings({target.vcpu(0): "4", target.vcpu(1): "4-5", target.vcpu(2): "4-5"})
    assert found[0].endswith("; request as many CPUs as vCPUs, or others")


def test_threads_besides_vcpus_are_described_only_if_their_set_holds_isolated_cpus():
    assert findings({target.EMULATOR: "2-3", target.iothread(1): "4", target.vcpu(0): "0-1"}) == []
    (found,) = findings({target.EMULATOR: "3-4"})
    assert found.startswith("emulator on CPUs of which 4 are isolated (3-4): ")


@pytest.mark.parametrize(("requested", "looked"), [({target.vcpu(0): "4"}, False), ({}, False)])
def test_one_cpu_for_each_thread_needs_no_reading_of_the_host(requested, looked):
    pins = {what: CpuSet.parse(text) for what, text in requested.items()}
    assert bool(isolated_sets.of_request(pins)) is looked
    assert isolated_sets.of_request({**pins, target.EMULATOR: CpuSet([4, 5])})


def status(rules, isolated=ISOLATED, shared=""):
    floating = CpuSet.parse(shared) if shared else CpuSet()
    result = finding.run(
        lambda _conf: check_cpus.compare(isolated, rules, floating), cfg.ConfigOpts()
    )
    return result.code, result.details


@pytest.mark.parametrize(
    ("rules", "requestable"),
    [
        ({}, "4-7"),
        ({"reserved_cpus": "4"}, "5-7"),
        ({"dedicated_cpus": "6-9"}, "4-5"),
        ({"allowed_cpus": "0-4"}, "4"),
        ({"allowed_cpus": "0-4", "reserved_cpus": "4"}, ""),
        ({"reserved_cpus": "0-7"}, ""),
    ],
)
def test_status_warns_of_isolated_cpus_that_may_be_requested(rules, requestable):
    code, details = status(Rules(**{name: CpuSet.parse(text) for name, text in rules.items()}))
    assert code is (Code.WARNING if requestable else Code.SUCCESS)
    expected = (
        f"CPU {requestable} may be" if requestable else "CPU 4-7 is isolated, and excluded from"
    )
    assert details.startswith(expected)


def test_status_warns_of_isolated_cpus_that_guests_float_over():
    kept = Rules(reserved_cpus=ISOLATED)
    code, details = status(kept, shared="0-5")
    assert code is Code.WARNING
    assert details.startswith("nova.conf: [compute] cpu_shared_set has isolated CPU 4-5: ")
    assert status(kept, shared="0-3")[0] is Code.SUCCESS
    code, details = status(Rules(), shared="0-7")
    assert "CPU 4-7 may be requested" in details
    assert "cpu_shared_set has isolated CPU 4-7" in details


@pytest.mark.parametrize(("reserved", "shared"), [("0-3", "8"), ("4-7", "4"), ("0-3", "4")])
def test_status_reports_no_success_beside_a_warning(reserved, shared):
    rules = Rules(reserved_cpus=CpuSet.parse(reserved))
    codes = {each.code for each in check_cpus.compare(ISOLATED, rules, CpuSet.parse(shared))}
    assert codes == {Code.WARNING}


def test_status_reports_no_finding_where_no_cpu_is_isolated():
    assert status(Rules(), CpuSet(), "0-3") == (Code.SUCCESS, "no CPU is isolated")
