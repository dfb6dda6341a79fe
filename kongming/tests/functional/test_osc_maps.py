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
"""``openstack kongming allocation map``: dry runs, files that release too many, exports."""

import io
import json
import sys

import pytest
import yaml

from kongming import exception
from kongming.tests import commands
from kongming.tests.api import Api
from kongming.tests.commands import client_at
from kongming.tests.databases import asking, instance
from kongming.tests.testbed.scripted_api import ScriptedApi

BY = {"requested_by": "somebody else", "request_id": "req-2"}
NIGHT = {
    "vcpu_pinning": "0",
    "windows": [{"name": "010", "start": "0 22 * * *", "duration_s": 3600, "vcpu_quota": "none"}],
}
PLANNED = {
    "host": "compute-1",
    "outcome": "planned",
    "reason": "",
    "message": "",
    "warnings": ["shared"],
    "steps": [{"target": "vCPU 0", "from": "0-7", "to": "1", "grant": ""}],
}


@pytest.fixture
def server(tmp_path):
    with ScriptedApi(Api(tmp_path)) as server:
        put(server, range(1, 4))
        yield server


def put(server, numbers, name="blue"):
    desired = {instance(number): asking("1") for number in numbers}
    server.api.allocations.put_map(name, desired, generation=None, **BY)


def of_map(server, name="blue"):
    found = server.api.allocations.list(map_name=name)
    return {each.instance_uuid: each.allocation.to_json() for each in found}


@pytest.fixture
def run(server):
    def run(name, *arguments):
        return commands.run(client_at(server.url), f"allocation {name}", *arguments)

    return run


@pytest.fixture
def write(tmp_path):
    def write(written):
        path = tmp_path / "map.yaml"
        path.write_text(written if isinstance(written, str) else json.dumps(written))
        return str(path)

    return write


class Terminal(io.TextIOWrapper):
    """A standard input at which somebody sits."""

    def __init__(self, text):
        super().__init__(io.BytesIO(text.encode()))
        self.text = text

    def isatty(self):
        return True

    def readline(self):
        return self.text


EMPTY = ["{}", "allocations: {}", '{"allocations": {}}']


@pytest.mark.parametrize("text", EMPTY)
@pytest.mark.parametrize("stdin", [None, io.StringIO("yes\n"), Terminal("no\n"), Terminal("")])
def test_an_empty_map_releases_no_allocation_without_confirmation(
    server, run, write, monkeypatch, text, stdin
):
    monkeypatch.setattr(sys, "stdin", stdin)
    path = write(text)
    ended = run("map apply", "blue", path)
    assert (ended.status, ended.output) == (1, "")
    assert ended.lines[-1] == (
        f"{path} names no instance: 3 of the 3 instances of the map blue would be released; "
        "nothing was done: add --allow-empty to apply it, --dry-run to see the changes"
    )
    assert len(of_map(server)) == 3


def test_a_confirmed_empty_map_is_applied(server, run, write, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Terminal("yes\n"))
    ended = run("map apply", "blue", write("{}"))
    assert ended.status == 0
    assert "Type yes to continue:" in ended.stderr
    assert of_map(server) == {}


def test_the_confirmed_generation_is_the_one_that_was_shown(server, run, write, monkeypatch):
    class Slow(Terminal):
        def readline(self):
            put(server, range(1, 6))
            return self.text

    monkeypatch.setattr(sys, "stdin", Slow("yes\n"))
    ended = run("map apply", "blue", write("{}"))
    assert ended.status == 1
    assert "generation_conflict" in ended.stderr
    assert len(of_map(server)) == 5


@pytest.mark.parametrize("name", ["blue", "absent", "empty"])
def test_an_empty_map_without_releases_or_with_permission_is_applied(server, run, write, name):
    put(server, (), "empty")
    allowed = ["--allow-empty"] if name == "blue" else []
    assert run("map apply", name, write("{}"), *allowed).status == 0
    assert of_map(server, name) == {}


def test_no_confirmation_is_read_from_a_standard_input_that_is_the_file(run, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Terminal("{}"))
    ended = run("map apply", "blue", "-")
    assert ended.status == 1
    assert ended.stderr.startswith("- names no instance")


def test_a_map_that_has_lost_most_of_its_instances_needs_confirmation(server, run, write):
    put(server, range(1, 31))
    some = {instance(number): {"cpu_shares": 7} for number in range(1, 4)}
    ended = run("map apply", "blue", write(some))
    assert ended.status == 1
    assert "leaves out 27 instances: 27 of the 30 instances of the map blue would" in ended.stderr
    assert "--allow-large-release" in ended.stderr
    assert run("map apply", "blue", write(some), "--allow-empty").status == 1
    assert len(of_map(server)) == 30
    assert run("map apply", "blue", write(some), "--allow-large-release").status == 0
    assert of_map(server) == some


def test_a_dry_run_of_a_map_shows_its_changes_and_applies_none(server, run, write):
    before = of_map(server)
    server.api.conductor.answer = PLANNED
    allocations = {
        instance(1): {"vcpu_pinning": "1"},
        instance(2): {"cpu_shares": 7},
        instance(9): {"numa_nodes": "0"},
    }
    ended = run("map apply", "blue", write(allocations), "--dry-run", "-f", "json")
    assert ended.status == 0
    assert ended.parsed == {
        "name": "blue",
        "generation": 1,
        "added": {instance(9): {"numa_nodes": "0"}},
        "changed": {instance(2): {"from": {"vcpu_pinning": "1"}, "to": {"cpu_shares": 7}}},
        "released": {instance(3): {"vcpu_pinning": "1"}},
        "unchanged": [instance(1)],
        "outcomes": {"planned": 4},
        "plans": [{"instance_uuid": instance(number), **PLANNED} for number in (1, 2, 9, 3)],
    }
    assert ended.stderr == ""
    assert of_map(server) == before


@pytest.mark.parametrize(
    ("outcome", "reason", "status"),
    [
        ("refused", "overlap", 1),
        ("failed", "step_failed", 1),
        ("unresponsive", "host_unresponsive", 1),
        ("absent", "guest_absent", 0),
    ],
)
def test_a_dry_run_of_a_map_fails_unless_all_would_be_accepted(
    server, run, write, outcome, reason, status
):
    odd = {**PLANNED, "outcome": outcome, "reason": reason, "message": "why", "warnings": []}
    server.api.conductor.answer = PLANNED | {instance(2): {**odd, "steps": []}}
    path = write({instance(number): {"cpu_shares": 5} for number in (1, 2, 3)})
    ended = run("map apply", "blue", path, "--dry-run", "-f", "json")
    assert ended.status == status
    assert ended.parsed["outcomes"] == {"planned": 2, outcome: 1}
    shown = run("map apply", "blue", path, "--dry-run")
    assert f"{outcome} ({reason}): why" in " ".join(shown.output.split())


def test_a_dry_run_shows_the_changes_also_without_plans(server, run, write):
    server.api.conductor.answer = exception.ConductorUnresponsive("none answers")
    ended = run("map apply", "blue", write("{}"), "--dry-run", "-f", "json", "--allow-empty")
    assert ended.status == 1
    assert "the map can't be planned: conductor_unresponsive: none answers" in ended.stderr
    assert (len(ended.parsed["released"]), ended.parsed["plans"]) == (3, None)


def test_a_dry_run_needs_no_leave_to_empty_a_map(server, run, write):
    server.api.conductor.answer = PLANNED
    ended = run("map apply", "blue", write("{}"), "--dry-run", "-f", "json", "--wait")
    assert len(ended.parsed["released"]) == 3
    assert (
        run("map apply", "new", write("{}"), "--dry-run", "-f", "json").parsed["generation"]
        is None
    )
    assert len(of_map(server)) == 3


@pytest.mark.parametrize(
    ("name", "generation", "status"),
    [("blue", "1", 0), ("blue", "0", 1), ("blue", "2", 1), ("new", "0", 0), ("new", "1", 1)],
)
def test_a_dry_run_refuses_the_generation_that_would_be_refused(
    server, run, write, name, generation, status
):
    server.api.conductor.answer = PLANNED
    path = write({instance(9): {"cpu_shares": 5}})
    arguments = ("map apply", name, path, "--generation", generation)
    ended = run(*arguments, "--dry-run")
    assert ended.status == status
    assert ("generation_conflict" in ended.stderr) is bool(status)
    assert run(*arguments).status == status


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_an_exported_edited_and_applied_map_changes_the_edited_allocations(
    server, run, write, form
):
    allocations = {instance(1): NIGHT, instance(2): {"cpu_shares": 5}}
    assert run("map apply", "blue", write(allocations)).status == 0
    exported = run("map export", "blue", "-f", form)
    assert exported.status == 0
    assert "exported with generation 2: apply it with --generation 2" in exported.stderr
    server.api.conductor.answer = PLANNED
    ended = run("map apply", "blue", write(exported.output), "--dry-run", "-f", "json")
    assert ended.parsed["unchanged"] == [instance(1), instance(2)]
    assert not ended.parsed["added"] | ended.parsed["changed"] | ended.parsed["released"]
    assert run("map apply", "blue", write(exported.output), "-f", "json").parsed["generation"] == 2
    edited = yaml.safe_load(exported.output)
    edited["allocations"][instance(2)]["cpu_shares"] = 6
    again = ("map apply", "blue", write(yaml.safe_dump(edited)), "--generation", "2")
    assert run(*again).status == 0
    assert of_map(server)[instance(2)] == {"cpu_shares": 6}
    # Somebody else's change is not lost.
    refused = run(*again)
    assert refused.status == 1
    assert "generation_conflict" in refused.stderr


def test_a_single_allocation_goes_from_one_instance_to_another(run, write, server):
    assert run("set", instance(7), "--file", write(NIGHT)).status == 0
    shown = run("show", instance(7), "-f", "value", "-c", "allocation")
    assert run("set", instance(8), "--file", write(shown.output)).status == 0
    entries = [run("show", instance(number), "-f", "json").parsed for number in (7, 8)]
    assert entries[0]["allocation"] == entries[1]["allocation"]


def test_a_missing_map_is_not_exported(run):
    ended = run("map export", "absent")
    assert (ended.status, ended.output) == (1, "")
    assert ended.stderr.startswith("map_unknown: ")
