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

"""The orchestrator of the guide, run as it is printed there."""

import json
import os
from pathlib import Path
import subprocess
import sys

import pytest

import kongming
from kongming.tests.functional.cloud import wait_for
from kongming.tests.functional.site import Site, serving

TREE = Path(kongming.__file__).parents[1]


@pytest.fixture
def site(tmp_path, connection):
    # The test driver's CPUs 0, 2 and 4 are online.
    site = Site(tmp_path, connection, "[guard]\nreserved_cpus = 0\n")
    site.start()
    yield site
    site.stop()
    for domain in site.domains:
        domain.destroy()


@pytest.fixture
def mano(site, tmp_path):
    """Run the program, with a clouds.yaml."""
    with serving(site) as url:
        clouds = tmp_path / "clouds.yaml"
        lab = {"auth_type": "none", "kongming_endpoint_override": url}
        clouds.write_text(json.dumps({"clouds": {"lab": lab}}))
        environment = {**os.environ, "OS_CLIENT_CONFIG_FILE": str(clouds), "PYTHONPATH": str(TREE)}

        def mano(*arguments):
            command = [sys.executable, TREE / "doc" / "examples" / "mano.py", "lab", *arguments]
            return subprocess.run(command, capture_output=True, text=True, env=environment)

        yield mano


def test_the_example_places_changes_and_releases_a_vnf(site, mano):
    one, two = sorted(site.guest() for _ in range(2))
    before = site.pins(one)
    wait_for(lambda: (host := site.hosts.get(site.host)) and two in json.dumps(host.snapshot))
    ended = mano("vnf", f"{one}=1", f"{two}=1")
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr
    lines = [line for line in ended.stdout.splitlines() if "pending" not in line]
    assert lines.pop(0) == "1 of 2 applied (1 refused)"
    assert f"{one} on {site.host}: refused (cpu_reserved): CPU 0 is reserved" in lines.pop(0)
    assert lines[:2] == ["2 of 2 applied", "vnf is in force with generation 2"]
    assert "1 of 1 applied, 1 of 1 released" in lines
    assert lines[-1] == "vnf is deleted"
    assert site.pins(one) == site.pins(two) == before
    (applied,) = [each for each in site.allocations.history(one) if each.status == "applied"]
    assert applied.allocation.to_json() == {"vcpu_pinning": "2"}


def test_the_example_sends_no_map_without_an_instance_that_it_was_given(site, mano):
    guest = site.guest()
    wait_for(lambda: (host := site.hosts.get(site.host)) and guest in json.dumps(host.snapshot))
    missing = "5f0c3b52-6a0e-4c6e-9a5f-0d6a4f0b8c11"
    ended = mano("vnf", f"{guest}=1", f"{missing}=1")
    assert (ended.returncode, ended.stderr) == (1, f"no host runs {missing}\n")
    assert site.allocations.get_map("vnf") is None
