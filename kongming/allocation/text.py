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

"""Allocations as text for people."""

from __future__ import annotations

from kongming.allocation import metadata
from kongming.allocation.allocation import Allocation


def lines(allocation: Allocation) -> list[str]:
    """Return a line for each part of an allocation, and one for each of its time windows."""
    found = _parts(allocation)
    for each in allocation.windows:
        when = each.window
        found.append(
            f"{when.name}: {when.start} ({when.timezone}), {when.duration_s} s"
            + "".join(f", {part}" for part in _parts(each.instead))
        )
    return found


def _parts(allocation: Allocation) -> list[str]:
    written = metadata.write(allocation)
    return [f"{key.removeprefix(metadata.PREFIX)}={value}" for key, value in written.items()]
