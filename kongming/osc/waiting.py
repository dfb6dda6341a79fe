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
"""The options of commands that wait, and their messages."""

from __future__ import annotations

import argparse
import contextlib
from typing import TextIO

from kongming.client.progress import Progress, describe
from kongming.runtime.escaping import escape
from kongming.terminal import options

# A terminal has no room for more lines.
_LINES_MAX = 40


def add_options(parser: argparse.ArgumentParser, default: float) -> None:
    """Add ``--wait`` and ``--timeout``."""
    parser.add_argument(
        "--wait",
        action="store_true",
        help="Wait until the hosts have carried it out; exit with 1 if anything was not.",
    )
    parser.add_argument(
        "--timeout",
        metavar="<seconds>",
        type=options.seconds,
        default=default,
        help=f"With --wait: the maximum time in seconds (default: {default:g}).",
    )


class Messages:
    """The standard error, for messages to people; it may be closed."""

    def __init__(self, stderr: TextIO | None) -> None:
        self._stderr = stderr

    def print(self, text: str) -> None:
        """Write a line."""
        if self._stderr is not None:
            # The wait continues without a reader.
            with contextlib.suppress(OSError, ValueError):
                self._stderr.write(f"{escape(text)}\n")
                self._stderr.flush()


def print_undone(messages: Messages, progress: Progress) -> None:
    """Print the status of each instance for which the request is not in force."""
    missing = [*progress.undone, *progress.waiting]
    for each in missing[:_LINES_MAX]:
        messages.print(describe(each))
    if len(missing) > _LINES_MAX:
        messages.print(f"and {len(missing) - _LINES_MAX} more: see 'kongming allocation list'")
