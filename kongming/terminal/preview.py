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
"""``allocation preview``: the time windows of the next days."""

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
    """Add ``--days``."""
    parser.add_argument(
        "--days",
        metavar="<days>",
        type=int,
        default=7,
        help="Days to show, from now (default: 7).",
    )


def rows(
    days: int, desired: Allocation, show: Callable[[Allocation], Any], log: logging.Logger
) -> list[tuple[str, str, str, Any]]:
    """Return a row for each span of the next days: from, to, window, allocation.

    :param show: converts an allocation to a cell.
    :param log: the log for a warning if rows are left out.
    :raises RequestInvalid: if the number of days is invalid, or a window can't be read here.
    """
    if not 1 <= days <= _DAYS_MAX:
        raise exception.RequestInvalid(f"--days {days} is not from 1 to {_DAYS_MAX}")
    begin = datetime.now(UTC)
    end = begin + timedelta(days=days)
    windows = [each.window for each in desired.windows]
    spans = list(islice(preview(windows, begin, end), _ROWS_MAX))
    if spans[-1].end < end:
        log.warning("only the first %d rows are shown: use a smaller --days", _ROWS_MAX)
    # Many spans have the same allocation, so each is converted once.
    shown = {each.window.name: show(desired.during(each)) for each in desired.windows}
    base = show(Allocation(**desired.parts()))
    return [
        (
            times.written(span.begin.timestamp()),
            times.written(span.end.timestamp()),
            span.window or "",
            base if span.window is None else shown[span.window],
        )
        for span in spans
    ]
