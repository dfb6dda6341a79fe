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


"""The packages of each release of Debian, built once, and machines to install them on."""

import functools
import os
from pathlib import Path
import re
import subprocess

import pytest

from kongming.tests.integration.conftest import broker
from kongming.tests.testbed import debian_root
from kongming.tests.testbed.debian_machine import DebianMachine

__all__ = ["broker"]
AT = "/srv/packages"
DROP_IN = "/etc/systemd/system/kongming-api.service.d"
APT = "DEBIAN_FRONTEND=noninteractive apt-get -y -q --no-install-recommends"


@pytest.fixture(scope="session", params=debian_root.SUITES)
def suite(request):
    return request.param


@pytest.fixture(scope="session")
def build(tmp_path_factory):
    """Return a function that builds the packages of a release, once."""

    @functools.cache
    def build(suite):
        if kept := os.environ.get("KONGMING_PACKAGES"):
            return Path(kept) / suite
        folder = tmp_path_factory.mktemp("packages") / suite
        with DebianMachine(suite, "build") as machine:
            machine.run(f"tools/debian-packages {AT}")
            machine.get(AT, folder)
        return folder

    return build


@pytest.fixture(scope="session")
def built(build, suite):
    return build(suite)


@pytest.fixture
def machine(suite, built):
    with DebianMachine(suite, "install", systemd=True) as machine:
        machine.put(built.glob("*.deb"), AT)
        machine.run(f"{APT} update")
        yield machine


def api_at(port):
    """Have the API listen at another port: all these machines share one network."""
    start = f"gunicorn --bind 127.0.0.1:{port} --threads 4 kongming.wsgi.api:application"
    written = f"[Service]\nExecStart=\nExecStart=/usr/lib/kongming/bin/{start}"
    return (
        f"mkdir -p {DROP_IN}",
        f"echo '{written}' > {DROP_IN}/port.conf",
        "systemctl daemon-reload",
    )


def fields(deb):
    """Return name and version of a package."""
    shown = subprocess.check_output(["dpkg-deb", "--field", deb, "Package", "Version"], text=True)
    return re.findall(r": (.*)", shown)


def newer(built, folder):
    """Return the packages with a higher version; all else is the same."""
    for deb in built.glob("*.deb"):
        name, version = fields(deb)
        content = folder / name
        subprocess.run(["dpkg-deb", "--raw-extract", deb, content], check=True)
        control = content / "DEBIAN/control"
        control.write_text(control.read_text().replace(version, f"{version}.1"))
        result = folder / deb.name.replace(version, f"{version}.1")
        subprocess.run(["dpkg-deb", "-Znone", "--build", content, result], check=True)
        yield result
