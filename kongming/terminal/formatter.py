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

"""The output format ``picture``: text as drawn by the command."""

import argparse
from collections.abc import Sequence
from typing import Any, TextIO

from cliff.formatters import base

from kongming.terminal import picture


class PictureFormatter(base.SingleFormatter):
    """Writes the only column, which the command has drawn."""

    def add_argument_group(self, parser: argparse.ArgumentParser) -> None:
        group = parser.add_argument_group("picture formatter")
        group.add_argument(
            "--width",
            metavar="<columns>",
            type=_width,
            default=picture.WIDTH,
            help=f"Columns of the longest line, at least {picture.WIDTH_MIN} (default: "
            f"{picture.WIDTH}).",
        )

    def emit_one(
        self,
        column_names: Sequence[str],
        data: Sequence[Any],
        stdout: TextIO,
        parsed_args: argparse.Namespace,
    ) -> None:
        for text in data:
            stdout.write(f"{_writable(text, stdout)}\n")


def _width(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) >= picture.WIDTH_MIN):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of columns, {picture.WIDTH_MIN} or more"
        )
    return int(text)


def _writable(text: str, stdout: TextIO) -> str:
    try:
        text.encode(stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return picture.ascii_only(text)
    return text
