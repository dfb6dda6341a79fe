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

"""Check for isolated CPUs, which do not serve guests as others do."""

from __future__ import annotations

from collections.abc import Iterator

from oslo_config import cfg
from oslo_upgradecheck.upgradecheck import Result

from kongming import exception
from kongming.allocation.cpuset import CpuSet, listed
from kongming.configuration import of_nova
from kongming.configuration.rules import read_rules
from kongming.host.rules import Rules
from kongming.status import host
from kongming.status.finding import doubtful, good
from kongming.status.observation import NOT_CHECKED


def check(conf: cfg.ConfigOpts) -> Iterator[Result]:
    """Check the host's CPUs and which guests may use them."""
    with host.opened(conf) as hypervisor:
        if hypervisor is None:
            yield good(NOT_CHECKED)
            return
        topology = hypervisor.topology()
        place = hypervisor.locality()
    if not place.here:
        yield good("not checked: the guests of [libvirt] connection_uri are elsewhere")
        return
    try:
        rules = read_rules(conf)
        shared = of_nova.cpus(conf.guard.nova_config_file, "cpu_shared_set")
    except exception.ConfigInvalid:
        yield good("not checked: [guard] is not valid; see the check Configuration")
        return
    yield from compare(topology.isolated, rules, shared)


def compare(isolated: CpuSet, rules: Rules, shared: CpuSet) -> Iterator[Result]:
    """Compare the isolated CPUs with those that guests may use.

    :param shared: nova.conf's ``cpu_shared_set``.
    """
    requestable = isolated - rules.reserved_cpus - rules.dedicated_cpus
    if rules.allowed_cpus is not None:
        requestable &= rules.allowed_cpus
    if requestable:
        yield doubtful(
            f"CPU {listed(requestable)} may be requested and is isolated (isolcpus, nohz_full, or "
            "a cpuset partition): the kernel does not spread threads over such CPUs, so pin each "
            "vCPU to one of them, never to a set, or add them to [guard] reserved_cpus"
        )
    if floating := isolated & shared:
        yield doubtful(
            f"nova.conf: [compute] cpu_shared_set has isolated CPU {listed(floating)}: the kernel "
            "does not spread the threads of floating guests over them; remove them there"
        )
    if not requestable and not floating:
        text = (
            f"CPU {listed(isolated)} is isolated, and excluded from requests and floating guests"
        )
        yield good(text if isolated else "no CPU is isolated")
