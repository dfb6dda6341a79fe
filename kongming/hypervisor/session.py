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

"""A short connection to libvirt, for a command that looks at the host and ends."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from typing import Any

import libvirt

from kongming import exception


@contextlib.contextmanager
def read_only(uri: str) -> Iterator[Any]:
    """Give a connection that can change nothing.

    :raises HypervisorUnavailable: if libvirt can't be reached.
    :raises Failed: if it gives an error to what it is asked.
    """
    # libvirt would write each error to stderr by itself.
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    try:
        connection = libvirt.openReadOnly(uri)
    except libvirt.libvirtError as error:
        raise exception.HypervisorUnavailable(
            f"libvirt at {uri} does not answer ({error.get_error_message()}): is libvirtd "
            "running, and is [libvirt] connection_uri right?"
        ) from error
    try:
        yield connection
    except libvirt.libvirtError as error:
        raise exception.Failed(
            f"libvirt at {uri}: error {error.get_error_code()}: {error.get_error_message()}"
        ) from error
    finally:
        with contextlib.suppress(libvirt.libvirtError):
            connection.close()
