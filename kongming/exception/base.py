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
"""What all errors have: a stable reason code, and a message for the operator."""

from __future__ import annotations

from typing import ClassVar


class KongmingError(Exception):
    """The base of all errors of Kongming.

    ``reason`` is the stable code; the message is for the operator.

    :ivar retry_after: the shortest time in seconds until a retry makes sense.
    """

    reason: ClassVar[str] = "internal_error"
    retry_after = 0.0

    @property
    def for_clients(self) -> str:
        """The message without details for operators."""
        return str(self)


class Refused(KongmingError):
    """A rule refuses the request; the guest stays unchanged.

    A retry gives the same result until the request, the guest or the host has changed.
    """

    reason = "refused"


class Failed(KongmingError):
    """An attempt failed, and will be retried."""

    reason = "failed"
