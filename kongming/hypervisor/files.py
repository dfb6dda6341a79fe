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

"""Reading of the kernel's small files, which is cheaper than open(): each pass reads many."""

from __future__ import annotations

from collections.abc import Callable
import errno
import os
from pathlib import Path
from typing import TypeVar

from kongming import exception
from kongming.allocation.cpuset import CpuSet, parse_ids

T = TypeVar("T")


def read_text(path: str | Path) -> str:
    """Return the content of a file of /proc, /sys or a control group.

    :raises OSError: if it can't be read; it names the file.
    """
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    parts = []
    try:
        # The kernel returns some files page by page: only an empty read is the end.
        while part := os.read(file, 65536):
            parts.append(part)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        os.close(file)
    return b"".join(parts).decode(errors="replace")


def read_as(path: str | Path, parse: Callable[[str], T]) -> T:
    """Return the parsed content of a file.

    :param parse: raises ValueError or RequestInvalid for content that the kernel does not write.
    :raises OSError: if it can't be read or parsed; it names the file.
    """
    text = read_text(path)
    try:
        return parse(text)
    except (ValueError, exception.RequestInvalid) as error:
        raise OSError(
            errno.EINVAL, "its content is not what a kernel writes there", str(path)
        ) from error


def read_ids(path: str | Path) -> CpuSet:
    """Return the ids that a file lists: none if it is empty.

    :raises OSError: if it can't be read, or is no list of ids.
    """
    return read_as(path, parse_ids)


def reason(error: OSError) -> str:
    """Return why a file could not be read, with its name."""
    why = error.strerror or type(error).__name__
    return f"{error.filename}: {why}" if error.filename else why
