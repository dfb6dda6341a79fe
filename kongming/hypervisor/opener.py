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

"""Opening of connections to libvirt, like nova-compute and virsh, in bounded time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
import threading
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import libvirt

from kongming import exception
from kongming.hypervisor.unavailable import explain, without_password

#: Seconds for libvirt's greeting and log-in. Mostly they take milliseconds.
GREETING_S = 10.0
# While an attempt hangs, the next one begins after this time, the one after that after twice as
# long: an attempt at a lost peer hangs forever, and each keeps a thread.
_PAUSE_S = 30.0

_DECLINE = -1
# With any callback libvirt looks up the credentials in auth.conf.
_AUTHENTICATION = [
    [
        libvirt.VIR_CRED_AUTHNAME,
        libvirt.VIR_CRED_PASSPHRASE,
        libvirt.VIR_CRED_REALM,
        libvirt.VIR_CRED_ECHOPROMPT,
        libvirt.VIR_CRED_NOECHOPROMPT,
    ],
    lambda _credentials, _opaque: _DECLINE,
    None,
]
_BY_SSH = frozenset({"ssh", "libssh", "libssh2"})


def connect(uri: str, keepalive: tuple[int, int] | None = None, *, read_only: bool = False) -> Any:
    """Open a connection; this may hang.

    :param keepalive: the interval in seconds and the number of keepalive messages that libvirt may
        leave unanswered.
    :raises HypervisorUnavailable: if there is none; the message says why, and what to do.
    """
    flags = libvirt.VIR_CONNECT_RO if read_only else 0
    try:
        connection = libvirt.openAuth(unattended(uri), _AUTHENTICATION, flags)
    except libvirt.libvirtError as error:
        raise exception.HypervisorUnavailable(explain(error, uri)) from error
    if keepalive is not None:
        try:
            connection.setKeepAlive(*keepalive)
        except libvirt.libvirtError as error:
            # Drivers that run in this process don't need it.
            if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
                close(connection)
                raise exception.HypervisorUnavailable(explain(error, uri)) from error
    return connection


def close(connection: Any) -> None:
    """Close a connection, which may be closed already."""
    with suppress(libvirt.libvirtError):
        connection.close()


def unattended(uri: str) -> str:
    """Return a URI with which SSH does not ask for a password or about a host's key.

    >>> unattended("qemu+ssh://host/system?keyfile=/k")
    'qemu+ssh://host/system?keyfile=/k&no_tty=1'
    """
    parts = urlsplit(uri)
    if parts.scheme.partition("+")[2] not in _BY_SSH or "no_tty" in parse_qs(
        parts.query, keep_blank_values=True
    ):
        return uri
    return f"{uri}{'&' if parts.query else '?'}no_tty=1"


@dataclass
class _Attempt:
    """One call that opens a connection.

    :ivar abandoned: whether its result is no longer needed.
    """

    ended: bool = False
    abandoned: bool = False
    connection: Any = None
    error: Exception | None = None


class Opener:
    """Opens connections to one libvirt. Any thread may call any method.

    libvirt's own call has no time limit and can't be interrupted. So it is made in a thread of its
    own, which is abandoned when it takes too long. A connection that it opens later is closed, and
    shows that libvirt is available again: the next attempt begins at once.

    :param uri: for messages.
    :param open_: opens a connection; raises HypervisorUnavailable, or hangs.
    :param timeout: the limit in seconds for opening one.
    """

    def __init__(self, uri: str, open_: Callable[[], Any], timeout: float = GREETING_S) -> None:
        self._uri = uri
        self._open = open_
        self._timeout = timeout
        self._changed = threading.Condition()
        self._hanging = 0
        self._again_at = 0.0

    @classmethod
    def of(cls, uri: str, keepalive: tuple[int, int] | None = None) -> Opener:
        """Return an opener of connections that can change guests."""
        return cls(uri, partial(connect, uri, keepalive))

    def open(self) -> Any:
        """Open a connection.

        :raises HypervisorUnavailable: if libvirt refuses it, or does not respond in time.
        """
        deadline = time.monotonic() + self._timeout
        attempt = _Attempt()
        with self._changed:
            if not self._changed.wait_for(self._may_begin, self._timeout):
                raise self._timed_out()
            threading.Thread(
                target=self._attempt, args=(attempt,), name="libvirt-open", daemon=True
            ).start()
            left = max(0.0, deadline - time.monotonic())
            if not self._changed.wait_for(lambda: attempt.ended, left):
                attempt.abandoned = True
                self._hanging += 1
                self._again_at = time.monotonic() + _PAUSE_S * 2 ** (self._hanging - 1)
                raise self._timed_out()
        if attempt.error is not None:
            raise attempt.error
        return attempt.connection

    def _may_begin(self) -> bool:
        return not self._hanging or time.monotonic() >= self._again_at

    def _attempt(self, attempt: _Attempt) -> None:
        connection, raised = None, None
        try:
            connection = self._open()
        except Exception as error:  # noqa: BLE001
            raised = error
        with self._changed:
            attempt.ended, attempt.connection, attempt.error = True, connection, raised
            if attempt.abandoned:
                self._hanging -= 1
                self._again_at = 0.0
            self._changed.notify_all()
        if attempt.abandoned and connection is not None:
            close(connection)

    def _timed_out(self) -> exception.HypervisorUnavailable:
        return exception.HypervisorUnavailable(
            f"libvirt at {without_password(self._uri)} did not answer within {self._timeout:g} s: "
            "does libvirtd hang, or something in between?"
        )
