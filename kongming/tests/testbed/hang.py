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

"""QEMUs that hang, and those who wait for their answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
import os
import signal
import threading
from typing import Any

import libvirt

from kongming.tests.testbed import threads
from kongming.tests.testbed.process import wait_until


@contextmanager
def hung(*instance_uuids: str) -> Iterator[None]:
    """QEMUs that hang, as when their storage does."""
    pids = [threads.emulator_thread(each) for each in instance_uuids]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def hold_monitor(uri: str, instance_uuid: str) -> threading.Thread:
    """Ask the QEMU of a guest something; return who waits for the answer."""
    # A connection of its own for each: a stuck one serves nobody else.
    domain = libvirt.open(uri).lookupByUUIDString(instance_uuid)
    caller = threading.Thread(target=_ask, args=(domain,))
    caller.start()
    wait_until(lambda: domain.controlInfo()[0] == 2, 30, "the monitor is held")
    return caller


def _ask(domain: Any) -> None:
    # It may be libvirtd that ends meanwhile.
    with suppress(libvirt.libvirtError):
        domain.ioThreadInfo(1)
