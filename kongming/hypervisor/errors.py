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

"""The meaning of libvirt's errors, and their translation to Kongming's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import libvirt

from kongming import exception
from kongming.hypervisor.pool import is_alive
from kongming.hypervisor.unavailable import forbids

# Permanent errors.
_UNSUPPORTED = frozenset(
    {
        libvirt.VIR_ERR_NO_SUPPORT,
        libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
        libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
        libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,
    }
)


def translated(error: libvirt.libvirtError, doing: str, domain: Any) -> exception.KongmingError:
    """Return the exception for an error of libvirt.

    :param doing: what failed, for a sentence: «setting vCPU 0 to 1».
    """
    code, message = error.get_error_code(), error.get_error_message()
    if code == libvirt.VIR_ERR_NO_DOMAIN or has_stopped(domain):
        return exception.GuestAbsent("the domain is not running")
    if not is_alive(domain.connect()):
        return exception.HypervisorUnavailable(f"the connection to libvirt was lost while {doing}")
    if denied := forbids(error, doing):
        return denied
    if code == libvirt.VIR_ERR_OPERATION_TIMEOUT:
        return exception.GuestBusy(f"libvirt is busy with the guest, {doing} timed out")
    if code == libvirt.VIR_ERR_OPERATION_INVALID and "affinity" in message:
        if _is_starting(domain):
            return exception.GuestBusy("libvirt does not know the threads of the guest yet")
        return exception.PinningUnsupported(
            f"libvirt can't pin this guest's vCPUs ({message}): QEMU emulates them all in a "
            "single thread; run the guest with KVM, or with multi-threaded emulation"
        )
    if code in _UNSUPPORTED or "controller is not mounted" in message:
        return exception.Unsupported(
            f"{doing}: libvirt can't do that for this guest on this host ({message}); leave it "
            "out of the request, or see cgroup_controllers of qemu.conf"
        )
    return exception.StepFailed(f"{doing}: libvirt error {code}: {message}")


def has_stopped(domain: Any) -> bool:
    """Return whether a domain has stopped, by libvirt's current state."""
    try:
        return not domain.isActive()
    except libvirt.libvirtError as error:
        return bool(error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN)


def if_supported(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of libvirt; return None if its driver does not support it."""
    try:
        return function(*arguments)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
            return None
        raise


def is_paused(domain: Any, reason: int) -> bool:
    """Return whether a domain is paused for a reason; raise libvirt's error if that is unknown."""
    return bool(domain.state() == [libvirt.VIR_DOMAIN_PAUSED, reason])


def _is_starting(domain: Any) -> bool:
    try:
        return is_paused(domain, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP)
    except libvirt.libvirtError:
        return False
