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

"""Reading the kernel's small files, much more cheaply than open() does: each pass reads many."""

from __future__ import annotations

import os
from pathlib import Path

from kongming.cpuset import CpuSet


def read_text(path: str | Path) -> str:
    """Return what a file of /proc, /sys or a control group holds.

    :raises OSError: if it can't be read.
    """
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    parts = []
    try:
        # Some are given page by page: only an empty read is the end.
        while part := os.read(file, 65536):
            parts.append(part)
    finally:
        os.close(file)
    return b"".join(parts).decode(errors="replace")


def read_ids(path: str | Path) -> CpuSet:
    """Return the ids that a file lists: none if it is empty.

    :raises OSError: if it can't be read.
    """
    return parse_ids(read_text(path))


def parse_ids(text: str) -> CpuSet:
    """Read the kernel's lists of ids; some kernels write ``(null)`` for none."""
    text = text.strip()
    return CpuSet() if text in ("", "(null)") else CpuSet.parse(text)
