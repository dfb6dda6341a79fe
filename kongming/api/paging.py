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
"""Pages of lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar
from urllib.parse import urlencode

import falcon

T = TypeVar("T")


def limit_of(query: dict[str, Any], maximum: int) -> int:
    """Return the maximum number of entries of the page."""
    return min(int(query.get("limit", maximum)), maximum)


def cut(found: Sequence[T], limit: int) -> tuple[Sequence[T], bool]:
    """Return the page, and whether there are more entries than it has."""
    return found[:limit], len(found) > limit


def links(req: falcon.Request, query: dict[str, Any], marker: object) -> list[dict[str, str]]:
    """Return the link to the next page.

    :param marker: the last entry of this page.
    """
    follows = urlencode({**query, "marker": marker})
    return [{"rel": "next", "href": f"{req.prefix}{req.path}?{follows}"}]
