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

"""Kongming's errors: each has a stable reason code and says what to do next.

The codes are the same in logs, metrics, the command line and the API.
"""

from typing import ClassVar


class KongmingError(Exception):
    """The base of all our errors.

    ``reason`` is the stable code; the message is for the operator.
    """

    reason: ClassVar[str] = "internal_error"


class Refused(KongmingError):
    """What was asked is not going to be done; the guest stays as it is.

    A refusal is an answer, not a fault: trying again changes nothing until
    the request, the guest or the host has changed.
    """

    reason = "refused"


class RequestInvalid(Refused):
    """The request can't be read."""

    reason = "request_invalid"


class RequestKeyUnknown(Refused):
    """The metadata has a ``kongming-`` key that means nothing to us."""

    reason = "request_key_unknown"


class CpuUnknown(Refused):
    """A CPU was asked for that the host does not have."""

    reason = "cpu_unknown"


class CpuOffline(Refused):
    """A CPU was asked for that is offline now."""

    reason = "cpu_offline"


class VcpuUnknown(Refused):
    """A vCPU was named that the guest does not have."""

    reason = "vcpu_unknown"


class NotNova(Refused):
    """The libvirt domain was not made by Nova."""

    reason = "not_nova"


class NovaOwned(Refused):
    """Nova itself decides where this guest runs."""

    reason = "nova_owned"


class PinningUnsupported(Refused):
    """libvirt has no thread for each vCPU of this guest to pin."""

    reason = "pinning_unsupported"


class Failed(KongmingError):
    """It should have worked and did not; it will be tried again."""

    reason = "failed"


class StepFailed(Failed):
    """libvirt refused a step; the steps before it were undone."""

    reason = "step_failed"


class NotVerified(Failed):
    """libvirt agreed to every step, but the threads run elsewhere."""

    reason = "not_verified"


class GuestAbsent(KongmingError):
    """There is no running domain to work on now."""

    reason = "guest_absent"


class HypervisorUnavailable(KongmingError):
    """libvirt does not answer."""

    reason = "hypervisor_unavailable"


class StoreUnavailable(KongmingError):
    """What is wanted can't be read from or written to the state path."""

    reason = "store_unavailable"


class EventMalformed(KongmingError):
    """A notification can't be understood."""

    reason = "event_malformed"


class ConfigInvalid(KongmingError):
    """An option, or a file that it names, can't be used as it is."""

    reason = "config_invalid"
