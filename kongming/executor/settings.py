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
"""The options of a compute host that a reload changes, as a value."""

from __future__ import annotations

from dataclasses import dataclass, field

from kongming.host.rules import Rules


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of an executor; a reload replaces all of them at once.

    :ivar retry_max_s: the longest delay between attempts.
    :ivar check_interval_s: the time between two checks of all guests; 0 means never.
    :ivar history_days: how many days the history is kept.
    """

    rules: Rules = field(default_factory=Rules)
    retry_max_s: float = 60.0
    check_interval_s: float = 60.0
    history_days: int = 90
