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

"""The REST API under a WSGI server of several processes: gunicorn."""

from concurrent.futures import ThreadPoolExecutor
import http.client
import json
import os
from pathlib import Path
import signal
import socket

import pytest

from kongming.tests import databases
from kongming.tests.databases import instance
from kongming.tests.functional.requests import codes
from kongming.tests.testbed.control_plane import Api
from kongming.tests.testbed.process import wait_until

WORKERS = 3
TIMEOUT = 60
OPTIONS = "max_body_size = 2048\n"


def write(root, options=""):
    """Write kongming.conf, with an API without authentication."""
    conf = root / "kongming.conf"
    conf.write_text(
        f"[DEFAULT]\nstate_path = {root}\ntransport_url = fake://\n"
        f"[database]\nconnection = sqlite:///{root}/kongming.sqlite\n"
        f"[api]\nauth_strategy = noauth\n{options}"
    )
    return conf


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    root = tmp_path_factory.mktemp("api")
    databases.database(f"sqlite:///{root}/kongming.sqlite").close()
    with Api(root, write(root, OPTIONS), workers=WORKERS, preloaded=True) as api:
        wait_until(lambda: len(workers(api)) == WORKERS, TIMEOUT, "all workers")
        yield api


@pytest.fixture
def connection(api):
    """A connection that is kept from one request to the next."""
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=TIMEOUT)
    yield connection
    connection.close()


def workers(api):
    pid = api.process.pid
    return {int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def at_once(number, send):
    """Send so many requests at the same time; return the answers."""
    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(send, range(number)))


def path_of(number):
    return f"/v1/allocations/{instance(number)}"


def shares(number):
    return {"cpu_shares": number + 2}


def test_one_of_several_concurrent_requests_is_first(api):
    def send(number):
        body = {"allocation": shares(number), "generation": 0}
        return api.request("PUT", path_of(1), body)

    assert codes(at_once(16, send)) == {201: 1, "generation_conflict": 15}
    assert api.get(path_of(1))["generation"] == 1


def test_no_concurrent_request_is_lost(api):
    def send(number):
        return api.request("PUT", path_of(2), {"allocation": shares(number)})

    assert codes(at_once(16, send)) == {201: 1, 200: 15}
    assert api.get(path_of(2))["generation"] == 16
    history = api.get(f"{path_of(2)}/history")["history"]
    assert [change["generation"] for change in history] == list(range(1, 17))
    requested = {change["allocation"]["cpu_shares"] for change in history}
    assert requested == {shares(number)["cpu_shares"] for number in range(16)}


def test_an_instance_goes_to_one_of_the_maps_that_request_it(api):
    uuids = [instance(number) for number in range(30, 36)]

    def send(number):
        ordered = uuids if number % 2 else reversed(uuids)
        body = {"allocations": dict.fromkeys(ordered, shares(number))}
        return api.request("PUT", f"/v1/allocation-maps/map-{number}", body)

    assert codes(at_once(8, send)) == {201: 1, "map_conflict": 7}
    (one,) = api.get("/v1/allocation-maps")["allocation_maps"]
    assert one["instances"] == len(uuids)


def test_a_worker_that_is_killed_is_replaced(api):
    before = workers(api)
    os.kill(min(before), signal.SIGKILL)
    wait_until(
        lambda: len(workers(api)) == WORKERS and workers(api) != before, TIMEOUT, "a new worker"
    )
    assert codes(at_once(8, lambda _: api.request("GET", "/v1/allocations"))) == {200: 8}


def test_a_body_may_come_in_chunks(connection):
    data = json.dumps({"allocation": shares(1)}).encode()
    headers = {"Content-Type": "application/json"}
    parts = (data[at : at + 7] for at in range(0, len(data), 7))
    connection.request("PUT", path_of(3), parts, headers, encode_chunked=True)
    answer = connection.getresponse()
    assert (answer.status, json.load(answer)["allocation"]) == (201, shares(1))
    endless = (b" " * 1024 for _ in range(3))
    connection.request("PUT", path_of(3), endless, headers, encode_chunked=True)
    assert connection.getresponse().status == 413


@pytest.mark.parametrize(
    ("path", "kind", "status"),
    [
        (path_of(4), "application/json", 413),
        (path_of(4), "text/plain", 415),
        ("/v1/hosts", "application/json", 405),
        ("/nothing", "application/json", 404),
    ],
)
def test_an_unread_body_does_not_disturb_the_next_request(connection, path, kind, status):
    connection.request("PUT", path, b"x" * 4096, {"Content-Type": kind})
    answer = connection.getresponse()
    assert (answer.status, json.load(answer)["errors"][0]["status"]) == (status, status)
    connection.request("GET", "/v1/allocations")
    answer = connection.getresponse()
    assert (answer.status, "allocations" in json.load(answer)) == (200, True)


def test_head_has_the_headers_and_no_body(connection):
    connection.request("GET", "/openapi.json")
    got = connection.getresponse()
    length = len(got.read())
    connection.request("HEAD", "/openapi.json")
    head = connection.getresponse()
    assert (head.status, head.read()) == (200, b"")
    assert int(head.headers["Content-Length"]) == length
    connection.request("GET", "/v1")
    assert json.load(connection.getresponse())["version"]["id"] == "v1"


@pytest.mark.parametrize(
    "text",
    [
        b"GET /v1/allocations HTTP/1.1\r\n\xff\xfe: x\r\n\r\n",
        b"PUT /v1/hosts HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
        b"GET /v1/allocations?marker=%ff%fe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/hosts/%00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/hosts/%ff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/hosts HTTP/1.1\r\nHost: x\r\nOpenStack-API-Version: kongming \xff\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
)
def test_nonsense_is_refused(api, text):
    with socket.create_connection(("127.0.0.1", api.port), TIMEOUT) as plain:
        plain.sendall(text)
        assert plain.recv(12).startswith(b"HTTP/1.1 4")
    assert "Traceback" not in api.process.log.read_text()


def test_a_new_configuration_is_loaded_while_requests_are_answered(api):
    for number in (5, 6):
        api.request("PUT", path_of(number), {"allocation": shares(1)})
    before = workers(api)
    write(api.process.log.parent, f"{OPTIONS}max_limit = 1\n")
    os.kill(api.process.pid, signal.SIGHUP)

    def taken():
        assert api.request("GET", "/v1/hosts").status == 200
        return len(api.get("/v1/allocations")["allocations"]) == 1 and not workers(api) & before

    wait_until(taken, TIMEOUT, "the new configuration is in force")


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("api.conf", "[api]\nmax_limit = 0\n", "max_limit"),
        ("policy.yaml", "a: [", "[oslo_policy] policy_file, "),
    ],
)
def test_a_configuration_that_can_not_be_used_ends_the_start(tmp_path, file, text, message):
    (tmp_path / "api.conf").touch()
    (tmp_path / file).write_text(text)
    # Two files: the later one wins.
    api = Api(tmp_path, f"{write(tmp_path)};{tmp_path / 'api.conf'}", workers=1)
    with pytest.raises(RuntimeError, match="ended before the API answers"), api:
        pass
    assert message in api.process.log.read_text()


def raw(api, *lines):
    """The status of the answer to a request as it is sent, and its headers."""
    with socket.create_connection(("127.0.0.1", api.port), timeout=TIMEOUT) as connection:
        request = "\r\n".join([*lines, "Connection: close", "", ""])
        connection.sendall(request.encode("latin-1"))
        with connection.makefile("rb") as answer:
            head = answer.read().partition(b"\r\n\r\n")[0].decode("latin-1")
    return int(head.split()[1]), head


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        ("/v1/hosts", "Host: localhost:9630", 200),
        ("/v1/hosts", "Host: placing.example", 403),
        ("/v1/hosts", "X-Nothing: no host at all", 403),
        ("/v1/hosts", "Host: localhost\r\nHost: placing.example", 403),
        ("http://localhost/v1/hosts", "Host: localhost", 200),
        ("http://placing.example/v1/hosts", "Host: localhost", 403),
        ("//placing.example/v1/hosts", "Host: localhost", 404),
        ("/v1/hosts/%0aforged%1b[2J", "Host: localhost", 400),
        ("/v1/hosts/%ff%fe", "Host: localhost", 400),
    ],
)
def test_the_requested_path_counts_as_it_was_sent(api, target, host, status):
    answered, head = raw(api, f"GET {target} HTTP/1.1", host)
    # A server may refuse by itself what names two hosts.
    assert answered == status or (host.count("Host:") == 2 and answered == 400)
    if "application/json" in head:
        assert "Cache-Control: no-store" in head
        assert "X-Content-Type-Options: nosniff" in head
