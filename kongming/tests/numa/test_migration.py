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
"""A guest is migrated to where the CPU of its placement is offline."""

from contextlib import nullcontext
from pathlib import Path

import libvirt
import pytest

from kongming.tests.integration.conftest import bare, everywhere, hooked, status  # noqa: F401
from kongming.tests.integration.two_hosts import TwoHosts, everything_on
from kongming.tests.numa.conftest import Machine
from kongming.tests.testbed.migration import MIGRATABLE, migrate
from kongming.tests.testbed.process import wait_until

V2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()


@pytest.mark.parametrize("has_hook", [True, False], ids=["hook", "no-hook"])
def test_a_guest_arrives_at_a_host_with_its_cpu_offline_if_the_hook_is_installed(
    libvirtd, request, has_hook, nodes, last, offline, tmp_path
):
    other = request.getfixturevalue("hooked" if has_hook else "bare")
    hosts = TwoHosts(Machine(), libvirtd, other, tmp_path)
    with hosts.source() as source, hosts.destination() as destination:
        guest = hosts.guest(tmp_path / "guest", filled=False)
        hosts.update(guest, **everything_on(0), numa_nodes=str(max(nodes)))
        status(source, guest, "applied")
        # Both hosts are this machine, where that CPU is there or not for both.
        xml = guest.domain.XMLDesc(MIGRATABLE).replace("cpuset='0'", f"cpuset='{last}'")
        with offline(last):
            with nullcontext() if has_hook else pytest.raises(libvirt.libvirtError):
                guest.domain = migrate(guest.domain, other.connect(), xml)
            if not has_hook:
                guest.wait_on(0)
                status(source, guest, "applied")
            else:
                assert guest.affinity() == everywhere(guest)
                hosts.arrived(guest, vcpu_pinning=str(last))
                assert status(destination, guest, "refused").reason == "cpu_offline"
        if has_hook and V2:
            guest.wait_on(last)
            status(destination, guest, "applied")
        elif has_hook:
            # The groups above the guest have lost the CPU, and this service has never found them
            # with it: it can't distinguish that from a CPU that an operator left out.
            wait_until(
                lambda: destination.record(guest.uuid).reason == "cpu_not_in_slice",
                30,
                "the CPU is online, and not in the group",
            )
            assert guest.affinity() == {vcpu: everywhere(guest)[vcpu] - {last} for vcpu in (0, 1)}
    hosts.close()
