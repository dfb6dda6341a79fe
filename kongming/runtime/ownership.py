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

"""Why a file or folder of the state path can't be used: whose it is, and what mends that."""

from __future__ import annotations

from collections.abc import Iterable
import os
from pathlib import Path
import stat

from kongming.runtime.users import user

_OWNER_MAY = 0o600


def explain(paths: Iterable[Path], *, tool: bool = False) -> str | None:
    """Return what keeps this process from reading and writing files, and how to mend it.

    :param paths: files and folders, of which any may be missing; the first one
        that is in the way is told of, and all in the command that mends it.
    :param tool: whether this is a command that somebody typed, who may be the
        wrong user, and not the service.
    :returns: None if nothing of that is in the way.
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
    told = f"{first} belongs to user {owner}, but this process runs as user {me}"
    if tool:
        root = status.st_uid == 0
        return f"{told}: run it as " + ("root" if root else f"{owner} or root, as in {sudo}")
    if status.st_uid == 0:
        return f"{told} (was the service started as root once?): run 'chown {me}: {named}'"
    return (
        f"{told}: run it as {owner}, as in {sudo}, or, if {me} is the service's "
        f"user, run 'chown {me}: {named}'"
    )


def _denied(path: Path) -> os.stat_result | None:
    """Return whose a file is that may not be read and written; None if it may, or is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    wanted = os.R_OK | os.W_OK | (os.X_OK if stat.S_ISDIR(status.st_mode) else 0)
    return None if os.access(path, wanted, effective_ids=True) else status
