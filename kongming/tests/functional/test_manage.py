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

"""kongming-manage, with libvirt's test driver."""

import json
import os
from pathlib import Path
import subprocess
import sys
import uuid

import libvirt
import pytest

from kongming.hypervisor import capabilities, occupancy

COMMAND = Path(sys.executable).with_name("kongming-manage")
GUEST = "5f0c3b52-6a0e-4c6e-9a5f-0d6a4f0b8c11"

ABSENT = "qemu:///system?socket=/absent"

# Such a host has no NUMA cells; which CPUs are online is as on the default host.
HOST = f"""
<node>
  <cpu><nodes>1</nodes><sockets>2</sockets><cores>2</cores><threads>2</threads></cpu>
  <memory>4194304</memory>
  <domain type='test'>
    <name>instance-00000001</name>
    <uuid>{GUEST}</uuid>
    <metadata>
      <nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1"/>
    </metadata>
    <memory unit='KiB'>1024</memory>
    <vcpu>2</vcpu>
    <cputune><vcpupin vcpu='0' cpuset='2'/><vcpupin vcpu='1' cpuset='4'/></cputune>
    <os><type>hvm</type></os>
  </domain>
</node>
"""


@pytest.fixture
def run(tmp_path, kongming_manage):
    """Run the command on that host, and return its status, output and errors."""
    host = tmp_path / "host.xml"
    host.write_text(HOST)

    def run(*arguments, uri=f"test://{host}", guard="", encoding="utf-8", command=kongming_manage):
        config = tmp_path / "kongming.conf"
        config.write_text(f"[libvirt]\nconnection_uri = {uri}\n[guard]\n{guard}\n")
        ended = subprocess.run(
            [*command, "--config-file", config, *arguments],
            capture_output=True,
            text=True,
            encoding=encoding,
            env=os.environ | {"PYTHONIOENCODING": encoding},
        )
        return ended.returncode, ended.stdout, ended.stderr

    return run


def test_host_show_draws_the_host(run):
    # This one loads its modules itself.
    status, drawn, errors = run("host", "show", guard="reserved_cpus = 0", command=[COMMAND])
    assert (status, errors) == (0, "")
    assert "8 CPUs (5 offline), " in drawn
    assert "│ 0 R " in drawn
    assert "│ 2 a " in drawn
    assert "│ 3 X " in drawn
    assert f"  a  {GUEST}  instance-00000001  0:2; 1:4\n" in drawn


def test_host_show_fits_the_width(run):
    _, drawn, _ = run("host", "show", "--width", "72")
    assert max(len(line) for line in drawn.splitlines()) <= 72


def test_host_show_suits_a_plain_terminal(run):
    status, drawn, _ = run("host", "show", encoding="ascii")
    assert status == 0
    assert "| 2 a " in drawn


def test_host_show_has_output_for_programs(run):
    status, output, _ = run("host", "show", "-f", "json", guard="overlap = refuse")
    host = json.loads(output)
    assert status == 0
    assert sum(len(cell["cpus"]) for cell in host["cells"]) == 8
    assert host["guests"][0]["pins"] == {"0": "2", "1": "4"}
    assert host["rules"]["overlap"] == "refuse"
    assert [violation["kind"] for violation in host["violations"]] == []


def test_host_show_is_a_table_too(run):
    status, output, _ = run("host", "show", "-f", "table")
    assert status == 0
    assert f"| guests          | {GUEST} instance-00000001: 0:2; 1:4" in output


@pytest.mark.parametrize(
    ("arguments", "options", "status", "message"),
    [
        (
            ("host", "show"),
            {"uri": ABSENT},
            1,
            f"libvirt at {ABSENT} is unavailable: no process listens at /absent",
        ),
        (("host", "show"), {"guard": "reserved_cpus = x"}, 2, "[guard] reserved_cpus: item 'x'"),
        (("host", "show"), {"guard": "overlap = maybe"}, 2, "overlap"),
        (("host", "show", "--config-file", "/absent.conf"), {}, 2, "/absent.conf"),
        (("host", "shwo"), {}, 2, "'host shwo' is not a command; did you mean 'host show'"),
        ((), {}, 2, "no command given"),
    ],
)
def test_an_error_is_one_line(run, arguments, options, status, message):
    ended, output, errors = run(*arguments, **options)
    assert ended == status
    assert output == ""
    assert errors.startswith("kongming-manage: ")
    assert message in errors
    assert errors.count("\n") == 1


def test_the_installed_command_knows_its_commands():
    shown = subprocess.run([COMMAND, "--help"], capture_output=True, text=True, check=True)
    assert "  host show " in shown.stdout


def test_a_traceback_is_shown_on_request(run):
    status, _, errors = run("--debug", "host", "show", guard="reserved_cpus = x")
    assert status == 2
    assert "Traceback" in errors


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[DEFAULT]\npassword is Tr0ub4dor",
            "line 2: an option must be written as 'name = value'",
        ),
        ("[database]\nconnection = mysql://u:Tr0ub4dor$and3@h/k", "[database] connection: its"),
        ("[executor]\ncheck_interval = soon", "[executor] check_interval: 'soon'"),
        ("[DEFAULT]\nstate_path = $Tr0ub4dor", "[DEFAULT] state_path: its value refers"),
    ],
)
def test_an_invalid_configuration_is_one_line_without_a_password(
    kongming_manage, tmp_path, text, message
):
    path = tmp_path / "kongming.conf"
    path.write_text(f"{text}\n")
    ended = subprocess.run(
        [*kongming_manage, "--config-file", path, "db", "version"], capture_output=True, text=True
    )
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert message in ended.stderr
    assert str(path) in ended.stderr
    assert "Tr0ub4dor" not in ended.stderr
    assert "and3" not in ended.stderr


def test_the_help_needs_no_configuration(kongming_manage, tmp_path):
    command = [
        *kongming_manage,
        "--config-file",
        tmp_path / "absent.conf",
        "host",
        "show",
        "--help",
    ]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "--width" in shown.stdout


def test_libvirts_default_host():
    connection = libvirt.openReadOnly("test:///default")
    host = capabilities.read(connection)
    assert [cell.memory_kib for cell in host.cells] == [2 << 20, 4 << 20]
    # It lists twice as many, and takes pins to these only.
    assert [cpu.id for cpu in host.cpus] == list(range(8))
    assert [cpu.id for cpu in host.cpus if cpu.online] == [0, 2, 4]


class Vanishing:
    """A connection of which one domain ends as soon as it was listed."""

    def __init__(self, connection):
        self._connection = connection
        self.getCPUMap = connection.getCPUMap

    def listAllDomains(self, flags):  # noqa: N802
        domains = self._connection.listAllDomains(flags)
        next(domain for domain in domains if domain.name() == "short").destroy()
        return domains


@pytest.mark.parametrize("persistent", [False, True])
def test_a_domain_that_ends_meanwhile_is_left_out(persistent):
    connection = libvirt.open("test:///default")
    xml = (
        f"<domain type='test'><name>short</name><uuid>{uuid.uuid4()}</uuid>"
        "<memory>1024</memory><os><type>hvm</type></os></domain>"
    )
    domain = connection.defineXML(xml) if persistent else None
    try:
        if domain is None:
            connection.createXML(xml)
        else:
            domain.create()
        assert {guest.name for guest in occupancy.Occupancy().read(connection)} == {
            "test",
            "short",
        }
        domain_list = Vanishing(connection)
        if domain is None:
            libvirt.registerErrorHandler(lambda _context, _error: None, None)
        assert {guest.name for guest in occupancy.Occupancy().read(domain_list)} == {"test"}
    finally:
        if domain is not None:
            domain.undefine()
