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
"""Parts around a service that are unavailable, and messages that are not accepted."""

from __future__ import annotations

import threading

from kongming.exception.base import KongmingError


class HypervisorUnavailable(KongmingError):
    """libvirt is unavailable."""

    reason = "hypervisor_unavailable"


class HypervisorBusy(HypervisorUnavailable):
    """libvirt accepts no further connection, while the one for events is open."""


class Outage:
    """An outage that many threads notice, and one of them logs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._logged = False

    def should_log(self) -> bool:
        """Return whether the caller should log the outage: True once."""
        with self._lock:
            is_first, self._logged = not self._logged, True
        return is_first


class StoreUnavailable(KongmingError):
    """A database in the state path can't be read or written.

    :ivar outage: the same for all errors until the database can be used again.
    """

    reason = "store_unavailable"

    def __init__(self, message: str, outage: Outage | None = None) -> None:
        super().__init__(message)
        self.outage = outage or Outage()


class NovaUnavailable(KongmingError):
    """Nova's API gives no usable answer now.

    :ivar retry_after: the seconds of its Retry-After header; 0 if it has none.
    """

    reason = "nova_unavailable"

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NovaDenied(NovaUnavailable):
    """Nova, or Keystone, denies a request of the service user."""

    reason = "nova_denied"


class NovaAmbiguous(NovaUnavailable):
    """Keystone's catalog has several Novas, or Nova has another name for this host."""

    reason = "nova_ambiguous"


class EventMalformed(KongmingError):
    """A notification is unreadable."""

    reason = "event_malformed"


class MessageRefused(KongmingError):
    """A message of another service is rejected."""

    reason = "message_refused"


class MessageInvalid(MessageRefused):
    """A message, or a part of it, is invalid."""

    reason = "message_invalid"


class SignatureInvalid(MessageRefused):
    """A message has no valid signature."""

    reason = "signature_invalid"


class ConfigInvalid(KongmingError):
    """An option, or a file that it names, can't be used."""

    reason = "config_invalid"


class Unresponsive(KongmingError):
    """A call over the message bus gets no answer.

    :ivar others_too: whether calls to others would fail, too.
    """

    reason = "unresponsive"
    others_too = True


class HostUnresponsive(Unresponsive):
    """The executor of a host gives no answer."""

    reason = "host_unresponsive"


class ConductorUnresponsive(Unresponsive):
    """No conductor gives an answer."""

    reason = "conductor_unresponsive"
