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

"""Whether an executor runs on a state path is found out wherever the kernel's locks are shown."""

import pytest

from kongming import exception
from kongming.executor import lock


@pytest.fixture(params=["shown", "no such file", "those of other processes only"])
def locks(request, tmp_path, monkeypatch):
    """How the kernel shows its locks."""
    if request.param != "shown":
        path = tmp_path / "locks"
        if request.param != "no such file":
            path.write_bytes(b"1: FLOCK ADVISORY WRITE 1 00:01:2 0 EOF\n\xff\n")
        monkeypatch.setattr(lock, "_LOCKS", path)
        monkeypatch.setattr(lock, "has_own_pids", lambda: True)


@pytest.mark.usefixtures("locks")
def test_a_state_path_is_locked_as_long_as_an_executor_runs(tmp_path):
    state = tmp_path / "state"
    assert not lock.is_held(state)
    taken = lock.acquire(state)
    assert lock.is_held(state)
    with pytest.raises(exception.StoreUnavailable, match="another Kongming service uses"):
        lock.acquire(state)
    taken.close()
    assert not lock.is_held(state)
    lock.acquire(state).close()
