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

"""Does libvirt answer, and could it place a guest?"""

from __future__ import annotations

from collections.abc import Iterator

from oslo_config import cfg
from oslo_upgradecheck.upgradecheck import Result

from kongming.hypervisor import session
from kongming.status.finding import bad, good

_TIMEOUT_S = 8.0
_DRIVER = "QEMU"


def check(conf: cfg.ConfigOpts) -> Iterator[Result]:
    """Open a connection that may change guests, and ask what it leads to."""
    uri = conf.libvirt.connection_uri
    with session.read_write(uri, _TIMEOUT_S) as connection:
        driver = connection.getType()
        online = sum(connection.getCPUMap()[1])
    if driver != _DRIVER:
        yield bad(
            f"[libvirt] connection_uri {uri} leads to libvirt's driver {driver}, not {_DRIVER}: "
            "it must be that of nova.conf"
        )
    elif not online:
        yield bad(f"libvirt at {uri} says that no CPU is online: restart libvirtd")
    else:
        yield good(f"libvirt at {uri} answers; {online} CPUs are online")
