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

"""Permission problems of files in the state path, with their owner and the way out."""

from __future__ import annotations

from collections.abc import Iterable
import os
from pathlib import Path
import stat

from kongming.runtime.users import user

_OWNER_MAY = 0o600


def explain(paths: Iterable[Path], *, tool: bool = False) -> str | None:
    """Return the permission problem of files, and the way out; None if there is none.

    :param paths: files and folders, which may be missing. The first one with a problem is named,
        and all of them in the command that solves it.
    :param tool: whether this is a command, whose user may be the wrong one, and not the service.
    """
    denied = [(path, status) for path in paths if (status := _denied(path))]
    if not denied:
        return None
    (first, status), me = denied[0], user()
    owner = user(status.st_uid)
    named = " ".join(str(path) for path, other in denied if other.st_uid == status.st_uid)
    if status.st_uid == os.geteuid():
        if status.st_mode & _OWNER_MAY == _OWNER_MAY:
            return f"{first} is on a file system that is read-only"
        return f"{first} may not be written by its owner {owner}: run 'chmod u+rw {named}'"
    sudo = f"'sudo -u {owner} ...'"
    text = f"{first} belongs to user {owner}, but this process runs as user {me}"
    if tool:
        root = status.st_uid == 0
        return f"{text}: run it as " + ("root" if root else f"{owner} or root, as in {sudo}")
    if status.st_uid == 0:
        return f"{text} (was the service started as root once?): run 'chown {me}: {named}'"
    return (
        f"{text}: run it as {owner}, as in {sudo}, or, if {me} is the service's "
        f"user, run 'chown {me}: {named}'"
    )


def _denied(path: Path) -> os.stat_result | None:
    """Return the status of a file that this user may not read and write; else None."""
    try:
        status = path.stat()
    except OSError:
        return None
    mode = os.R_OK | os.W_OK | (os.X_OK if stat.S_ISDIR(status.st_mode) else 0)
    return None if os.access(path, mode, effective_ids=True) else status
