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

"""The lock by which a state path has one executor at most."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

from kongming import exception
from kongming.hypervisor.process import has_own_pids
from kongming.runtime import ownership

NAME = "executor.lock"
_LOCKS = Path("/proc/locks")


def acquire(state_path: Path) -> IO[str]:
    """Lock the state path against a second executor, until the file is closed.

    :raises StoreUnavailable: if there is one, or the directory is unusable.
    """
    path = state_path / NAME
    try:
        state_path.mkdir(mode=0o750, parents=True, exist_ok=True)
        lock = path.open("w")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise exception.StoreUnavailable(
            f"another Kongming service uses {state_path}: stop it, or set another [DEFAULT] "
            "state_path for this one"
        ) from error
    except OSError as error:
        databases = sorted(state_path.glob("*.sqlite*"))
        hint = ownership.explain([path, *databases, state_path]) or (
            "create the directory, owned by the user of this service, or change [DEFAULT] "
            "state_path"
        )
        raise exception.StoreUnavailable(f"{state_path}: {error.strerror}; {hint}") from error
    return lock


def is_held(state_path: Path) -> bool:
    """Return whether an executor runs, without delaying one that starts."""
    try:
        status = (state_path / NAME).stat()
    except OSError:
        return False
    try:
        locks = _LOCKS.read_text(errors="replace").splitlines()
    except OSError:
        return _is_locked(state_path)
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    instances = f"{device}:{status.st_ino}"
    if any(instances in line.split() and "FLOCK" in line for line in locks):
        return True
    # The list omits locks of processes in other PID namespaces.
    return has_own_pids() and _is_locked(state_path)


def _is_locked(state_path: Path) -> bool:
    """Try the lock; an executor that starts at this very moment would fail."""
    try:
        with (state_path / NAME).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
