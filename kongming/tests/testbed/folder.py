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

"""Where a testbed that a command runs keeps its files: a folder that is fit for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
import os
from pathlib import Path
import shutil
import tempfile

# With room for the longest path that the parts below make: see `embedded`.
LONGEST = 24
# RabbitMQ stops its publishers when less than 50 MB are free.
ROOM = 150_000_000
FOLDERS = ("/tmp", "/var/tmp", "/dev/shm", "/run")


def fit_folder(
    folders: Iterable[str] | None = None, free: Callable[[str], int] | None = None
) -> str:
    """Return the first folder that is short, writable and has room; else the one with most.

    :param folders: those to choose from, best first; by default $TMPDIR and the usual ones
    :param free: gives the bytes that are free in one
    :raises OSError: no folder can be written
    """
    chosen = folders or (os.environ.get("TMPDIR", FOLDERS[0]), *FOLDERS)
    room: dict[str, int] = {}
    for folder in chosen:
        if len(folder) <= LONGEST and _is_writable(folder):
            room[folder] = (free or _free)(folder)
            if room[folder] >= ROOM:
                return folder
    if not room:
        raise OSError(f"none of these can be written: {', '.join(chosen)}")
    return max(room, key=lambda folder: room[folder])


def _free(folder: str) -> int:
    return shutil.disk_usage(folder).free


def _is_writable(folder: str) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return Path(folder).is_absolute()
    except OSError:
        return False
