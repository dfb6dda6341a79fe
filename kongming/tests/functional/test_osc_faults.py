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
"""``openstack kongming`` against an API that answers oddly, at each request of each command."""

import functools
import itertools
import json
import select
from types import SimpleNamespace

from keystoneauth1 import access
from keystoneauth1.identity.base import BaseIdentityPlugin
from keystoneauth1.session import Session
import pytest
from urllib3.connection import HTTPConnection

from kongming.client import waiting
from kongming.client.rest import Client
from kongming.osc import change, plugin
from kongming.tests import commands
from kongming.tests.api import Api
from kongming.tests.commands import Meanwhile, client_at
from kongming.tests.databases import asking, instance
from kongming.tests.testbed.process import wait_until
from kongming.tests.testbed.scripted_api import How, Odd, ScriptedApi
from kongming.tests.thorough import pairs

SET = ("allocation set", instance(1), "--cpu-shares", "7")
APPLY = ("allocation map apply", "blue", "MAP")
#: Those that change something, with their arguments.
CHANGES = {
    "set": SET,
    "unset": ("allocation unset", instance(2)),
    "apply": APPLY,
    "delete": ("allocation map delete", "green"),
}
READS = [
    ("allocation show", instance(2)),
    ("allocation list", "--limit", "1"),
    ("allocation plan", instance(2)),
    ("allocation preview", instance(2)),
    ("allocation history", instance(2)),
    ("allocation map show", "green"),
    ("allocation map list",),
    ("allocation map export", "green"),
    ("allocation map apply", "blue", "MAP", "--dry-run"),
    ("host list",),
    ("host show", "compute1"),
]
LIMIT_S = 30
#: The time limit once the server is known to leave a request without an answer.
SILENCE_S = 0.05
STATUSES = (401, 403, 404, 408, 429, 500, 503)
PAGES = [Odd(status) for status in STATUSES]
WRONG = [
    Odd(),
    Odd(body=b"{}", headers={"Content-Type": "application/json"}),
    Odd(body=b"[" * 100_000, headers={"Content-Type": "application/json"}),
    Odd(
        body=b'{"allocations": [{}], "history": [[]], "hosts": [{}], "allocation_maps": [5],'
        b' "links": [], "name": "x", "state": "up", "generation": 1, "instances": 1}',
        headers={"Content-Type": "application/json"},
    ),
    Odd(headers={"Location": "/login"}, status=302),
]
LOST = [*(Odd(how=how) for how in How), *WRONG]
#: The API has carried it out, but the client gets no answer that shows it.
UNANSWERED = [Odd(how=how, after=True) for how in (How.CUT, How.CLOSED, How.SILENT)]
UNANSWERED += [Odd(status, after=True) for status in (200, 504)]
#: Of all kinds one.
SOME = [Odd(), *(Odd(status) for status in (401, 404, 429, 502)), Odd(how=How.CUT)]
SOME += [Odd(how=How.SILENT)]


@pytest.fixture
def server(tmp_path):
    with ScriptedApi(Api(tmp_path)) as server:
        by = {"generation": None, "requested_by": "x", "request_id": "x"}
        server.api.allocations.put(instance(2), asking("1"), **by)
        server.api.allocations.put_map("green", {instance(3): asking("1")}, **by)
        server.api.allocations.claim("compute1", [instance(2), instance(3)], ())
        yield server


@pytest.fixture
def meanwhile(monkeypatch):
    """The clock of what is waited for."""
    meanwhile = Meanwhile()
    waiter = functools.partial(waiting.Waiter, clock=meanwhile.clock, sleep=meanwhile.sleep)
    monkeypatch.setattr(change, "Waiter", waiter)
    return meanwhile


@pytest.fixture
def silences(server, monkeypatch):
    """Have a silence end soon, without a time limit that a busy server would exceed."""
    receive = HTTPConnection.getresponse

    def received_or_silenced(connection):
        return select.select([connection.sock], [], [], 0)[0] or server.silent.is_set()

    def getresponse(connection):
        wait_until(lambda: received_or_silenced(connection), LIMIT_S, "an answer, or its absence")
        if server.silent.is_set():
            server.silent.clear()
            connection.timeout = SILENCE_S
        return receive(connection)

    monkeypatch.setattr(HTTPConnection, "getresponse", getresponse)


@pytest.fixture
def run(server, tmp_path, monkeypatch, meanwhile, silences):
    """Run a command."""
    path = tmp_path / "map.json"
    path.write_text(json.dumps({instance(1): {"cpu_shares": 7}}))
    for name in ("_SEND_MIN_S", "_SETTLE_MIN_S", "_SETTLE_MAX_S"):
        monkeypatch.setattr(change, name, LIMIT_S)
    monkeypatch.setattr(waiting, "_FIRST_POLL_S", LIMIT_S)

    def run(name, *arguments):
        client = Client(client_at(server.url)._adapter, LIMIT_S)
        arguments = [str(path) if each == "MAP" else each for each in arguments]
        return commands.run(client, name, *arguments)

    return run


def in_force(server, name):
    """Return whether a change is in force."""
    allocations = server.api.allocations
    found, other = allocations.get(instance(1)), allocations.get(instance(2))
    of_map = allocations.get_map("green")
    return {
        "set": found is not None and found.allocation.cpu_shares == 7,
        "apply": found is not None and found.map_name == "blue",
        "unset": other is None or other.allocation is None,
        "delete": of_map is None or of_map.deleting,
    }[name]


def check(ended):
    """What holds of every command, however it is answered."""
    assert "nexpected" not in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "'NoneType'" not in ended.stderr
    assert ended.status in (0, 1)
    assert ended.status == 0 or ended.stderr.endswith("\n")


@pytest.mark.parametrize(("command", "odd"), pairs(READS, [*PAGES, *LOST]), ids=str)
def test_a_reading_command_reports_an_error_in_one_line(server, run, command, odd):
    for number in itertools.count(1):
        with server.scripted(lambda *_, number=number: odd if _[2] == number else None):
            ended = run(*command)
        check(ended)
        if len(server.requests) < number:
            break
        # Without plans, the dry run of a map has its changes.
        has_changes = "--dry-run" in command and number == 2
        assert (ended.status, bool(ended.output)) == (1, has_changes), number
        assert ended.stderr.count("\n") == 1
        assert "Kongming's API" in ended.stderr


@pytest.mark.parametrize(("name", "odd"), pairs(CHANGES, [*PAGES, *LOST, *UNANSWERED]), ids=str)
def test_the_result_of_a_change_is_reported(server, run, name, odd):
    method = "PUT" if name in ("set", "apply") else "DELETE"
    with server.scripted(lambda sent, *_: odd if sent == method else None):
        ended = run(*CHANGES[name], "-f", "json")
    check(ended)
    accepted = in_force(server, name)
    assert accepted is odd.after
    if accepted:
        # Looking at it has settled what the answer did not show.
        assert ended.status == 0
        assert ended.parsed
        assert "was accepted nevertheless" in ended.stderr
    else:
        assert (ended.status, ended.output) == (1, "")
        unknown = "it is not known whether" in ended.stderr
        refused = odd.how is None and 300 <= odd.status < 500
        assert unknown is not refused


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_with_an_unknown_result_is_reported_as_unknown(server, run, name):
    for odd in UNANSWERED:
        first = [True]

        def script(method, *_, odd=odd, first=first):
            if method == "GET" and first[0]:
                return None
            carries_out, first[0] = first[0] and method != "GET", False
            return odd if carries_out else Odd(502)

        with server.scripted(script):
            ended = run(*CHANGES[name], "-f", "json")
        check(ended)
        assert (ended.status, ended.output) == (1, "")
        assert "it is not known whether" in ended.stderr
        assert "see 'openstack kongming" in ended.stderr


@pytest.mark.parametrize(("name", "odd"), pairs(CHANGES, SOME), ids=str)
def test_an_accepted_change_is_reported_whatever_ends_waiting(server, run, meanwhile, name, odd):
    accepted = []

    def script(method, *_):
        if accepted and method == "GET":
            return odd
        accepted.extend([method] if method != "GET" else [])
        return None

    with server.scripted(script):
        ended = run(*CHANGES[name], "-f", "json", "--wait", "--timeout", "4")
    check(ended)
    assert in_force(server, name)
    assert ended.status == 1
    assert ended.parsed["generation"]
    (line,) = [line for line in ended.lines if "was accepted" in line]
    assert line == ended.lines[-1]
    assert line.endswith("and stays in force")
    if odd.status == 401:
        assert len(meanwhile.slept) == 1
    else:
        assert "not carried out within 4 s; " in line
        assert sum(meanwhile.slept) == pytest.approx(4)


@pytest.mark.parametrize(("name", "odd"), pairs(CHANGES, SOME), ids=str)
def test_one_invalid_answer_while_waiting_is_waited_out(server, run, name, odd):
    looks = []

    def script(method, *_):
        looks.extend([method] if looks or method != "GET" else [])
        if len(looks) == 3:
            allocations = server.api.allocations
            allocations.forget(allocations.instance_uuids(), 0.0)
        return odd if len(looks) == 2 else None

    with server.scripted(script):
        ended = run(*CHANGES[name], "-f", "json", "--wait", "--timeout", "9")
    check(ended)
    assert ended.status == (1 if name in ("set", "apply") else 0)
    assert len(looks) >= 3
    assert "not carried out within" not in ended.stderr
    assert ended.parsed


def test_the_api_is_called_again_after_its_retry_delay(server, run, meanwhile):
    later = Odd(429, headers={"Retry-After": "5"})
    with server.scripted(lambda _method, _path, number: later if number == 2 else None):
        ended = run(*SET, "--wait", "--timeout", "6")
    check(ended)
    assert meanwhile.slept[0] == 5


def test_waiting_ends_in_time_for_an_unresponsive_api(server, run):
    unresponsive = Odd(how=How.SILENT)
    with server.scripted(lambda method, *_: unresponsive if method == "GET" else None):
        ended = run(*SET, "--wait", "--timeout", "0", "-f", "json")
    check(ended)
    assert (ended.status, ended.parsed["status"]) == (1, "pending")
    assert "no response within" in ended.lines[0]


@pytest.mark.parametrize("text", ["nan", "inf", "-5", "soon"])
def test_an_invalid_time_is_refused_before_a_request_is_sent(server, run, capsys, text):
    with server.scripted(lambda *_: None):
        ended = run(*SET, f"--timeout={text}")
        assert (ended.status, server.requests) == (2, [])
    assert f"'{text}' is not a number of seconds" in capsys.readouterr().err


class Auth(BaseIdentityPlugin):
    """A log-in that gets a token whenever it needs one.

    :ivar tokens: how many it got.
    """

    tokens = 0

    def get_auth_ref(self, session):
        self.tokens += 1
        body = {"user": {}, "methods": [], "expires_at": "2999-01-01T00:00:00.000000Z"}
        return access.create(body={"token": body}, auth_token=f"token {self.tokens}")


@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_expired_token_is_replaced(server, meanwhile, number):
    auth = Auth("http://keystone")
    client = plugin.make_client(
        SimpleNamespace(
            session=Session(auth=auth),
            interface="public",
            region_name=None,
            get_configuration=lambda: {"kongming_endpoint_override": server.url},
        )
    )

    def script(_method, _path, request):
        return Odd(401) if request == number else None

    with server.scripted(script):
        ended = commands.run(client, *SET, "--wait", "--timeout", "1", "-f", "json")
    assert (ended.status, ended.parsed["generation"], auth.tokens) == (1, 1, 2)
    assert "401" not in ended.stderr
    assert "not carried out within 1 s; " in ended.lines[-1]


@pytest.mark.parametrize("url", ["http://[::1", "kongming:9630", "ftp://kongming", "http://"])
def test_an_invalid_address_is_reported_in_one_line(url):
    ended = commands.run(client_at(url), *SET)
    assert (ended.status, ended.output, ended.stderr.count("\n")) == (1, "", 1)
    assert "address" in ended.stderr


@pytest.mark.parametrize("command", [APPLY, CHANGES["delete"]])
def test_waiting_includes_the_reads_before_a_change(server, run, command):
    unresponsive = Odd(how=How.SILENT)
    with server.scripted(lambda *_: unresponsive):
        ended = run(*command, "--wait", "--timeout", "0")
    assert ended.status == 1
    assert [method for method, _ in server.requests] == ["GET"]
    assert ended.stderr.endswith(f"no response within {LIMIT_S} s\n")
