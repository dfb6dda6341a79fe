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

"""The hook, run as libvirt runs it: a program with its arguments, stdin and stdout."""

import ast
import os
from pathlib import Path
import subprocess
import sys
from xml.etree import ElementTree as ET

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
import pytest

from kongming.allocation.cpuset import CpuSet
from kongming.allocation.target import (
    EMULATOR,
    MEMORY,
    NO_QUOTA,
    QUOTA,
    SHARES,
    Quota,
    iothread,
    vcpu,
)
from kongming.hypervisor import definition, saved_image
from kongming.tests import domains
from kongming.tests.thorough import examples
from kongming.tests.unit.saved_images import NOVA, PLACED, TOUCHED, image

HOOK = Path(__file__).parents[3] / "etc/libvirt/kongming-libvirt-hook"


def run(arriving, *arguments, **options):
    arriving = arriving.encode() if isinstance(arriving, str) else arriving
    given = arguments or ("vm", "migrate", "begin", "-")
    done = subprocess.run(
        [sys.executable, "-I", HOOK, *given], input=arriving, capture_output=True, **options
    )
    # A hook that fails fails the migration.
    assert done.returncode == 0
    return done


def canonical(xml):
    return ET.canonicalize(xml, strip_text=True, rewrite_prefixes=True)


@pytest.mark.parametrize("operation", ["migrate", "restore"])
def test_a_guest_arrives_without_its_former_placement(operation):
    arriving = image(TOUCHED)
    done = run(arriving, "vm", operation, "begin", "-")
    root = ET.fromstring(done.stdout)
    assert [child.tag for child in root.find("cputune")] == ["shares"]
    assert root.find("numatune") is None
    assert root.find("vcpu").get("cpuset") == "0-3"
    assert b"baseline" not in done.stdout
    assert done.stderr == b""


@settings(max_examples=examples(30), suppress_health_check=[HealthCheck.too_slow])
@given(
    st.fixed_dictionaries(
        {},
        optional={
            vcpu(0): st.just(CpuSet([0])),
            vcpu(1): st.just(CpuSet([0, 1])),
            vcpu(7): st.just(CpuSet([0])),
            EMULATOR: st.just(CpuSet([2])),
            iothread(1): st.just(CpuSet([2])),
            SHARES: st.integers(2, 10_000),
            QUOTA: st.sampled_from([NO_QUOTA, Quota(20_000, 40_000)]),
            MEMORY: st.just(CpuSet([0])),
        },
    ).filter(bool)
)
def test_the_hook_releases_the_same_values_in_a_saved_image_as_the_service(baseline):
    arriving = image(baseline)
    assert canonical(run(arriving).stdout) == canonical(saved_image.released(arriving))


@pytest.mark.parametrize("baseline", [None, {vcpu(0): CpuSet([0]), SHARES: 1024}])
def test_the_hook_removes_formerly_released_values_as_the_service_does(baseline):
    rest = {vcpu(1): CpuSet([0]), EMULATOR: CpuSet([0]), MEMORY: CpuSet([0])}
    arriving = image(baseline, released=rest)
    assert canonical(run(arriving).stdout) == canonical(saved_image.released(arriving))
    assert run(image(baseline, PLACED + NUMA, released=rest)).stdout == b""


def test_prefixes_and_unrelated_elements_stay():
    arriving = image({vcpu(0): CpuSet([0])}).replace(
        "<devices/>",
        "<devices><disk type='file'/></devices>"
        "<q:commandline xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'><q:arg/>"
        "</q:commandline><ns1:x xmlns:ns1='urn:x'/>",
    )
    answer = run(arriving).stdout.decode()
    assert "<nova:instance" in answer
    assert "<q:commandline" in answer
    without = arriving.replace("<vcpupin vcpu='0' cpuset='1'/>", "")
    begin, end = without.index("<baseline"), without.index("</metadata>")
    assert canonical(answer) == canonical(without[:begin] + without[end:])


@pytest.mark.parametrize("name", [each for each in domains.NAMES if each.endswith("migrated")])
def test_a_definition_from_nova_is_changed_only_if_the_guest_has_no_numa_topology(name):
    arriving = domains.xml(name, definition.baseline_xml({vcpu(0): CpuSet([0])}, "", "another"))
    answer = run(arriving).stdout.decode()
    released = answer != "" and canonical(answer) == canonical(domains.xml(name))
    assert (answer == "", released) == (name != "plain-migrated", name == "plain-migrated")


NUMA = "<cpu><numa><cell id='0' cpus='0-1' memory='65536'/></numa></cpu>"
MEMNODE = "<numatune><memnode cellid='0' mode='strict' nodeset='1'/></numatune>"


@pytest.mark.parametrize(
    "arriving",
    [
        image(None),
        image(TOUCHED, PLACED + NUMA),
        image(TOUCHED, MEMNODE),
        "<domain><name>http://openstack.org/xmlns/libvirt/kongming/1.0</name></domain>",
        "<domain/>",
    ],
    ids=["no-element", "numa", "memnode", "only-the-words", "nothing-at-all"],
)
def test_a_guest_without_a_placement_passes_unchanged(arriving):
    done = run(arriving)
    assert (done.stdout, done.stderr) == (b"", b"")


@pytest.mark.parametrize(
    "arguments",
    [
        ("vm", "prepare", "begin", "-"),
        ("vm", "start", "begin", "-"),
        ("vm", "migrate", "end", "-"),
        ("vm", "restore", "end", "-"),
        ("vm", "migrate"),
        ("vm",),
    ],
)
def test_other_operations_pass_untouched(arguments):
    done = run(image(TOUCHED), *arguments)
    assert (done.stdout, done.stderr) == (b"", b"")


BROKEN = [
    image(TOUCHED)[:-20].encode(),
    image(TOUCHED).encode().replace(b"<devices/>", b"\xff\xfe"),
    image(TOUCHED).replace('vcpu="0"', "vcpu='x'").encode(),
    image(TOUCHED).replace('vcpu="0"', "").encode(),
    image(TOUCHED).replace('value="1024"', "value='many'").encode(),
    image(TOUCHED).encode("utf-16-le"),
]


@pytest.mark.parametrize("arriving", BROKEN[:5])
def test_an_unreadable_definition_passes_unchanged_and_is_logged_in_one_line(arriving):
    done = run(arriving, "instance-0001", "migrate", "begin", "-")
    assert done.stdout == b""
    assert done.stderr.count(b"\n") == 1
    assert b"instance-0001" in done.stderr
    assert b"Traceback" not in done.stderr


@given(st.binary(max_size=200))
@settings(max_examples=examples(15))
def test_no_bytes_fail_a_migration(arriving):
    done = run(b"http://openstack.org/xmlns/libvirt/kongming/1.0" + arriving)
    assert done.stdout == b""
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-", ">/dev/full"])
def test_closed_streams_fail_no_migration(closed, tmp_path):
    arriving = tmp_path / "arriving"
    arriving.write_text(image(TOUCHED).replace('value="1024"', "value='many'"))
    done = subprocess.run(
        ["sh", "-c", f"'{sys.executable}' -I '{HOOK}' vm migrate begin - <{arriving} {closed}"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_the_hook_needs_the_standard_library_and_an_old_python_only():
    tree = ast.parse(HOOK.read_text(), feature_version=(3, 9))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in (
            [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
        )
    }
    assert imported <= sys.stdlib_module_names
    assert os.access(HOOK, os.X_OK)
    assert HOOK.read_text().startswith("#!/usr/bin/python3 -I\n")


def test_a_domain_without_a_note_costs_no_parsing():
    done = run(f"<domain><metadata>{NOVA}</metadata><not xml".encode())
    assert (done.stdout, done.stderr) == (b"", b"")
