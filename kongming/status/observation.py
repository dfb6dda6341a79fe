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
"""Check whether this user can observe guests, and read the kernel's files of the host.

Otherwise only libvirt's values are available: changes by others are not found.
"""

from __future__ import annotations

from collections.abc import Iterator

from oslo_config import cfg
from oslo_upgradecheck.upgradecheck import Result

from kongming.allocation.target import EMULATOR, vcpu
from kongming.hypervisor.guest import Guest
from kongming.hypervisor.hypervisor import Hypervisor
from kongming.status import host
from kongming.status.finding import doubtful, good

#: The text of all checks that need libvirt.
NOT_CHECKED = "not checked: libvirt is unavailable; see the check libvirt"


def check(conf: cfg.ConfigOpts) -> Iterator[Result]:
    """Observe guests as the service does."""
    with host.opened(conf) as hypervisor:
        if hypervisor is None:
            yield good(NOT_CHECKED)
        else:
            yield from check_host(hypervisor)


def check_host(hypervisor: Hypervisor) -> Iterator[Result]:
    """Check where a host is, what of it can be read, and whether its guests can be observed."""
    if not hypervisor.locality().has_processes:
        yield good(f"not checked: {hypervisor.locality().why}")
        return
    hypervisor.topology()
    hidden = [_hidden(guest) for guest in host.guests(hypervisor)]
    # Guests that were found are better evidence.
    place = hypervisor.locality()
    if not place.here:
        yield doubtful(f"libvirt is {place}: run this service on the machine of the guests")
    for gap in hypervisor.visibility.gaps():
        yield doubtful(str(gap))
    reported = {str(gap.why) for gap in hypervisor.visibility.gaps()}
    for why in sorted(set(hidden) - reported - {""}):
        yield doubtful(f"a guest can't be observed ({why})")
    if not hidden:
        yield good(f"libvirt is {place}; no guest runs here, so observation is not checked")
    elif not any(hidden):
        yield good(f"libvirt is {place}; the threads of its guests are observed")


def _hidden(guest: Guest) -> str:
    guest.observe([vcpu(0), EMULATOR])
    return guest.hidden
