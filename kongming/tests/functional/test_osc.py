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
"""``openstack kongming``: its commands, with the real API, a conductor and an executor.

Most run in this process, where API, conductor and executor share a bus; some
are the installed command.

The test driver has 8 CPUs, of which 0, 2 and 4 are online.
"""

import csv
import io
import json
import os
from pathlib import Path
import re
import subprocess
import sys
import uuid

import pytest
import yaml

from kongming.conductor.service import ConductorService
from kongming.standalone.service import ExecutorService
from kongming.tests import commands
from kongming.tests.commands import client_at
from kongming.tests.functional.cloud import wait_for
from kongming.tests.functional.site import Site, serving
from kongming.tests.testbed.process import wait_until

NIGHT = {
    "vcpu_pinning": "0",
    "windows": [{"name": "night", "start": "0 22 * * *", "duration_s": 3600, "vcpu_pinning": "2"}],
}


@pytest.fixture(scope="module")
def site(tmp_path_factory, connection):
    site = Site(tmp_path_factory.mktemp("site"), connection)
    site.start(ConductorService, ExecutorService)
    wait_for(lambda: (host := site.hosts.get(site.host)) and host.snapshot)
    yield site
    site.stop()
    for domain in site.domains:
        if domain.isActive():
            domain.destroy()


@pytest.fixture(scope="module")
def url(site):
    """The API, in this process; pages are short."""
    with serving(site, "max_limit = 2\n") as url:
        yield url


@pytest.fixture
def run(url):
    """Run a command; return its exit status, its output and its messages."""

    def run(name, *arguments, client=None):
        ended = commands.run(client or client_at(url), name, *arguments)
        # An error is the message without the end of its line.
        return ended._replace(stderr=ended.stderr.removesuffix("\n")) if ended.status else ended

    return run


@pytest.fixture
def run_json(run):
    """Run a command that succeeds, and return its output in JSON, parsed."""

    def run_json(*arguments, **more):
        status, output, stderr = run(*arguments, "-f", "json", **more)
        assert status == 0, stderr
        return json.loads(output)

    return run_json


def test_an_instances_allocation_from_set_to_unset(site, run, run_json):
    guest = site.guest()
    before = site.pins(guest)
    status, output, stderr = run(
        "allocation set", guest, "--vcpu-pinning", "0:2", "--wait", "-f", "json"
    )
    assert status == 0, stderr
    assert stderr.endswith("1 of 1 applied\n")
    shown = json.loads(output)
    assert (shown["status"], shown["allocation"]) == ("applied", {"vcpu_pinning": {"0": "2"}})
    assert (shown["host"], shown["host_state"]) == (site.host, "up")
    assert site.pins(guest)[0] == {2}
    assert run_json("allocation show", guest)["generation"] == 1
    history = run_json("allocation history", guest)
    assert history[0]["requested_by"]
    assert (history[-1]["generation"], history[-1]["status"]) == (1, "applied")
    assert run_json("allocation list", "--map", "none") == []
    (listed,) = [
        each
        for each in run_json(
            "allocation list", "--host", site.host, "--status", "applied", "--long"
        )
        if each["instance_uuid"] == guest
    ]
    assert listed["allocation"] == shown["allocation"]
    status, output, stderr = run("allocation unset", guest, "--wait", "-f", "json")
    assert (status, json.loads(output)["status"]) == (0, "released"), stderr
    assert stderr.endswith("1 of 1 released\n")
    assert site.pins(guest) == before
    status, _, stderr = run("allocation show", guest)
    assert status == 1
    assert stderr.startswith("allocation_unknown: ")


def test_a_refusal_is_reported_and_shown(site, run):
    guest = site.guest()
    status, output, stderr = run(
        "allocation set", guest, "--vcpu-pinning", "99", "--wait", "-f", "json"
    )
    assert status == 1
    assert json.loads(output)["reason"] == "cpu_unknown"
    assert f"{guest} on {site.host}: refused (cpu_unknown): CPU 99 does not exist" in stderr


def test_another_generation_is_a_conflict(site, run):
    guest = site.guest()
    assert run("allocation set", guest, "--cpu-shares", "7", "--generation", "0")[0] == 0
    status, _, stderr = run("allocation set", guest, "--cpu-shares", "8", "--generation", "5")
    assert status == 1
    assert stderr.startswith("generation_conflict: ")
    assert stderr.endswith("(HTTP 409)")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "the allocation is empty"),
        (("--vcpu-pinning", "6-5"), "item '6-5' at position 1 runs backwards"),
        (("--file", "/absent"), "/absent can't be read"),
    ],
)
def test_an_ambiguous_value_is_not_sent(run, arguments, message):
    guest = str(uuid.uuid4())
    status, _, stderr = run("allocation set", guest, *arguments)
    assert status == 1
    assert message in stderr
    assert run("allocation show", guest)[0] == 1


def test_a_map_from_apply_to_delete(site, run, run_json, tmp_path):
    one, two, nowhere = site.guest(), site.guest(), str(uuid.uuid4())
    before = site.pins(one)
    path = tmp_path / "map.yaml"
    allocations = {one: {"vcpu_pinning": "2"}, two: {"vcpu_pinning": "1"}, nowhere: NIGHT}
    path.write_text(yaml.safe_dump({"allocations": allocations}))
    status, output, stderr = run("allocation map apply", "blue", str(path), "--wait", "-f", "json")
    assert status == 1
    applied = json.loads(output)
    assert (applied["name"], applied["instances"]) == ("blue", 3)
    assert applied["counts"] == {"absent": 1, "applied": 1, "refused": 1}
    assert {each["instance_uuid"] for each in applied["not_applied"]} == {two, nowhere}
    assert f"{two} on {site.host}: refused (cpu_offline): CPU 1 is offline" in stderr
    assert f"{nowhere}: absent (guest_absent): " in stderr
    assert site.pins(one) == [{2}, {2}]
    shown = run_json("allocation map show", "blue")
    assert shown["counts"] == applied["counts"]
    assert {each["instance_uuid"] for each in shown["allocations"]} == set(allocations)
    assert [each["name"] for each in run_json("allocation map list")] == ["blue"]
    assert len(run_json("allocation list", "--map", "blue")) == 3
    status, output, stderr = run("allocation map delete", "blue", "--wait", "-f", "json")
    assert (status, json.loads(output)) == (0, {"name": "blue", "status": "released"}), stderr
    # Those that were released before the answer was read are not reported.
    assert re.search(r"([123]) of \1 released\n$", stderr)
    assert site.pins(one) == before
    assert run_json("allocation map list") == []


def test_a_map_with_a_mistake_is_not_sent(run, run_json, tmp_path):
    path = tmp_path / "map.json"
    good, bad = str(uuid.uuid4()), str(uuid.uuid4())
    path.write_text(json.dumps({good: {"cpu_shares": 5}, bad: {"cpu_shares": 0}}))
    status, _, stderr = run("allocation map apply", "green", str(path))
    assert status == 1
    assert f"{path}, line 1: {bad}: cpu_shares: 0 is less than the minimum" in stderr
    assert run_json("allocation map list") == []


def test_a_dry_run(site, run, run_json):
    guest = site.guest()
    assert run("allocation set", guest, "--vcpu-pinning", "2", "--wait")[0] == 0
    assert run_json("allocation plan", guest) == []
    assert run_json("allocation plan", guest, "--vcpu-pinning", "0:4") == [
        {"step": 1, "target": "vCPU 0", "from": "2", "to": "4", "grant": ""},
        {"step": 2, "target": "vCPU 1", "from": "2", "to": "0-7", "grant": ""},
    ]
    status, output, stderr = run("allocation plan", guest, "--vcpu-pinning", "1")
    assert (status, output) == (1, "")
    assert stderr.startswith("refused (cpu_offline): CPU 1 is offline")
    status, _, stderr = run("allocation plan", str(uuid.uuid4()), "--vcpu-pinning", "2")
    assert status == 1
    assert stderr.startswith("absent (guest_absent): ")


def test_windows_are_previewed(run, run_json, tmp_path):
    path, instance = tmp_path / "night.json", str(uuid.uuid4())
    path.write_text(json.dumps(NIGHT))
    assert run("allocation set", instance, "--file", str(path))[0] == 0
    spans = run_json("allocation preview", instance, "--days", "2")
    assert {span["window"] for span in spans} == {"", "night"}
    assert {"vcpu_pinning": "2"} in [span["allocation"] for span in spans]


def test_pages_are_followed(run, run_json):
    instances = sorted(str(uuid.uuid4()) for _ in range(5))
    for instance in instances:
        assert run("allocation set", instance, "--cpu-shares", "7")[0] == 0
    listed = [each["instance_uuid"] for each in run_json("allocation list")]
    assert set(instances) <= set(listed)
    assert listed == sorted(listed)
    assert [
        each["instance_uuid"] for each in run_json("allocation list", "--limit", "3")
    ] == listed[:3]


def test_a_host_is_drawn_with_its_age(site, run, run_json):
    guest = site.guest()
    assert run("allocation set", guest, "--vcpu-pinning", "2", "--wait")[0] == 0
    wait_for(lambda: guest in json.dumps(site.hosts.get(site.host).snapshot))
    status, drawn, _ = run("host show", site.host, "--width", "90")
    assert status == 0
    assert drawn.startswith(f"{site.host} is up: last heartbeat ")
    assert " s ago, unchanged since 20" in drawn
    assert "NUMA cell 1: " in drawn
    assert guest in drawn
    shown = run_json("host show", site.host)
    assert [cell["id"] for cell in shown["cells"]] == [0, 1]
    assert guest in [each["instance_uuid"] for each in shown["guests"]]
    assert isinstance(shown["violations"], list)
    assert shown["rules"]["overlap"] == "warn"
    (listed,) = run_json("host list")
    assert (listed["name"], listed["state"]) == (site.host, "up")
    assert listed["guests"] == len(shown["guests"])
    status, _, stderr = run("host show", "nobody")
    assert status == 1
    assert stderr.startswith("host_unknown: ")


@pytest.mark.parametrize("form", ["table", "json", "yaml", "value", "csv"])
def test_lists_have_all_formats(site, run, form):
    for name in ("allocation list", "allocation map list", "host list"):
        status, output, stderr = run(name, "-f", form)
        assert status == 0, stderr
    assert site.host in output


def test_the_cells_of_lists_are_text_numbers_or_json(site, run, run_json):
    guest = site.guest()
    for cpus in ("2", "4"):
        assert run("allocation set", guest, "--vcpu-pinning", cpus, "--wait")[0] == 0
    for command in (
        ("allocation list", "--long", "--map", "none"),
        ("allocation list", "--long"),
        ("allocation history", guest),
        ("allocation plan", guest, "--vcpu-pinning", "2"),
        ("allocation preview", guest),
        ("allocation map list",),
        ("host list",),
    ):
        output, found = wait_until(
            lambda command=command: unchanging(run, run_json, command), 30, "no report comes"
        )
        names, *rows = csv.reader(io.StringIO(output), escapechar="\\")
        expected = [
            [value if isinstance(value, str) else json.dumps(value) for value in row.values()]
            for row in found
        ]
        assert all(name == name.lower() for name in names)
        # A heartbeat may come between the two.
        ages = {names.index(name) for name in names if name.startswith("heartbeat")}
        for row, cells in zip(rows, expected, strict=True):
            assert [cell for place, cell in enumerate(row) if place not in ages] == [
                cell for place, cell in enumerate(cells) if place not in ages
            ]
            assert "\n" not in "".join(row)


def unchanging(run, run_json, command):
    """Return a list as CSV and as JSON; False if a report came meanwhile."""
    before = run_json(*command)
    status, output, stderr = run(*command, "-f", "csv")
    assert status == 0, stderr
    reported = [[row.get("reported_at") for row in rows] for rows in (before, run_json(*command))]
    return reported[0] == reported[1] and (output, before)


def test_the_fields_of_resources_are_a_line_each_of_text_or_json(site, run, run_json):
    guest = site.guest()
    assert run("allocation set", guest, "--vcpu-pinning", "2", "--wait")[0] == 0
    for command in (("allocation show", guest), ("host show", site.host)):
        lines = run(*command, "-f", "value").output.splitlines()
        for line, value in zip(lines, run_json(*command).values(), strict=True):
            text = isinstance(value, str)
            assert (line if text else type(json.loads(line))) == (value if text else type(value))


@pytest.mark.parametrize("form", ["table", "json", "yaml", "value", "shell"])
def test_all_shown_resources_have_all_formats(run, form):
    instance = str(uuid.uuid4())
    status, output, stderr = run("allocation set", instance, "--cpu-shares", "5", "-f", form)
    assert status == 0, stderr
    assert instance in output


def test_an_endpoint_may_contain_the_version(url, run_json):
    there = client_at("http://127.0.0.1:9", kongming_endpoint_override=f"{url}/v1/")
    assert run_json("host list", client=there)


def test_an_unsupported_version_is_refused(url, run):
    status, _, stderr = run("host list", client=client_at(url, kongming_api_version="1.999"))
    assert status == 1
    assert stderr.startswith("version_unsupported: ")


def test_an_unavailable_api(run):
    status, _, stderr = run("host list", client=client_at("http://127.0.0.1:9"))
    assert status == 1
    assert stderr.startswith("Kongming's API can't be reached: ")


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_an_invalid_name_is_not_requested(run, name):
    assert run("host show", name)[0] == 1


@pytest.fixture
def openstack(url, openstack_command):
    """Run the installed command."""

    def openstack(*arguments, stdin="", command=openstack_command):
        ended = subprocess.run(
            [
                *command,
                "--os-auth-type=none",
                f"--os-kongming-endpoint={url}",
                "kongming",
                *arguments,
            ],
            input=stdin,
            capture_output=True,
            text=True,
            env={name: value for name, value in os.environ.items() if name[:3] != "OS_"},
        )
        return ended.returncode, ended.stdout, ended.stderr

    return openstack


def test_the_installed_command_applies_a_map_and_waits(site, openstack):
    guest, wrong = site.guest(), site.guest()
    text = f"{guest}: {{vcpu_pinning: '2'}}\n{wrong}: {{vcpu_pinning: '1'}}\n"
    status, output, stderr = openstack(
        "allocation", "map", "apply", "red", "-", "--wait", "-f", "yaml", stdin=text
    )
    assert status == 1
    assert yaml.safe_load(output)["counts"] == {"applied": 1, "refused": 1}
    assert stderr.splitlines()[-1].startswith(f"{wrong} on {site.host}: refused (cpu_offline): ")
    assert "Traceback" not in stderr
    assert site.pins(guest) == [{2}, {2}]


def test_the_installed_command_draws_a_host(site, openstack):
    status, drawn, stderr = openstack("host", "show", site.host)
    assert (status, stderr) == (0, "")
    assert "NUMA cell 0: " in drawn


def test_the_installed_command_reports_an_error_in_one_line(openstack):
    # This one loads its modules itself.
    command = [Path(sys.executable).with_name("openstack")]
    status, output, stderr = openstack("host", "show", "nobody", command=command)
    assert (status, output) == (1, "")
    assert stderr.startswith("host_unknown: ")
    assert stderr.count("\n") == 1


@pytest.mark.parametrize("path", ["", "/v3"])
def test_a_keystone_that_is_unreachable_is_one_line(openstack_command, path):
    options = {"auth-url": f"http://127.0.0.1:1{path}", "username": "u", "password": "p"}
    command = [*openstack_command, *(f"--os-{name}={value}" for name, value in options.items())]
    ended = subprocess.run([*command, "kongming", "host", "list"], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "Keystone can't be reached: connection refused\n"
