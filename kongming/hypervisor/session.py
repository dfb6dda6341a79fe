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

"""A short connection to libvirt, for a command that does one thing and ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import threading
from typing import Any

import libvirt

from kongming import exception

_OPEN_TIMEOUT = 15.0


def read_only(uri: str, timeout: float = _OPEN_TIMEOUT) -> contextlib.AbstractContextManager[Any]:
    """Give a connection that can change nothing.

    :param timeout: seconds to wait for a libvirt that hangs.
    :raises HypervisorUnavailable: if libvirt can't be reached.
    :raises Failed: if it gives an error to what it is asked.
    """
    return _session(libvirt.openReadOnly, uri, timeout)


def read_write(uri: str, timeout: float = _OPEN_TIMEOUT) -> contextlib.AbstractContextManager[Any]:
    """Give a connection that can change guests; otherwise as :func:`read_only`."""
    return _session(libvirt.open, uri, timeout)


@contextlib.contextmanager
def _session(opener: Callable[[str], Any], uri: str, timeout: float) -> Iterator[Any]:
    # libvirt would write each error to stderr by itself.
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    connection = _open(opener, uri, timeout)
    try:
        yield connection
    except libvirt.libvirtError as error:
        raise exception.Failed(
            f"libvirt at {uri}: error {error.get_error_code()}: {error.get_error_message()}"
        ) from error
    finally:
        with contextlib.suppress(libvirt.libvirtError):
            connection.close()


def _open(opener: Callable[[str], Any], uri: str, timeout: float) -> Any:
    opened: list[Any] = []

    def attempt() -> None:
        try:
            opened.append(opener(uri))
        except libvirt.libvirtError as error:
            opened.append(error)

    # libvirt itself waits for ever, and can't be interrupted meanwhile.
    thread = threading.Thread(target=attempt, name="libvirt-open", daemon=True)
    thread.start()
    thread.join(timeout)
    if not opened:
        raise exception.HypervisorUnavailable(
            f"libvirt at {uri} did not answer within {timeout:g} s: does libvirtd hang?"
        )
    if isinstance(opened[0], libvirt.libvirtError):
        raise exception.HypervisorUnavailable(
            f"libvirt at {uri} does not answer ({opened[0].get_error_message()}): is libvirtd "
            "running, may this user connect to it, and is [libvirt] connection_uri right?"
        )
    return opened[0]
