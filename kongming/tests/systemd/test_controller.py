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

"""The guide for the stand-alone API, typed as it is written, and the units it leads to."""

import json

import pytest

from kongming.tests.systemd.machine import Unit, sh
from kongming.tests.testbed import threads
from kongming.tests.testbed.pages import INSTALL, blocks, typed
from kongming.tests.testbed.process import wait_until

GUIDE = blocks(INSTALL / "standalone.rst")
API = "http://127.0.0.1:9630"
#: Those of the page, with the machine's own addresses; Keystone is not there.
CONF = """[DEFAULT]
host = compute-1
transport_url = rabbit://kongming:RABBITPASS@127.0.0.1:5672/kongming
[database]
connection = mysql+pymysql://kongming:DBPASS@127.0.0.1/kongming
[api]
auth_strategy = noauth
"""
UNITS = ("kongming-conductor", "kongming-api", "kongming-executor")
EXPOSURE_MAX = 2.0


def of(section):
    return [block for block in GUIDE if block.section.partition(" ")[2] == section]


@pytest.fixture(scope="module")
def controller():
    """API, conductor and executor on one machine, as the page leads to them."""
    sh("rm -rf /opt/kongming", "rm -f /usr/bin/kongming-*")
    database = next(block for block in of("Create the database") if block.kind == "sql")
    sh(*typed(of("Install the program")))
    sh(f"mysql << 'END'\n{database.text}\nEND")
    sh(*typed(of("Create the RabbitMQ users")))
    sh(*typed(of("Write kongming.conf")), written=CONF)
    sh(*typed(of("Create the tables")))
    sh(*typed(of("Start the conductor")))
    api = [line for line in typed(of("Start the API")) if "uwsgi" not in line]
    sh(*api)
    yield
    sh(f"systemctl disable --now {' '.join(UNITS)}")


@pytest.fixture(scope="module")
def executor(controller):
    # The extra of compute hosts, in the same environment; nothing runs meanwhile.
    sh(
        f"systemctl stop {' '.join(UNITS[:2])}",
        "umask 022",
        "/opt/kongming/bin/pip install -c constraints.txt '.[compute]'",
        "usermod -aG libvirt kongming",
        f"systemctl start {' '.join(UNITS[:2])}",
    )
    # One user for all, as the page has it for a trial: this machine has one kongming.conf.
    sh("rabbitmqctl set_permissions -p kongming kongming '.*' '.*' '.*'")
    found = [block for block in GUIDE if block.section == "On each compute host"]
    sh(*typed(found))
    return Unit("kongming-executor")


def get(path, *options):
    return json.loads(sh(f"curl -sf {' '.join(options)} {API}{path}"))


def test_the_units_of_the_guide_are_ready(controller):
    for name in UNITS[:2]:
        assert Unit(name).show("ActiveState") == "active"
    assert "Ready: listening to API and executors" in Unit("kongming-conductor").log()
    sh(f"curl -sf {API}/healthcheck")
    assert get("/v1/hosts")["hosts"] == []


def test_a_guest_is_placed_over_the_api(executor, guest):
    wait_until(lambda: [host["state"] for host in get("/v1/hosts")["hosts"]] == ["up"], 60, "up")
    openstack = f"/opt/kongming/bin/openstack --os-auth-type none --os-endpoint {API}"
    uuid = guest.UUIDString()
    sh(f"{openstack} kongming allocation set {uuid} --vcpu-pinning 1 --wait")
    assert set(threads.vcpu_affinity(uuid).values()) == {frozenset([1])}
    sh(f"{openstack} kongming allocation unset {uuid} --wait")


def test_only_one_of_the_two_services_of_a_compute_host_runs(executor):
    sh(
        "install -m 0644 etc/systemd/kongming-notification-handler.service /etc/systemd/system/",
        "systemctl daemon-reload",
        "systemctl start --no-block kongming-notification-handler",
    )
    executor.wait_state("inactive")
    sh("systemctl stop kongming-notification-handler", "systemctl start kongming-executor")


FIRST_LOOK = """[DEFAULT]
transport_url = rabbit://guest:guest@127.0.0.1:5672/
state_path = /var/lib/kongming
[api]
auth_strategy = noauth
"""


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_restarts_and_reloads(executor, name):
    unit = Unit(name)
    sh(f"systemctl restart {name}")
    before = unit.pid
    sh(f"systemctl reload {name}")
    assert unit.pid == before
    assert unit.show("ActiveState") == "active"


@pytest.mark.parametrize("name", UNITS)
def test_the_restrictions_of_the_units_are_in_force(executor, name):
    unit = Unit(name)
    status = unit.process_status()
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert unit.exposure() <= EXPOSURE_MAX
    assert not [line for line in unit.log().splitlines() if "Traceback" in line]


def test_the_trial_on_one_machine(executor, guest):
    sh(f"systemctl stop {' '.join(UNITS)}", "rm -rf /opt/kongming /var/lib/kongming")
    lines = typed(block for block in GUIDE if block.section == "A trial on one machine")
    # Without the folder, the error names what is missing.
    at = next(number for number, line in enumerate(lines) if "db sync" in line)
    sh(*lines[:at], written=FIRST_LOOK)
    output = sh(*lines[at - 2 : at], "rmdir /var/lib/kongming", lines[at], fails=True)
    assert "/var/lib/kongming" in output
    assert "Traceback" not in output
    sh("install -d -m 0750 /var/lib/kongming")
    ended = "sleep 2; kill $(jobs -p); wait || true"
    output = sh(
        *(
            f"{line[:-1]} >/dev/null 2>&1 &" if line.endswith("&") else line
            for line in lines[at - 2 :]
        ),
        ended,
    )
    assert '"hosts"' in output
