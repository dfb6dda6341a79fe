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
"""The plug-in of openstackclient, as far as it needs no API: files, waiting, what it imports."""

import argparse
import io
import json
import subprocess
import sys

from osc_lib import exceptions
import pytest

from kongming import exception
from kongming.osc import allocation_map, columns, host, plugin, waiting
from kongming.osc.client import NoAnswer

UUIDS = [f"5f0c3b52-6a0e-4c6e-9a5f-0d6a4f0b8c1{n}" for n in range(3)]

# What an operator's laptop does not have, and what would be of no use there.
_ABSENT = """
import sys
for absent in ("libvirt", "oslo_messaging", "oslo_db", "sqlalchemy", "falcon"):
    sys.modules[absent] = None
from importlib.metadata import entry_points
names = [each.load().__name__ for each in entry_points(group="openstack.kongming.v1")]
entry_points(group="kongming.manage.picture")["picture"].load()
assert "kongming.executor.store" not in sys.modules
print(len(names))
"""


def test_no_libvirt_and_no_store_is_needed():
    ended = subprocess.run(
        [sys.executable, "-c", _ABSENT], capture_output=True, text=True, check=True
    )
    assert int(ended.stdout) == 13


@pytest.fixture
def read(tmp_path):
    def read(text):
        path = tmp_path / "map"
        path.write_text(text)
        return allocation_map.read(str(path))

    return read


@pytest.mark.parametrize("form", ['{{"allocations": {}}}', "{}"])
def test_a_map_has_two_forms(read, form):
    wanted = {uuid: {"vcpu_pinning": {"0": "5-6"}} for uuid in UUIDS}
    assert read(form.format(json.dumps(wanted))) == wanted


def test_a_map_may_be_yaml(read):
    assert read(f"{UUIDS[0]}:\n  vcpu_pinning: {{0: 5-6, 1: '7'}}\n  cpu_shares: 100\n") == {
        UUIDS[0]: {"vcpu_pinning": {"0": "5-6", "1": "7"}, "cpu_shares": 100}
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the map is not an object"),
        ("allocations: 5", "allocations is not an object"),
        ("allocations: {}\ngeneration: 3", "'generation' is unknown beside allocations"),
        ("vm1: {}", "'vm1' is not the UUID of an instance as Nova writes it"),
        (f"{UUIDS[0].upper()}: {{}}", "is not the UUID of an instance as Nova writes it"),
        (f"allocations: {{{UUIDS[0]}: 5}}", f"allocations.{UUIDS[0]}: the allocation: 5 is not"),
        (
            f"{UUIDS[0]}: {{cpu_shares: 100}}\n{UUIDS[1]}: {{vcpu_pinning: {{0: 6-5}}}}",
            f"{UUIDS[1]}: vcpu_pinning: item '6-5' at position 1 runs backwards",
        ),
        (f"{UUIDS[0]}: {{}}\n{UUIDS[0]}: {{}}", f"'{UUIDS[0]}' is there twice"),
    ],
)
def test_a_wrong_map_is_refused_with_the_place(read, text, says):
    with pytest.raises(exception.RequestInvalid) as refused:
        read(text)
    assert says in str(refused.value)


def told(number, status, host_state="up", **more):
    """An allocation, as the API tells of it."""
    return {
        "instance_uuid": UUIDS[number],
        "host": "compute1",
        "host_state": host_state,
        "status": status,
        "reason": "",
        "message": "",
        **more,
    }


def wait(*looks, timeout=5.0, released=None):
    """Wait, and give the outcome and what was told; the last look stays."""
    stderr = io.StringIO()
    left = list(looks)

    def look():
        seen = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(seen, Exception):
            raise seen
        return seen

    waiter = waiting.Waiter(stderr, timeout, patience=0.5)
    outcome = waiter.settled(look) if released is None else waiter.released(look, released)
    return outcome, stderr.getvalue().splitlines()


def test_waiting_tells_how_far_it_is():
    outcome, lines = wait(
        [told(0, "pending"), told(1, "pending", "silent")],
        [told(0, "applied"), told(1, "pending", "silent")],
        [told(0, "applied"), told(1, "applied")],
    )
    assert outcome.status == 0
    assert lines == [
        "0 of 2 applied (2 pending; silent: compute1)",
        "1 of 2 applied (1 pending; silent: compute1)",
        "2 of 2 applied",
    ]


def test_waiting_says_what_was_not_done_and_why():
    refused = told(1, "refused", reason="cpu_unknown", message="CPU 9 does not exist")
    outcome, lines = wait([told(0, "applied"), refused])
    assert outcome.status == 1
    assert lines == [
        "1 of 2 applied (1 refused)",
        f"{UUIDS[1]} on compute1: refused (cpu_unknown): CPU 9 does not exist",
    ]
    (short,) = columns.not_applied(outcome.allocations).machine_readable()
    assert short["instance_uuid"] == UUIDS[1]
    assert short["reason"] == "cpu_unknown"


def test_a_guest_that_is_absent_is_told_of_and_no_failure():
    outcome, lines = wait([told(0, "absent", host=None, host_state="unknown")])
    assert outcome.status == 0
    assert lines[-1] == f"{UUIDS[0]}: absent: there is no running guest; it is done when it starts"


def test_a_guest_that_is_absent_may_still_turn_up():
    outcome, lines = wait([told(0, "absent")], [told(0, "pending")], [told(0, "applied")])
    assert outcome.status == 0
    assert lines[-1] == "1 of 1 applied"


def test_waiting_has_an_end():
    outcome, lines = wait([told(0, "pending", "silent")], timeout=0.0)
    assert outcome.status == 1
    assert lines[1:] == [
        f"{UUIDS[0]} on compute1: pending; the executor of compute1 is silent",
        "not done within 0 s; it is kept, and goes on",
    ]


def test_an_api_that_is_away_for_a_moment_is_waited_for():
    outcome, lines = wait(
        NoAnswer("away"),
        exceptions.ClientException(503, "database_unavailable: it does not answer"),
        [told(0, "applied")],
    )
    assert outcome.status == 0
    assert lines == [
        "away",
        "database_unavailable: it does not answer (HTTP 503)",
        "1 of 1 applied",
    ]


def test_what_is_not_there_any_more_is_not_waited_for():
    with pytest.raises(exceptions.NotFound):
        wait([told(0, "pending")], exceptions.NotFound(404, "map_unknown: there is no such map"))


def test_nothing_is_done_at_once():
    assert wait([])[0].status == 0


def test_releasing():
    outcome, lines = wait([told(0, "releasing"), told(1, "releasing")], [], released=3)
    assert outcome.status == 0
    assert lines == ["1 of 3 released", "3 of 3 released"]
    outcome, lines = wait([told(0, "releasing", "silent")], timeout=0.0, released=1)
    assert outcome.status == 1
    assert lines[-2:] == [
        f"{UUIDS[0]} on compute1: releasing; the executor of compute1 is silent",
        "not done within 0 s; it goes on",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.9, "59 s"), (60, "1 min"), (7300, "2 h"), (1e6, "11 d")]
)
def test_ages(seconds, text):
    assert host.age(seconds) == text


def test_an_allocation_reads_well():
    assert columns.Wanted({"cpu_shares": 5}).human_readable() == "cpu-shares=5"
    assert columns.Wanted(None).human_readable() == "(its baseline)"


@pytest.mark.parametrize("version", ["1", "1.0", "1.17"])
def test_versions(version):
    assert plugin.check_api_version(version)


@pytest.mark.parametrize("version", ["2", "1.", "latest", "", "1.0\n"])
def test_no_versions(version):
    with pytest.raises(exceptions.CommandError, match="os-kongming-api-version"):
        plugin.check_api_version(version)


def test_the_endpoint_may_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("OS_KONGMING_ENDPOINT_OVERRIDE", "http://here")
    parser = plugin.build_option_parser(argparse.ArgumentParser())
    assert parser.parse_args([]).os_kongming_endpoint_override == "http://here"
