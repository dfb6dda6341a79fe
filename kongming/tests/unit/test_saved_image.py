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
"""What Kongming takes out of a suspended guest's saved image."""

from xml.etree import ElementTree as ET

import pytest

from kongming.allocation.cpuset import CpuSet
from kongming.allocation.target import (
    EMULATOR,
    MEMORY,
    QUOTA,
    SHARES,
    Quota,
    iothread,
    vcpu,
)
from kongming.hypervisor import saved_image
from kongming.hypervisor.definition import BASELINE_TAG
from kongming.tests.unit.saved_images import ALL, PLACED, TOUCHED, image


def released(baseline, body=PLACED):
    return ET.fromstring(saved_image.released(image(baseline, body)))


@pytest.mark.parametrize("body", [PLACED, ""])
def test_an_image_that_kongming_has_no_part_in_stays(body):
    assert saved_image.released(image(None, body)) is None
    assert saved_image.released("<domain><vcpu>1</vcpu></domain>") is None


def test_all_placed_values_and_the_note_are_removed():
    root = released(TOUCHED)
    assert root.find("metadata").find(BASELINE_TAG) is None
    assert len(root.find("metadata")) == 1
    assert [child.tag for child in root.find("cputune")] == ["shares"]
    assert root.findtext("cputune/shares") == "1024"
    assert root.find("numatune") is None
    assert root.find("vcpu").get("cpuset") == "0-3"
    assert root.find("devices") is not None


@pytest.mark.parametrize("baseline", [None, {vcpu(0): ALL, SHARES: 1024}])
def test_formerly_released_values_are_removed_too(baseline):
    rest = {vcpu(1): ALL, EMULATOR: ALL, iothread(1): ALL, MEMORY: ALL}
    root = ET.fromstring(saved_image.released(image(baseline, released=rest)))
    assert len(root.find("metadata")) == 1
    assert root.find("numatune") is None
    left = {child.tag for child in root.find("cputune")}
    assert left == {"shares", "period", "quota"} | ({"vcpupin"} if baseline is None else set())


def test_a_quota_that_the_guest_had_before_is_restored():
    root = released({QUOTA: Quota(20_000, 40_000)})
    assert root.findtext("cputune/quota") == "20000"
    assert root.findtext("cputune/period") == "40000"


@pytest.mark.parametrize(
    ("touched", "left"),
    [
        (vcpu(0), ["vcpupin 1", "emulatorpin ", "iothreadpin "]),
        (vcpu(1), ["vcpupin 0", "emulatorpin ", "iothreadpin "]),
        (EMULATOR, ["vcpupin 0", "vcpupin 1", "iothreadpin "]),
        (iothread(1), ["vcpupin 0", "vcpupin 1", "emulatorpin "]),
        (iothread(2), ["vcpupin 0", "vcpupin 1", "emulatorpin ", "iothreadpin "]),
    ],
)
def test_unplaced_values_are_kept(touched, left):
    root = released({touched: ALL})
    pins = [each for each in root.find("cputune") if each.tag.endswith("pin")]
    assert [f"{each.tag} {each.get('vcpu', '')}" for each in pins] == left
    assert root.findtext("cputune/shares") == "200"
    assert root.findtext("cputune/quota") == "50000"
    assert root.find("numatune/memory") is not None


def test_memory_that_is_bound_cell_by_cell_keeps_its_cells():
    body = (
        "<numatune><memory mode='restrictive' nodeset='1'/><memnode cellid='0' mode='strict'"
        " nodeset='1'/></numatune>"
    )
    root = released({MEMORY: CpuSet([0, 1]), vcpu(0): ALL}, body)
    assert [child.tag for child in root.find("numatune")] == ["memnode"]


def test_an_image_without_the_values_of_its_note_is_accepted():
    root = released(TOUCHED, "")
    assert root.find("cputune") is None
    assert root.find("metadata").find(BASELINE_TAG) is None
