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

"""A file that belongs to somebody else: named, with its owner and what mends that."""

import os
from pathlib import Path
import pwd
import stat
import subprocess
import sys

import pytest

from kongming import exception
from kongming.executor import lock
from kongming.executor.store.store import FILE_NAME, Store
from kongming.notification.pending_lookups import PendingLookups
from kongming.runtime import ownership, users

ME = pwd.getpwuid(os.geteuid()).pw_name
NOBODY = pwd.getpwnam("nobody")

# Opens what the service opens, or what a command does, as somebody else.
_OPEN = """
import sys
from pathlib import Path
from kongming import exception
from kongming.executor import lock
from kongming.executor.store.store import Store
what, path = sys.argv[1], Path(sys.argv[2])
try:
    lock.acquire(path) if what == "lock" else Store(path, create=what == "service")
except exception.StoreUnavailable as error:
    print(error)
"""


@pytest.fixture
def locked_out(monkeypatch):
    """No file may be read or written."""
    monkeypatch.setattr(os, "access", lambda *_arguments, **_more: False)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    return path


def test_a_usable_file_needs_no_explanation(file):
    assert ownership.explain([file.with_name("missing"), file, file.parent]) is None


def test_a_file_of_another_user_is_named_with_its_owner_and_the_command(
    file, locked_out, monkeypatch
):
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY.pw_uid)
    message = ownership.explain([file.with_name("missing"), file])
    assert message.startswith(f"{file} belongs to user {ME}, but this process runs as user nobody")
    assert message.endswith(f": run 'chown nobody: {file}'")


@pytest.mark.parametrize(("owner", "hinted"), [(0, True), (NOBODY.pw_uid, False)])
def test_only_a_file_of_root_may_come_from_a_start_as_root(
    file, locked_out, monkeypatch, owner, hinted
):
    status = os.stat_result((stat.S_IFREG | 0o600, 0, 0, 1, owner, 0, 0, 0, 0, 0))
    monkeypatch.setattr(Path, "stat", lambda _path: status)
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000_001)
    assert ("(was the service started as root once?)" in ownership.explain([file])) is hinted


def test_a_directory_must_be_searchable(tmp_path, file, monkeypatch):
    checked = {}
    monkeypatch.setattr(os, "access", lambda path, mode, **_more: checked.setdefault(path, mode))
    ownership.explain([tmp_path, file])
    assert checked == {tmp_path: os.R_OK | os.W_OK | os.X_OK, file: os.R_OK | os.W_OK}


def test_a_command_is_to_be_run_by_another_user_instead(file, locked_out, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY.pw_uid)
    message = ownership.explain([file], tool=True)
    assert message.endswith(": run it as root" if ME == "root" else f"'sudo -u {ME} ...'")
    assert "chown" not in message


def test_a_wrong_user_of_a_service_or_command_learns_the_right_one(file, locked_out, monkeypatch):
    owner = pwd.getpwnam("daemon")
    status = os.stat_result((stat.S_IFREG | 0o600, 0, 0, 1, owner.pw_uid, 0, 0, 0, 0, 0))
    monkeypatch.setattr(Path, "stat", lambda _path: status)
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY.pw_uid)
    message = ownership.explain([file], tool=True)
    assert message.endswith(": run it as daemon or root, as in 'sudo -u daemon ...'")
    message = ownership.explain([file])
    assert (
        ": run it as daemon, as in 'sudo -u daemon ...', or, if nobody is the service's" in message
    )
    assert message.endswith(f"run 'chown nobody: {file}'")


def test_an_owned_file_without_permission_is_another_case(file, locked_out):
    file.chmod(0o400)
    assert ownership.explain([file]).endswith(f"owner {ME}: run 'chmod u+rw {file}'")


def test_an_owned_file_with_permission_is_on_a_read_only_file_system(file, locked_out):
    file.chmod(0o600)
    assert ownership.explain([file]) == f"{file} is on a file system that is read-only"


def test_a_user_without_a_name_is_a_number():
    assert users.user(4_000_000_001) == "4000000001"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of several users")
@pytest.mark.parametrize("opened", ["lock", "service", "command"])
def test_a_service_that_root_started_first_leaves_files_that_are_named(tmp_path, opened):
    for part in (tmp_path, *tmp_path.parents[:-2]):
        part.chmod(0o755)
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, NOBODY.pw_uid, NOBODY.pw_gid)
    lock.acquire(state).close()
    Store(state).close()
    PendingLookups(state).close()
    left = state / ("executor.lock" if opened == "lock" else FILE_NAME)
    for kept in state.iterdir():
        kept.chmod(0o600)
    # A checkout of root's may not be read by others: what is imported is brought along.
    code = f"import os; os.setgid({NOBODY.pw_gid}); os.setuid({NOBODY.pw_uid})\n"
    script = "import kongming.executor.store.store, kongming.executor.lock\n" + code + _OPEN
    output = subprocess.run(
        [sys.executable, "-c", script, opened, str(state)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    ).stdout
    assert f"{left} belongs to user root, but this process runs as user nobody" in output
    mended = ": run it as root\n" if opened == "command" else f": run 'chown nobody: {left}"
    assert mended in output
    if opened == "lock":
        # All at once: the next start would meet the next one.
        assert f" {state / FILE_NAME}" in output
        assert f" {state / 'lookups.sqlite'}" in output


def test_a_directory_that_can_not_be_created_is_still_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(exception.StoreUnavailable, match="create the directory"):
        lock.acquire(tmp_path / "file" / "state")
