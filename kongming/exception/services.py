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
    """libvirt does not answer."""

    reason = "hypervisor_unavailable"


class HypervisorBusy(HypervisorUnavailable):
    """libvirt gives no further connection, though the one that hears its events stands."""


class Outage:
    """A time in which something can't be used: many notice, one tells."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told = False

    def is_news(self) -> bool:
        """Tell whether nobody has told the operator yet; whoever asks does it."""
        with self._lock:
            news, self._told = not self._told, True
        return news


class StoreUnavailable(KongmingError):
    """What is wanted can't be read from or written to the state path.

    :ivar outage: what all errors have in common until the store works again.
    """

    reason = "store_unavailable"

    def __init__(self, message: str, outage: Outage | None = None) -> None:
        super().__init__(message)
        self.outage = outage or Outage()


class NovaUnavailable(KongmingError):
    """Nova's API gives no usable answer now.

    :ivar retry_after: for how many seconds it asked not to be asked; 0 if it
        did not.
    """

    reason = "nova_unavailable"

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NovaDenied(NovaUnavailable):
    """Nova, or Keystone, does not let the service user ask."""

    reason = "nova_denied"


class NovaAmbiguous(NovaUnavailable):
    """Keystone's catalogue names several Novas, or Nova names this host otherwise."""

    reason = "nova_ambiguous"


class EventMalformed(KongmingError):
    """A notification can't be understood."""

    reason = "event_malformed"


class MessageRefused(KongmingError):
    """What another service sent over the bus is not taken."""

    reason = "message_refused"


class MessageInvalid(MessageRefused):
    """A message, or a part of it, is not what it should be."""

    reason = "message_invalid"


class SignatureInvalid(MessageRefused):
    """Nothing proves who sent a message: it is not signed, or not rightly."""

    reason = "signature_invalid"


class ConfigInvalid(KongmingError):
    """An option, or a file that it names, can't be used as it is."""

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
