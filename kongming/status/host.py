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
"""Access of the checks to the host: libvirt, and the kernel's files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from oslo_config import cfg

from kongming import exception
from kongming.hypervisor import session
from kongming.hypervisor.guest import Guest
from kongming.hypervisor.hypervisor import Hypervisor

_TIMEOUT_S = 8.0
# The most guests to check: those of a host are alike.
_GUESTS_MAX = 20


# The URIs that did not answer: one check has waited for each, the others need not.
_unavailable: set[str] = set()


@contextmanager
def connected(conf: cfg.ConfigOpts) -> Iterator[Any]:
    """Yield libvirt's connection, with which guests may be changed.

    :raises HypervisorUnavailable: if there is none; the other checks know it then.
    """
    uri = conf.libvirt.connection_uri
    try:
        with session.read_write(uri, _TIMEOUT_S) as connection:
            yield connection
    except exception.HypervisorUnavailable:
        _unavailable.add(uri)
        raise


@contextmanager
def opened(conf: cfg.ConfigOpts) -> Iterator[Hypervisor | None]:
    """Open a :class:`Hypervisor`; None if libvirt is unavailable, which another check reports."""
    uri = conf.libvirt.connection_uri
    if uri in _unavailable:
        yield None
        return
    try:
        with session.inspect(uri, _TIMEOUT_S) as hypervisor:
            yield hypervisor
    except exception.HypervisorUnavailable:
        _unavailable.add(uri)
        yield None


def guests(hypervisor: Hypervisor) -> Iterator[Guest]:
    """Yield running guests, each for use until the next one; omit those that end.

    :raises Failed: if libvirt reports an error.
    """
    for each in hypervisor.occupants()[:_GUESTS_MAX]:
        try:
            with hypervisor.guest(each.instance_uuid) as guest:
                yield guest
        except exception.GuestAbsent:
            continue
