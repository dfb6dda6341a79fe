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

"""Growing delays between attempts."""


class Backoff:
    """Delays of 1, 2, 4, … seconds up to a maximum."""

    def __init__(self, maximum: float) -> None:
        self._maximum = maximum
        self._delay = min(1.0, maximum)

    def next(self) -> float:
        """Return the next delay in seconds."""
        delay, self._delay = self._delay, min(2 * self._delay, self._maximum)
        return delay

    def reset(self) -> None:
        """Start again with the shortest delay, after a success."""
        self._delay = min(1.0, self._maximum)
