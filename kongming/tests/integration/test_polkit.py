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

"""Who may do what with libvirt, as group, polkit and access control decide; real ones."""

import os
from pathlib import Path
import shutil
import subprocess
import sys
import tempfile

import pytest

from kongming.hypervisor.connection import run_event_loop
from kongming.tests.integration.conftest import Cloud, applied, status
from kongming.tests.testbed.polkit import Polkit
from kongming.tests.testbed.process import patience, run
from kongming.tests.testbed.reachable import ReachableLibvirtd, auth_conf

pytestmark = pytest.mark.needs_mounts

USER = "nobody"
# It can read and enter all, so that Python and its packages may be anywhere; write nothing.
AS_USER = (
    *("setpriv", "--reuid", USER, "--regid", "nogroup"),
    *("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"),
)
CONNECT = """
import os, pwd, sys
from kongming.cmd import status
from kongming.hypervisor.opener import connect
from kongming.status.hypervisor import may_write
if os.geteuid() == 0:
    user = pwd.getpwnam("nobody")
    os.setgroups([]); os.setgid(user.pw_gid); os.setuid(user.pw_uid)
try:
    connection = connect(sys.argv[1])
    print("connected", *(found.details for found in may_write(connection)))
except Exception as error:
    print(error)
"""
WRITE = """
polkit.addRule(function(action, subject) {
    if (action.id.indexOf("org.libvirt.api.domain.") == 0 && subject.user == "nobody") {
        return polkit.Result.%s;
    }
});
"""


@pytest.fixture(scope="module")
def root():
    """A folder that all users may enter."""
    run_event_loop()
    root = Path(tempfile.mkdtemp(prefix="kongming-polkit-"))
    root.chmod(0o755)
    yield root
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def polkit(root):
    with Polkit(root / "polkit") as polkit:
        yield polkit


@pytest.fixture
def libvirtd_of(root):
    """Return a function that starts a libvirtd with settings."""
    started = []

    def start(polkit=None, **settings):
        folder = Path(tempfile.mkdtemp(dir=root))
        folder.chmod(0o755)
        env = polkit.env if polkit else {}
        started.append(ReachableLibvirtd(folder, settings=settings, env=env))
        return started[-1].__enter__()

    yield start
    for libvirtd in started:
        libvirtd.__exit__(None, None, None)


def as_user(uri, *groups):
    """Open a connection as the user; return the outcome, without what libvirt writes itself."""
    chosen = ["--groups", ",".join(groups)] if groups else ["--clear-groups"]
    command = [*AS_USER, *chosen, "--", sys.executable, "-c", CONNECT, uri]
    ended = run(command)
    return ended.stdout


def test_a_socket_of_a_group_names_it_and_the_command(libvirtd_of):
    there = libvirtd_of(unix_sock_group="libvirt", unix_sock_rw_perms="0770")
    output = as_user(there.over("unix"))
    assert f"user {USER} is not in the group libvirt, which may open {there.folder}" in output
    assert f"'usermod -aG libvirt {USER}'" in output
    assert as_user(there.over("unix"), "libvirt") == "connected\n"


def test_a_socket_of_root_alone_names_the_option_to_set(libvirtd_of):
    assert 'unix_sock_group = "libvirt"' in as_user(libvirtd_of().over("unix"))


def test_where_polkit_decides_the_group_in_etc_group_counts(polkit, libvirtd_of):
    there = libvirtd_of(polkit, auth_unix_rw="polkit", unix_sock_rw_perms="0777")
    for groups in ((), ("libvirt",)):
        output = as_user(there.over("unix"), *groups)
        assert f"polkit does not let user {USER} manage libvirt" in output
        assert f"'usermod -aG libvirt {USER}'" in output
    polkit.add_to_group(USER)
    assert as_user(there.over("unix")) == "connected\n"


def test_an_operation_that_access_control_denies_is_found_by_status_and_refused_once(
    broker, polkit, libvirtd_of, cpus
):
    polkit.rule(WRITE % "NO")
    there = libvirtd_of(polkit, access_drivers=["polkit"], unix_sock_rw_perms="0777")
    output = as_user(there.over("unix"))
    assert "connected" in output
    assert "access control" in output
    polkit.rule("")
    cloud = Cloud(broker, there, Path(tempfile.mkdtemp(dir=there.root)))
    guest = cloud.guest()
    assert "guests can't be changed: libvirt's access control" in as_user(there.over("unix"))
    daemon = cloud.daemon(options="[executor]\ncheck_interval = 1\nretry_interval_max = 1\n")
    for folder in (cloud._root, daemon.conf.parent):
        shutil.chown(folder, USER)
    daemon.process.command = [*AS_USER, "--clear-groups", "--", *daemon.process.command]
    with daemon:
        cloud.publish(guest, str(cpus[0]))
        assert status(daemon, guest, "refused").reason == "libvirt_forbids"
        cloud.settle(daemon)
        log = daemon.log()
        assert log.count(f"Instance {guest.uuid}: refused (libvirt_forbids)") == 1
        assert "undone" not in log
        polkit.rule(WRITE % "YES")
        assert as_user(there.over("unix")) == "connected\n"
        daemon.reload()
        applied(daemon, guest)
        guest.wait_on(cpus[0])
    cloud.close()


def test_an_auth_conf_that_may_not_be_read_is_named(root, libvirtd_of, monkeypatch):
    folder = root / "config/libvirt"
    folder.mkdir(parents=True)
    (folder / "auth.conf").write_text(auth_conf())
    (folder / "auth.conf").chmod(0o600)
    there = Path(tempfile.mkdtemp(dir=root))
    there.chmod(0o755)
    settings = {"unix_sock_rw_perms": "0777"}
    with ReachableLibvirtd(there, login=True, settings=settings) as guarded:
        ended = subprocess.run(
            [sys.executable, "-c", CONNECT, guarded.over("unix")],
            env={**os.environ, "XDG_CONFIG_HOME": str(root / "config")},
            capture_output=True,
            text=True,
            timeout=60 * patience(),
        )
    assert f"user {USER} may not read {folder}/auth.conf" in ended.stdout, ended.stderr
