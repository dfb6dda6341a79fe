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

"""A request: what one source asks for one instance.

Several may ask for the same instance; the one with the last word counts.
"""

from __future__ import annotations

from dataclasses import dataclass
import enum

from kongming import exception
from kongming.allocation.allocation import Allocation


class Source(enum.StrEnum):
    """Who may ask; each has the last word over those before it."""

    METADATA = "metadata"
    API = "api"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked.

    :ivar source: one of :class:`Source`; of one that was kept, another version may know more.
    :ivar asked: the allocation, or the refusal if the request can't be read.
    :ivar asked_by: who or what asked, for the operator to read.
    :ivar asked_at: when, in seconds since the epoch.
    :ivar generation: the number that whoever asked has for this request; 0 if none.
    """

    source: str
    asked: Allocation | exception.Refused
    asked_by: str
    asked_at: float
    generation: int = 0
