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
"""``allocation preview``: which time window will be in force when."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import islice
import logging
from typing import Any

from kongming import exception
from kongming.allocation.allocation import Allocation
from kongming.allocation.windows import preview
from kongming.terminal import times

_DAYS_MAX = 366
# More than a window that begins each hour has in a year.
_ROWS_MAX = 20_000


def add_days_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that says how far to look."""
    parser.add_argument(
        "--days",
        metavar="<days>",
        type=int,
        default=7,
        help="Days to show, from now (default: 7).",
    )


def rows(
    days: int, asked: Allocation, show: Callable[[Allocation], Any], log: logging.Logger
) -> list[tuple[str, str, str, Any]]:
    """Return a row for each span of the next days: from, to, window, what is requested then.

    :param show: writes what is requested.
    :param log: is told if there is more than is returned.
    :raises RequestInvalid: if it is no number of days to look ahead, or a
        window can't be read here.
    """
    if not 1 <= days <= _DAYS_MAX:
        raise exception.RequestInvalid(f"--days {days} is not from 1 to {_DAYS_MAX}")
    begin = datetime.now(UTC)
    end = begin + timedelta(days=days)
    windows = [each.window for each in asked.windows]
    spans = list(islice(preview(windows, begin, end), _ROWS_MAX))
    if spans[-1].end < end:
        log.warning("only the first %d rows are shown: use a smaller --days", _ROWS_MAX)
    # Of many spans few are different: what is shown is made once for each.
    shown = {each.window.name: show(asked.during(each)) for each in asked.windows}
    base = show(Allocation(**asked.parts()))
    return [
        (
            times.written(span.begin.timestamp()),
            times.written(span.end.timestamp()),
            span.window or "",
            base if span.window is None else shown[span.window],
        )
        for span in spans
    ]
