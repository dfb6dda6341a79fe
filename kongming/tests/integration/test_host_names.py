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

"""Names of hosts as operators have them: the machine's own, and the one of kongming.conf."""

import itertools
import sys

import pytest

from kongming.tests.host_names import LONGEST, TAKEN
from kongming.tests.testbed.process import find_program, run
from kongming.tests.testbed.program import BIN
from kongming.tests.thorough import stories

pytestmark = pytest.mark.needs_mounts

PROGRAMS = [
    *itertools.product(
        (
            "kongming-conductor",
            "kongming-executor",
            "kongming-manage",
            "kongming-notification-handler",
            "kongming-status",
        ),
        ("--help", "--version"),
    ),
    ("kongming-manage", "broker", "key", "create"),
    ("oslo-config-generator", "--namespace", "kongming"),
    ("oslopolicy-sample-generator", "--namespace", "kongming"),
    ("openstack", "kongming", "host", "list", "--help"),
    ("python", "-c", "import kongming.osc.plugin, kongming.api.application"),
]
SERVICES = ("kongming-conductor", "kongming-executor", "kongming-notification-handler")
# None of them can be a host's.
BOTH_KINDS = ["12345", "compute-"]
OTHERS = [
    "",
    "a" * 64,
    "two words",
    "b\u00fcro",
    "\udcff\udcfe",
    "a/b",
    "1.2.3",
    "compute_1.5",
    "_",
]
PER_NAME = [*BOTH_KINDS, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]
CONF = """[DEFAULT]
state_path = {folder}
transport_url = rabbit://u:p@127.0.0.1:1/
{setting}
[libvirt]
connection_uri = test:///default
[oslo_messaging_notifications]
transport_url = rabbit://u:p@127.0.0.1:1/
"""


def on_machine(name, *command):
    """Run a command on a machine of that name."""
    code = f"socket.sethostname(os.fsencode({name!a})); os.execv({command[0]!r}, {command!r})"
    return run(
        [
            find_program("unshare", "util-linux"),
            "--uts",
            sys.executable,
            "-c",
            f"import os, socket; {code}",
        ]
    )


@pytest.mark.parametrize("name", PER_NAME)
@stories("program", PROGRAMS, ids=" ".join, usual=3)
def test_a_program_that_needs_no_name_works_on_a_machine_with_any_name(name, program):
    done = on_machine(name, str(BIN / program[0]), *program[1:])
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("name", PER_NAME)
@stories("service", SERVICES)
def test_a_service_reports_in_one_line_that_it_needs_another_name(tmp_path, service, name):
    conf = tmp_path / "kongming.conf"
    conf.write_text(CONF.format(folder=tmp_path, setting=""))
    done = on_machine(name, str(BIN / service), f"--config-file={conf}")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{service}: [DEFAULT] host is not set, and ")
    assert "set it to the value of host in this host's nova.conf" in line
    assert done.stdout == ""


def test_the_status_reports_an_unusable_name_of_the_machine(tmp_path):
    conf = tmp_path / "kongming.conf"
    conf.write_text(CONF.format(folder=tmp_path, setting=""))
    status = [str(BIN / "kongming-status"), f"--config-file={conf}", "upgrade", "check"]
    shown = " ".join(on_machine("12345", *status).stdout.replace("|", " ").split())
    assert (
        "[DEFAULT] host is not set, and '12345', the name of this machine, can't be used" in shown
    )
    conf.write_text(CONF.format(folder=tmp_path, setting="host = compute_01"))
    assert "host is not set" not in on_machine("12345", *status).stdout


@pytest.mark.parametrize(
    "name",
    [
        "_Compute_1.Example.ORG",
        LONGEST,
        *(pytest.param(name, marks=pytest.mark.slow) for name in TAKEN if name != LONGEST),
    ],
)
def test_a_guest_is_placed_on_a_host_with_any_name_that_nova_accepts(site, cpus, name):
    # Else the name of the other service's queue would be too long.
    pool = "[notification_handler]\npool = p\n"
    site.executor(host=name, options=pool).start()
    guest = site.guest(name)
    site.put(guest.uuid, vcpu_pinning=str(cpus[0]))
    site.plane.wait_status(guest.uuid, "applied")
    guest.wait_on(cpus[0])
    # That is a call to the host, and its answer.
    requested = {"allocation": {"vcpu_pinning": str(cpus[1])}}
    answer = site.api.request("PUT", f"/v1/allocations/{guest.uuid}?dry_run=true", requested)
    assert (answer.status, answer.body["host"]) == (200, name)
