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

"""The definitions that Nova makes of guests, and the host that they are for."""

from pathlib import Path

from kongming.allocation.cpuset import CpuSet
from kongming.host.grant import Grant
from kongming.host.rules import Rules
from kongming.hypervisor import definition
from kongming.hypervisor.host import Host

_FOLDER = Path(__file__).parent / "data/nova-34.0.0/domains"

NAMES = sorted(path.stem for path in _FOLDER.glob("*.xml"))
SHARED, DEDICATED = CpuSet.parse("0-3,8-11"), CpuSet.parse("4-7,12-15")
HOST = Host(CpuSet(range(16)), CpuSet(range(16)), CpuSet([0, 1]), uuid="h1")
#: What nova.conf has of the host's CPUs.
RULES = Rules(shared_cpus=SHARED, dedicated_cpus=DEDICATED)


def xml(name: str, note: str = "") -> str:
    """Return what Nova gives to libvirt.

    :param note: the baseline that the guest brings along from another host.
    """
    named = note.replace("<baseline", f"<baseline xmlns='{definition.BASELINE_URI}'")
    text = (_FOLDER / f"{name}.xml").read_text()
    return text.replace("</metadata>", f"{named}</metadata>")


def grant(name: str) -> Grant:
    """Return what Nova gave a guest with a NUMA topology."""
    found = definition.parse(xml(name), HOST).grant
    assert found is not None
    return found
