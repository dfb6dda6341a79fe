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

"""A short connection to libvirt, for a command."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from functools import partial
from typing import Any

import libvirt

from kongming import exception
from kongming.hypervisor.hypervisor import Hypervisor
from kongming.hypervisor.opener import Opener, close, connect
from kongming.hypervisor.unavailable import forbids, without_password

_OPEN_TIMEOUT = 15.0


def read_only(uri: str, timeout: float = _OPEN_TIMEOUT) -> contextlib.AbstractContextManager[Any]:
    """Open a connection that can't change anything.

    :param timeout: seconds to wait for a libvirt that hangs.
    :raises HypervisorUnavailable: if libvirt can't be reached.
    :raises LibvirtForbids: if libvirt denies an operation.
    :raises Failed: if libvirt reports another error.
    """
    return _session(uri, timeout, read_only=True)


@contextlib.contextmanager
def inspect(uri: str, timeout: float = _OPEN_TIMEOUT) -> Iterator[Hypervisor]:
    """Open a :class:`Hypervisor` that can't change anything; see :func:`read_only`."""
    with read_only(uri, timeout) as connection:
        yield Hypervisor(uri, lambda: contextlib.nullcontext(connection))


def read_write(uri: str, timeout: float = _OPEN_TIMEOUT) -> contextlib.AbstractContextManager[Any]:
    """Open a connection that can change guests; see :func:`read_only`."""
    return _session(uri, timeout, read_only=False)


@contextlib.contextmanager
def _session(uri: str, timeout: float, *, read_only: bool) -> Iterator[Any]:
    # libvirt would write each error to stderr by itself.
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    connection = Opener(uri, partial(connect, uri, read_only=read_only), timeout).open()
    try:
        yield connection
    except libvirt.libvirtError as error:
        where = f"libvirt at {without_password(uri)}"
        if denied := forbids(error, where):
            raise denied from error
        raise exception.Failed(
            f"{where}: error {error.get_error_code()}: {error.get_error_message()}"
        ) from error
    finally:
        close(connection)
