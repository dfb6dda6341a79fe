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

"""Misspelt metadata keys."""

from __future__ import annotations

from collections.abc import Container
import re

# Signs that are written in place of a hyphen; Nova accepts no others in a key.
_HYPHENS = re.compile(r"[-_:. ]+")
_CONTINUED = re.compile(r"(.+)-[0-9]{1,3}")


def suggest(key: str, known: Container[str]) -> str | None:
    """Return the key that another spelling means; None if it means none.

    >>> suggest("Kongming_CPU:shares", {"kongming-cpu-shares"})
    'kongming-cpu-shares'
    """
    spelled = _HYPHENS.sub("-", key.lower()).strip("-")
    if spelled == key:
        return None
    continued = _CONTINUED.fullmatch(spelled)
    base = continued[1] if continued else spelled
    return spelled if spelled in known or base in known else None
