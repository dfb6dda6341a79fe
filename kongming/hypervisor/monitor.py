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

"""The monitor of a guest's QEMU, which one client of libvirt uses at a time."""

from __future__ import annotations

from collections.abc import Callable
import time
from typing import Any

import libvirt

from kongming import exception
from kongming.hypervisor.errors import if_supported

# Other clients may use it for this time without anything being wrong.
_PATIENCE_S = 5.0
_PAUSE_S = 0.05


def state(domain: Any) -> int | None:
    """Return the state of libvirt's control interface to QEMU; None if the driver has none.

    :raises GuestHung: if QEMU has not responded to another client.
    """
    control = if_supported(domain.controlInfo)
    if control is None:
        return None
    found, _details, milliseconds = control
    if found == libvirt.VIR_DOMAIN_CONTROL_OCCUPIED and milliseconds > 1000 * _PATIENCE_S:
        raise exception.GuestHung.since(
            "QEMU's monitor has not responded", time.time() - milliseconds / 1000
        )
    return int(found)


def wait(read_state: Callable[[], int | None]) -> None:
    """Wait while another client uses the monitor, which is usually over at once.

    libvirt 11 would wait with the domain's XML for half a minute.
    """
    while read_state() == libvirt.VIR_DOMAIN_CONTROL_OCCUPIED:
        time.sleep(_PAUSE_S)
