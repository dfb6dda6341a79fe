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
"""What pip installs with each extra, in an environment that has nothing else."""

import os
from pathlib import Path
import subprocess
import sys

import pytest

import kongming
from kongming.tests.testbed.process import run

TREE = Path(kongming.__file__).parents[1]
CONF = "[DEFAULT]\nhost = a\nstate_path = {}\ntransport_url = rabbit://u:p@127.0.0.1:1/\n"
CONF += "[database]\nmax_retries = 1\n[keystone_authtoken]\nauth_type = password\n"
ONLY_CONTROLLERS = ("alembic", "falcon", "keystonemiddleware", "oslo.db", "SQLAlchemy")
ONLY_COMPUTE = ("libvirt-python",)
INSTALL = "pip install 'kongming[{}]'"

pytestmark = pytest.mark.slow


class Environment:
    """A virtual environment with the wheel, and one extra of it."""

    def __init__(self, folder, wheel, extra):
        self.folder = folder
        self.conf = folder / "kongming.conf"
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        named = f"{wheel}[{extra}]" if extra else str(wheel)
        self._pip("install", "-q", "-c", str(TREE / "constraints.txt"), named)
        self.conf.write_text(CONF.format(folder / "state"))

    def _pip(self, *arguments):
        pip = [self.folder / "venv/bin/python", "-m", "pip", "--disable-pip-version-check"]
        return subprocess.check_output([*pip, *arguments], text=True)

    def installed(self):
        return {line.partition("==")[0] for line in self._pip("freeze").splitlines()}

    def run(self, program, *arguments):
        return run([self.folder / "venv/bin" / program, *arguments])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(["git", "clone", "-q", TREE, folder / "source"], check=True)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    environment = {**os.environ, "PBR_VERSION": "0.1.0"}
    subprocess.run(
        [*command, "--wheel-dir", folder, folder / "source"], check=True, env=environment
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_without_an_extra_the_client_is_installed_and_no_service_runs(wheel, tmp_path):
    alone = Environment(tmp_path, wheel, "")
    assert not alone.installed() & {*ONLY_CONTROLLERS, *ONLY_COMPUTE, "oslo.messaging"}
    shown = alone.run("openstack", "help", "kongming", "allocation", "set")
    assert (shown.returncode, "--vcpu-pinning" in shown.stdout) == (0, True), shown.stderr
    client = alone.run("python", "-c", "import kongming.client as c; print(c.SERVICE.all_types)")
    assert client.stdout == "['kongming']\n", client.stderr
    statuses = {"kongming-conductor": 1, "kongming-executor": 1, "kongming-status": 255}
    for program, status in statuses.items():
        ended = alone.run(program, "--config-file", alone.conf)
        assert ended.returncode == status
        assert "Traceback" not in ended.stderr
        assert INSTALL.format("compute") in ended.stderr


def test_a_compute_host_needs_no_package_of_controllers(wheel, tmp_path):
    compute = Environment(tmp_path, wheel, "compute")
    assert not compute.installed() & {*ONLY_CONTROLLERS}
    for program in ("kongming-notification-handler", "kongming-executor"):
        assert compute.run(program, "--version").returncode == 0
    conf = ("--config-file", compute.conf)
    status = compute.run("kongming-status", *conf, "--role", "executor", "upgrade", "check")
    assert "is not an option" not in status.stdout
    assert "a fault of Kongming" not in status.stdout
    listed = compute.run("kongming-manage", *conf, "allocation", "list")
    assert "has a service of Kongming run on this host" in listed.stderr
    for command in (("kongming-manage", *conf, "db", "sync"), ("kongming-conductor", *conf)):
        refused = compute.run(*command)
        assert refused.returncode == 1
        assert INSTALL.format("controller") in refused.stdout + refused.stderr


def test_a_controller_needs_no_libvirt(wheel, tmp_path):
    controller = Environment(tmp_path, wheel, "controller")
    assert not controller.installed() & {*ONLY_COMPUTE}
    conf = ("--config-file", controller.conf)
    (tmp_path / "state").mkdir()
    synced = controller.run("kongming-manage", *conf, "db", "sync")
    assert synced.returncode == 0, synced.stderr
    status = controller.run("kongming-status", *conf, "upgrade", "check")
    assert "Check: Database" in status.stdout
    assert "a fault of Kongming" not in status.stdout
    for command in (("kongming-manage", *conf, "host", "show"), ("kongming-executor", *conf)):
        refused = controller.run(*command)
        assert refused.returncode == 1
        assert INSTALL.format("compute") in refused.stdout + refused.stderr
