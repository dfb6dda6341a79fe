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

"""Check whether libvirt is available, allows changes of guests, and could place one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import libvirt
from oslo_config import cfg
from oslo_upgradecheck.upgradecheck import Result

from kongming.hypervisor.unavailable import FORBIDS, forbidden, without_password
from kongming.status import host
from kongming.status.finding import bad, doubtful, good

_DRIVER = "QEMU"
_NO_FORMAT = "kongming-status"
_NO_DOMAIN = "<kongming-status/>"


def check(conf: cfg.ConfigOpts) -> Iterator[Result]:
    """Open a connection that may change guests, and check its driver."""
    uri = conf.libvirt.connection_uri
    shown = without_password(uri)
    with host.connected(conf) as connection:
        driver = connection.getType()
        if driver != _DRIVER:
            yield bad(
                f"[libvirt] connection_uri {shown} leads to libvirt's driver {driver}, not "
                f"{_DRIVER}: it must be that of nova.conf"
            )
            return
        online = sum(connection.getCPUMap()[1])
        if not online:
            yield bad(f"libvirt at {shown} reports no online CPU: restart libvirtd")
            return
        yield good(f"libvirt at {shown} responds; {online} CPUs are online")
        yield from may_write(connection)


def may_write(connection: Any) -> Iterator[Result]:
    """Check whether guests may be changed, by calls that can change nothing.

    The calls need the same rights but can't succeed: one converts a domain to an unknown format,
    one replaces the saved image of a guest with an invalid domain.
    """
    refusal = _refusal(lambda: connection.domainXMLToNative(_NO_FORMAT, _NO_DOMAIN))
    if refusal is not None and refusal.get_error_code() == libvirt.VIR_ERR_OPERATION_DENIED:
        yield bad(f"guests can't be changed: {forbidden(refusal)}")
        return
    domains = connection.listAllDomains()
    for domain in domains[:1]:
        denied = _refusal(lambda: domain.managedSaveDefineXML(_NO_DOMAIN))  # noqa: B023
        if denied is not None:
            yield bad(f"guests can't be changed: {forbidden(denied)}")
    if refusal is not None and not domains:
        yield doubtful(
            "it is not known whether guests may be changed, because libvirt shows no guest to "
            f"this user: {forbidden(refusal)}"
        )


def _refusal(call: Callable[[], object]) -> libvirt.libvirtError | None:
    """Return the error by which libvirt forbids a call; None if it does not."""
    try:
        call()
    except libvirt.libvirtError as error:
        return error if error.get_error_code() in FORBIDS else None
    return None
