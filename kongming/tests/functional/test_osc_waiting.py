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
"""``--wait`` of ``openstack kongming``: it is about one's own request, with the real API."""

from dataclasses import replace
import functools
import json
import os
import signal
import time

import pytest

from kongming.client import waiting
from kongming.osc import change
from kongming.tests import commands
from kongming.tests.api import Api
from kongming.tests.commands import Meanwhile, client_at
from kongming.tests.databases import asking, instance, report
from kongming.tests.testbed.scripted_api import ScriptedApi

OTHER = {"requested_by": "somebody else", "request_id": "req-2"}
PIN = ("--vcpu-pinning", "1")
ACCEPTED = (
    f"the allocation of instance {instance(1)} was accepted (generation 1) and stays in force"
)


@pytest.fixture
def server(tmp_path):
    with ScriptedApi(Api(tmp_path)) as server:
        yield server


@pytest.fixture
def allocations(server):
    """The allocations in the database."""
    return server.api.allocations


@pytest.fixture
def run(server, monkeypatch):
    """Run a command; what happens while it waits are steps."""

    def run(name, *arguments, steps=()):
        meanwhile = Meanwhile(*steps)
        waiter = functools.partial(
            waiting.Waiter,
            clock=meanwhile.clock,
            sleep=meanwhile.sleep,
            patience=0.5,
            # Its clock is not that of the API.
            long_poll_s=0,
        )
        monkeypatch.setattr(change, "Waiter", waiter)
        return commands.run(client_at(server.url), name, *arguments, "-f", "json")

    return run


@pytest.fixture
def report_status(allocations):
    """Return what reports the status of an instance as its host does."""

    def report_status(number, generation=1, status="applied", **more):
        each = report(instance(number), generation, status, **more)
        return lambda: allocations.report("compute1", [each], time.time())

    return report_status


@pytest.fixture
def map_file(tmp_path):
    def write(**cpus):
        path = tmp_path / "map.json"
        desired = {
            instance(int(number[1:])): {"vcpu_pinning": cpu} for number, cpu in cpus.items()
        }
        path.write_text(json.dumps(desired))
        return str(path)

    return write


def put(allocations, number, cpus):
    return lambda: allocations.put(instance(number), asking(cpus), generation=None, **OTHER)


def put_map(allocations, name="blue", **cpus):
    desired = {instance(int(number[1:])): asking(cpu) for number, cpu in cpus.items()}
    return lambda: allocations.put_map(name, desired, generation=None, **OTHER)


def unset(allocations, number):
    return lambda: allocations.delete(instance(number), generation=None, **OTHER)


def delete_map(allocations, name="blue"):
    return lambda: allocations.delete_map(name, generation=None, **OTHER)


def test_an_allocation_that_is_applied_ends_waiting_with_0(run, report_status):
    ended = run("allocation set", instance(1), *PIN, "--wait", steps=[report_status(1)])
    assert (ended.status, ended.parsed["status"]) == (0, "applied")
    assert ended.lines == ["0 of 1 applied (1 pending)", "1 of 1 applied"]


def test_another_allocation_for_the_instance_ends_waiting_and_is_reported(
    run, allocations, report_status
):
    def other():
        put(allocations, 1, "2")()
        report_status(1, 2)()

    ended = run("allocation set", instance(1), *PIN, "--wait", steps=[other])
    assert ended.status == 1
    assert ended.lines[-1] == (
        f"the allocation of instance {instance(1)} was accepted (generation 1), and then "
        "replaced: somebody else requested generation 2: vcpu-pinning=2"
    )
    assert (ended.parsed["generation"], ended.parsed["status"]) == (1, "replaced")
    assert ended.parsed["allocation"] == {"vcpu_pinning": "1"}
    assert "1 of 1 applied" not in ended.stderr


def test_the_same_allocation_by_another_user_counts_as_this_request(
    run, allocations, report_status
):
    steps = [put(allocations, 1, "1"), report_status(1)]
    assert run("allocation set", instance(1), *PIN, "--wait", steps=steps).status == 0


def test_an_allocation_that_was_changed_back_is_another_request(run, allocations, report_status):
    def back():
        put(allocations, 1, "2")()
        put(allocations, 1, "1")()
        report_status(1, 3)()

    ended = run("allocation set", instance(1), *PIN, "--wait", steps=[back])
    assert ended.status == 1
    assert "somebody else requested generation 3" in ended.lines[-1]


def test_an_allocation_that_a_map_adopts_is_reported_with_the_map(run, allocations):
    steps = [put_map(allocations, "green", n1="3")]
    ended = run("allocation set", instance(1), *PIN, "--wait", steps=steps)
    assert ended.status == 1
    assert ended.lines[-1].endswith(
        "somebody else requested generation 2 in the map green: vcpu-pinning=3"
    )


def test_an_allocation_that_another_user_unsets_is_not_applied(run, allocations):
    ended = run("allocation set", instance(1), *PIN, "--wait", steps=[unset(allocations, 1)])
    assert ended.status == 1
    assert ended.lines[-1].endswith("somebody else requested generation 2: its release")


def test_an_instance_that_is_deleted_meanwhile_is_reported_as_deleted(run, allocations):
    steps = [lambda: allocations.forget([instance(1)], time.time())]
    ended = run("allocation set", instance(1), *PIN, "--wait", steps=steps)
    assert ended.status == 1
    assert ended.lines[-1].endswith("replaced: the server was deleted in Nova")


def test_an_instance_that_moves_is_waited_for_on_its_new_host(run, allocations, report_status):
    def move():
        report_status(1, status="absent")()
        allocations.claim("compute2", [instance(1)], ())

    def arrive():
        allocations.report("compute2", [report(instance(1))], time.time())

    # Of the host that it left nobody waits for a word.
    ended = run("allocation set", instance(1), *PIN, "--wait", steps=[move, arrive])
    assert (ended.status, ended.parsed["host"]) == (0, "compute2")


def test_a_request_of_the_operator_on_the_host_is_not_this_request(run, allocations):
    def override():
        each = replace(report(instance(1)), source="operator")
        allocations.report("compute1", [each], time.time())

    ended = run("allocation set", instance(1), *PIN, "--wait", steps=[override])
    assert ended.status == 1
    assert "0 of 1 applied (1 overridden)" in ended.lines
    assert "the request of the operator has priority" in ended.lines[-1]


def test_a_release_is_waited_for_until_the_host_has_carried_it_out(
    run, allocations, report_status
):
    put(allocations, 1, "1")()
    report_status(1)()
    steps = [lambda: None, report_status(1, 2, "released")]
    ended = run("allocation unset", instance(1), "--wait", steps=steps)
    assert (ended.status, ended.parsed["status"]) == (0, "released")
    assert ended.lines == ["0 of 1 released", "1 of 1 released"]


def test_a_release_that_is_not_done_in_time_goes_on(run, allocations, report_status):
    put(allocations, 1, "1")()
    report_status(1)()
    ended = run("allocation unset", instance(1), "--wait", "--timeout", "7")
    assert (ended.status, ended.parsed["status"], ended.parsed["generation"]) == (
        1,
        "releasing",
        2,
    )
    assert ended.lines[-1] == (
        f"not carried out within 7 s; the release of instance {instance(1)} was accepted "
        "(generation 2) and stays in force"
    )


def test_a_release_that_another_request_replaces_is_not_reported_as_complete(
    run, allocations, report_status
):
    put(allocations, 1, "1")()
    report_status(1)()
    steps = [put(allocations, 1, "4")]
    ended = run("allocation unset", instance(1), "--wait", steps=steps)
    assert (ended.status, ended.parsed["status"]) == (1, "replaced")
    assert "somebody else requested generation 3: vcpu-pinning=4" in ended.lines[-1]


def test_a_map_is_waited_for_with_its_released_instances(
    run, allocations, report_status, map_file
):
    put_map(allocations, n1="1", n2="2", n3="3")()
    for number in (1, 2, 3):
        report_status(number)()
    steps = [report_status(1, 2), report_status(2, 2, "released"), report_status(3, 2, "released")]
    ended = run("allocation map apply", "blue", map_file(n1="5"), "--wait", steps=steps)
    assert ended.status == 0
    assert ended.lines == [
        "0 of 1 applied (1 pending), 0 of 2 released",
        "1 of 1 applied, 0 of 2 released",
        "1 of 1 applied, 1 of 2 released",
        "1 of 1 applied, 2 of 2 released",
    ]
    assert ended.parsed["counts"] == {"applied": 1}


def test_an_instance_may_go_from_one_map_to_another(run, allocations, report_status, map_file):
    put_map(allocations, n1="1", n2="2")()
    report_status(1)()
    report_status(2)()
    steps = [put_map(allocations, "green", n2="3")]
    ended = run("allocation map apply", "blue", map_file(n1="1"), "--wait", steps=steps)
    assert ended.status == 0
    assert ended.lines[-1] == "1 of 1 applied, 0 of 1 released (1 taken over)"


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"n1": "7", "n2": "2"}, "by generation 2; 1 changed; instance {1}: somebody else "),
        ({"n1": "1"}, "by generation 2; 1 released; instance {2}: somebody else "),
        ({"n1": "1", "n2": "2", "n3": "3"}, "by generation 2; 1 added; instance {3}: somebody "),
    ],
    ids=["changed", "smaller", "larger"],
)
def test_another_map_of_the_name_ends_waiting_and_is_reported(
    run, allocations, report_status, map_file, other, message
):
    def apply():
        put_map(allocations, **other)()
        for number in (1, 2, 3):
            report_status(number, 1)()
            report_status(number, 2)()

    path = map_file(n1="1", n2="2")
    ended = run("allocation map apply", "blue", path, "--wait", steps=[apply])
    assert ended.status == 1
    uuids = {str(number): instance(number) for number in (1, 2, 3)}
    for number, uuid in uuids.items():
        message = message.replace(f"{{{number}}}", uuid)
    assert (
        f"the map blue was accepted (generation 1), and then replaced: {message}" in ended.stderr
    )
    assert (ended.parsed["generation"], ended.parsed["status"]) == (1, "replaced")


@pytest.mark.parametrize("again", [False, True], ids=["gone", "made-again"])
def test_a_map_that_is_deleted_meanwhile_was_not_applied(run, allocations, map_file, again):
    def delete():
        delete_map(allocations)()
        if again:
            put_map(allocations, n1="1")()

    ended = run("allocation map apply", "blue", map_file(n1="1"), "--wait", steps=[delete])
    assert ended.status == 1
    assert "and then replaced: " in ended.lines[-1]


def test_a_single_change_in_the_map_ends_waiting(run, allocations, map_file):
    steps = [put(allocations, 2, "9")]
    ended = run("allocation map apply", "blue", map_file(n1="1", n2="2"), "--wait", steps=steps)
    assert ended.status == 1
    assert f"1 changed; instance {instance(2)}: somebody else requested" in ended.lines[-1]


def test_an_instance_of_a_map_that_is_deleted_in_nova_is_reported_as_gone(
    run, allocations, report_status, map_file
):
    steps = [lambda: allocations.forget([instance(2)], time.time()), report_status(1)]
    ended = run("allocation map apply", "blue", map_file(n1="1", n2="2"), "--wait", steps=steps)
    assert ended.status == 1
    assert ended.lines[-1] == f"{instance(2)}: gone: the server was deleted in Nova"
    assert ended.parsed["counts"] == {"applied": 1, "gone": 1}


def test_a_map_is_deleted_when_its_instances_are_back(run, allocations, report_status):
    put_map(allocations, n1="1", n2="2")()
    report_status(1)()
    report_status(2)()
    steps = [report_status(1, 2, "released"), report_status(2, 2, "released")]
    ended = run("allocation map delete", "blue", "--wait", steps=steps)
    assert (ended.status, ended.parsed) == (0, {"name": "blue", "status": "released"})
    assert ended.lines == ["0 of 2 released", "1 of 2 released", "2 of 2 released"]


def test_an_instance_that_is_removed_from_a_map_in_release_was_not_released(
    run, allocations, report_status
):
    put_map(allocations, n1="1")()
    report_status(1)()
    # With its last instance the map is gone, too.
    steps = [put(allocations, 1, "6")]
    ended = run("allocation map delete", "blue", "--wait", steps=steps)
    assert (ended.status, ended.parsed["status"]) == (1, "replaced")
    assert "requested generation 3: vcpu-pinning=6" in ended.lines[-1]


def test_a_map_that_is_applied_again_during_its_release_was_not_deleted(
    run, allocations, report_status
):
    put_map(allocations, n1="1")()
    report_status(1)()
    steps = [put_map(allocations, n1="1")]
    ended = run("allocation map delete", "blue", "--wait", steps=steps)
    assert (ended.status, ended.parsed["status"]) == (1, "replaced")


@pytest.fixture
def interruptible():
    """Have SIGINT do what it does in a process that was not started in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt(number):
    return lambda: os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_of_waiting_reports_the_accepted_change(
    run, allocations, number, interruptible
):
    before = signal.getsignal(signal.SIGTERM)
    ended = run("allocation set", instance(1), *PIN, "--wait", steps=[interrupt(number)])
    assert ended.status == 128 + number
    assert ended.lines == [
        "0 of 1 applied (1 pending)",
        f"interrupted; {ACCEPTED}",
    ]
    assert (ended.parsed["generation"], ended.parsed["status"]) == (1, "pending")
    assert signal.getsignal(signal.SIGTERM) == before


def test_an_interruption_of_the_request_reports_an_unknown_result(run, allocations, server):
    def script(method, _path, _number):
        if method == "PUT":
            os.kill(os.getpid(), signal.SIGTERM)

    with server.scripted(script):
        ended = run("allocation set", instance(1), *PIN)
    assert (ended.status, ended.output) == (128 + signal.SIGTERM, "")
    (line,) = ended.lines
    assert line == (
        f"interrupted; it is not known whether the allocation of instance {instance(1)} was or "
        f"will be accepted: see 'openstack kongming allocation show {instance(1)}'"
    )
