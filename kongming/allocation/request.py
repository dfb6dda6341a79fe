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

"""A request: what one source requests for one instance.

Several sources may request something for the same instance; one takes precedence.
"""

from __future__ import annotations

from dataclasses import dataclass
import enum

from kongming import exception
from kongming.allocation.allocation import Allocation


class Source(enum.StrEnum):
    """The sources of requests; each takes precedence over those before it."""

    METADATA = "metadata"
    API = "api"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Request:
    """What one source requests.

    :ivar source: one of :class:`Source`; stored by another version, it may be another one.
    :ivar requested: the allocation, or the refusal if the request is invalid.
    :ivar requested_by: who or what made the request, for the operator.
    :ivar requested_at: when, in seconds since the epoch.
    :ivar generation: the source's number for this request; 0 if it has none.
    """

    source: str
    requested: Allocation | exception.Refused
    requested_by: str
    requested_at: float
    generation: int = 0
