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
"""Tokens: Keystone or memcached may be unresponsive, or of another time; the API goes on."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
import json
import logging
from pathlib import Path
import socketserver
import sys
import threading

import pytest

from kongming import exception
from kongming.api import tokens
from kongming.conf import keystone
from kongming.tests import databases
from kongming.tests.api import Api
from kongming.tests.databases import instance
from kongming.tests.functional.requests import ALLOCATIONS, HOSTS, codes, refused
from kongming.tests.logs import logged
from kongming.tests.testbed import control_plane
from kongming.tests.testbed.identity_api import IdentityApi
from kongming.tests.testbed.process import free_port, wait_until
from kongming.tests.testbed.silent import Silent

PATH = f"{ALLOCATIONS}/{instance(1)}"
THREADS = 4


@pytest.fixture
def identity():
    with IdentityApi() as identity:
        identity.tokens |= {"boss": "boss", "other": "other"}
        yield identity


@pytest.fixture
def api(tmp_path, identity):
    return with_keystone(tmp_path, identity.options)


@pytest.fixture
def warnings(caplog):
    """What is logged of tokens so far, and forgotten then."""
    caplog.set_level(logging.INFO, "kongming")

    def warnings():
        found = [
            (each.levelname, each.getMessage())
            for each in caplog.records
            if each.name == "kongming.api.tokens"
        ]
        caplog.clear()
        return found

    return warnings


def with_keystone(root, options):
    return Api(root, options, auth_strategy="keystone")


def get(api, token, path=ALLOCATIONS):
    return api.request("GET", path, headers={"X-Auth-Token": token})


def check_line(lines, level, words):
    """Check that there is one line, with these words."""
    ((found, line),) = lines
    assert found == level
    assert words in line


class TestUnresponsiveKeystone:
    def test_keystone_is_waited_for_within_a_limit_and_logged_once(
        self, api, identity, warnings, monkeypatch
    ):
        identity.stop_answering()
        monkeypatch.setattr(tokens, "KEYSTONE_S", 0.1)
        for number in range(3):
            refused(get(api, f"made-up-{number}"), 503, "identity_unavailable")
        check_line(warnings(), "WARNING", "Keystone can't validate tokens (it does not respond)")
        monkeypatch.undo()
        identity.speak()
        refused(get(api, "made-up"), 401, "unauthenticated")
        check_line(warnings(), "INFO", "Keystone is available again")

    def test_keystone_does_not_stop_requests_without_a_token(
        self, tmp_path, identity, monkeypatch
    ):
        # Those that wait do so for as long as this test lasts.
        monkeypatch.setattr(tokens, "KEYSTONE_S", 3600.0)
        api = with_keystone(tmp_path, f"{identity.options}http_connect_timeout = 3600\n")
        assert get(api, "boss").status == 200
        identity.stop_answering()
        with ThreadPoolExecutor(THREADS) as pool:
            stuck = [pool.submit(get, api, f"made-up-{n}") for n in range(THREADS - 1)]
            wait_until(
                lambda: (
                    sum(each.startswith("made-up") for each in identity.questions) == THREADS - 1
                ),
                30,
                "all but one thread wait",
            )
            for number in range(3):
                assert get(api, "boss").status == 200
                assert get(api, "made-up", "/").status == 200
                assert get(api, "", "/healthcheck").status == 200
                busy = get(api, f"one-more-{number}")
                refused(busy, 503, "busy")
                assert busy.headers["Retry-After"] == "1"
            assert not any(each.done() for each in stuck)
            identity.speak()
            assert {each.result(60).status for each in stuck} == {401}
        assert get(api, "other").status == 200

    def test_keystone_is_not_queried_for_public_resources(self, tmp_path):
        with Silent() as unresponsive:
            api = with_keystone(
                tmp_path,
                f"[keystone_authtoken]\nauth_type = password\nauth_url = {unresponsive.url}\n"
                "username = a\npassword = b\nuser_domain_id = default\nproject_id = x\n",
            )
            for path, status in (("/", 200), ("/openapi.json", 200), ("/nothing", 404)):
                assert get(api, "made-up", path).status == status
            assert unresponsive.connections == 0

    def test_all_limits_are_set_and_an_operator_may_override_them(self, tmp_path, identity):
        conf = with_keystone(tmp_path, identity.options).conf[keystone.GROUP]
        assert {name: conf[name] for name in keystone.LIMITS} == keystone.LIMITS
        more = f"{identity.options}http_connect_timeout = 33\n"
        assert with_keystone(tmp_path, more).conf[keystone.GROUP].http_connect_timeout == 33


def test_a_token_that_one_thread_has_validated_is_known_to_all(api, identity):
    assert get(api, "boss").status == 200
    with ThreadPoolExecutor(8) as pool:
        queries = len(identity.questions)
        identity.stop_answering()
        for _ in range(3):
            found = pool.map(lambda _: get(api, "boss").status, range(8))
            assert list(found) == [200] * 8
    assert len(identity.questions) == queries


@pytest.mark.parametrize("lifetime", [0.0, 3600.0])
def test_a_token_is_cached_no_longer_than_permitted(lifetime):
    cache = tokens._Tokens()
    cache.set("key", b"value", time=lifetime)
    assert cache.get("key") == (b"value" if lifetime else None)
    assert cache.get("other") is None


def test_the_number_of_cached_tokens_is_bounded(monkeypatch):
    monkeypatch.setattr(tokens, "_TOKENS_MAX", 3)
    cache = tokens._Tokens()
    cache.set("over", b"-", time=0.0)
    for number in range(4):
        cache.set(str(number), b"%d" % number, time=3600.0)
    assert [cache.get(str(number)) for number in range(4)] == [b"0", b"1", b"2", None]
    cache.set("0", b"new", time=3600.0)
    assert len(cache._kept) == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("auth_type = carrier-pigeon\n", "carrier-pigeon"),
        ("auth_type = password\n", "auth_url"),
        ("memcache_security_strategy = MAC\n", "memcache_secret_key"),
    ],
)
def test_options_of_the_library_without_effect_end_the_start(tmp_path, options, words):
    with pytest.raises(exception.ConfigInvalid) as raised:
        with_keystone(tmp_path, f"[keystone_authtoken]\n{options}")
    assert str(raised.value).startswith("[keystone_authtoken] can't be used: ")
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_where_to_get_a_token_is_unknown_without_options(tmp_path, warnings):
    answer = with_keystone(tmp_path, "").request("GET", ALLOCATIONS)
    refused(answer, 401, "unauthenticated")
    assert "WWW-Authenticate" not in answer.headers
    check_line(
        warnings(), "WARNING", "set [keystone_authtoken] www_authenticate_uri: auth_type is not"
    )


def test_clients_learn_the_address_of_keystone_that_the_service_uses_by_default(
    tmp_path, identity
):
    options = identity.options.replace(f"www_authenticate_uri = {identity.url}\n", "")
    answer = get(with_keystone(tmp_path, options), "made-up")
    refused(answer, 401, "unauthenticated")
    assert answer.headers["WWW-Authenticate"] == f'Keystone uri="{identity.url}"'


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("auth_url = http://127.0.0.1:{port}/v3\n", "the connection fails"),
        ("auth_url = https://127.0.0.1:{identity}/v3\n", "the TLS handshake fails"),
    ],
)
def test_the_reason_for_an_unavailable_keystone_is_explained(
    tmp_path, identity, warnings, options, words
):
    written = options.format(port=free_port(), identity=identity.url.split(":")[2].split("/")[0])
    kept = identity.options.replace(f"auth_url = {identity.url}\n", written)
    api = with_keystone(tmp_path, f"{kept}http_request_max_retries = 0\n")
    refused(get(api, "boss"), 503, "identity_unavailable")
    check_line(warnings(), "WARNING", words)


class Memcached(socketserver.ThreadingTCPServer):
    """What memcached is to a client: ``get`` and ``set``; it may be unresponsive."""

    daemon_threads = True

    def __init__(self):
        self.kept, self.connections = {}, 0
        self.speaking = threading.Event()
        self.speaking.set()
        super().__init__(("127.0.0.1", 0), MemcachedHandler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def options(self):
        return (
            f"memcached_servers = 127.0.0.1:{self.server_address[1]}\n"
            "memcache_pool_dead_retry = 0\n"
        )

    def end(self):
        self.speaking.set()
        self.shutdown()
        self.server_close()


class MemcachedHandler(socketserver.StreamRequestHandler):
    def handle(self):
        server = self.server
        server.connections += 1
        for line in self.rfile:
            server.speaking.wait(60)
            word, key, *more = line.split()
            if word == b"set":
                server.kept[key] = (more[0], self.rfile.read(int(more[2]) + 2)[:-2])
                answer = b"STORED"
            else:
                flags, data = server.kept.get(key, (b"0", None))
                value = b"VALUE %b %b %d\r\n%b\r\n" % (key, flags, len(data or b""), data or b"")
                answer = (value if data else b"") + b"END"
            try:
                self.wfile.write(answer + b"\r\n")
            except OSError:
                # The client has given up.
                return


@pytest.fixture
def memcached():
    memcached = Memcached()
    yield memcached
    memcached.end()


class TestMemcached:
    @pytest.fixture
    def api(self, tmp_path, identity, memcached):
        return with_keystone(tmp_path, identity.options + memcached.options)

    @pytest.fixture
    def patience(self, monkeypatch):
        """Have a cache that is in time, however busy this machine is."""
        monkeypatch.setattr(tokens, "MEMCACHED_S", 30.0)

    def test_spares_keystone_questions(self, api, identity, memcached, patience):
        for _ in range(3):
            assert get(api, "boss").status == 200
        assert identity.questions == ["boss"]
        assert len(memcached.kept) == 1

    def test_an_unresponsive_server_is_left_alone_for_a_while_and_logged_once(
        self, api, identity, memcached, warnings, monkeypatch
    ):
        memcached.speaking.clear()
        monkeypatch.setattr(tokens, "MEMCACHED_S", 0.01)
        monkeypatch.setattr(tokens, "MEMCACHED_AGAIN_S", 3600.0)
        for _ in range(3):
            assert get(api, "boss").status == 200
        assert identity.questions == ["boss"] * 3
        assert memcached.connections <= 1
        check_line(warnings(), "WARNING", "memcached can't be used (it does not respond)")

    def test_a_server_that_answers_again_is_used_again(
        self, api, identity, memcached, warnings, monkeypatch
    ):
        memcached.speaking.clear()
        monkeypatch.setattr(tokens, "MEMCACHED_S", 0.01)
        monkeypatch.setattr(tokens, "MEMCACHED_AGAIN_S", 0.0)
        assert get(api, "boss").status == 200
        warnings()
        memcached.speaking.set()
        monkeypatch.setattr(tokens, "MEMCACHED_S", 30.0)
        wait_until(
            lambda: get(api, "boss").status == 200 and memcached.kept, 30, "the token is kept"
        )
        check_line(warnings(), "INFO", "memcached is available again")
        queries = len(identity.questions)
        assert get(api, "boss").status == 200
        assert len(identity.questions) == queries

    def test_a_client_that_fails_is_no_reason_to_refuse(
        self, api, identity, warnings, monkeypatch
    ):
        def fail(*_):
            raise RuntimeError("a library's own text")

        monkeypatch.setattr("memcache.Client.get", fail)
        assert get(api, "boss").status == 200
        check_line(warnings(), "WARNING", "memcached can't be used (RuntimeError)")

    def test_without_its_module_the_service_does_not_start(
        self, tmp_path, identity, memcached, monkeypatch
    ):
        monkeypatch.setitem(sys.modules, "memcache", None)
        monkeypatch.delitem(sys.modules, "oslo_cache._memcache_pool", raising=False)
        monkeypatch.delattr("oslo_cache._memcache_pool", raising=False)
        with pytest.raises(exception.ConfigInvalid) as raised:
            with_keystone(tmp_path, identity.options + memcached.options)
        assert "[keystone_authtoken] memcached_servers" in str(raised.value)
        assert "pip install python-memcached" in str(raised.value)


class TestClocks:
    @pytest.mark.parametrize(
        ("ahead", "words"),
        [
            (timedelta(hours=-2), "clock is ahead of Keystone's by 3"),
            (timedelta(minutes=-61), "clock is ahead of Keystone's by "),
        ],
    )
    def test_a_clock_that_is_ahead_is_logged_once_with_its_consequence(
        self, api, identity, warnings, ahead, words
    ):
        identity.ahead = ahead
        for token in ("boss", "other"):
            refused(get(api, token), 401, "unauthenticated")
        lines = warnings()
        check_line(lines, "WARNING", words)
        check_line(lines, "WARNING", "get 401: correct both (NTP)")

    def test_a_clock_that_is_behind_is_logged_too(self, api, identity, warnings):
        identity.ahead = timedelta(minutes=5)
        for token in ("boss", "other"):
            assert get(api, token).status == 200
        check_line(warnings(), "WARNING", "clock is behind of Keystone's by 2")

    @pytest.mark.parametrize(
        "ahead", [timedelta(minutes=-58), timedelta(0), timedelta(seconds=50)]
    )
    def test_a_harmless_offset_is_not_logged(self, api, identity, warnings, ahead):
        identity.ahead = ahead
        assert get(api, "boss").status == 200
        assert warnings() == []

    def test_a_token_that_expires_in_the_cache_is_no_sign_of_a_clock(
        self, api, identity, warnings
    ):
        identity.lifetime = timedelta(seconds=2)
        wait_until(lambda: get(api, "boss").status == 401, 30, "it has ended")
        assert warnings() == []


@pytest.fixture
def log(api):
    """What the API logs, as oslo.log writes it."""
    with logged(api.conf) as text:
        yield lambda: text().splitlines()


class TestLinesOfOneRequest:
    def test_no_request_has_the_id_or_the_user_of_the_previous_one(
        self, api, identity, log, monkeypatch
    ):
        boss = get(api, "boss").headers["x-openstack-request-id"]
        monkeypatch.setattr(tokens, "KEYSTONE_S", 0.05)
        identity.stop_answering()
        before = len(log())
        tenant = get(api, "made-up").headers["x-openstack-request-id"]
        lines = log()[before:]
        assert any("kongming.api.tokens" in line for line in lines)
        assert any("kongming.api.errors" in line for line in lines)
        for line in lines:
            assert tenant in line
            assert boss not in line
            assert "id-of-boss" not in line

    @pytest.mark.parametrize("path", ["/healthcheck", "/", "/nothing", HOSTS])
    def test_a_public_request_has_no_former_user_either(self, api, log, monkeypatch, path):
        assert get(api, "boss").status == 200
        logged_by_each = logging.getLogger("kongming.tests")

        monkeypatch.setattr(
            "kongming.db.database.Database._check_schema",
            lambda *_: logged_by_each.error("a line of the health"),
        )
        monkeypatch.setattr(
            "kongming.api.microversion.microversion_parse.extract_version",
            lambda *_: logged_by_each.error("a line of the version"),
        )
        before = len(log())
        answer = get(api, "", path)
        lines = [line for line in log()[before:] if "a line of the" in line]
        assert lines
        for line in lines:
            assert answer.headers["x-openstack-request-id"] in line
            assert "id-of-boss" not in line

    def test_with_its_user_they_have_its_id(self, api, identity, log, monkeypatch):
        monkeypatch.setattr("kongming.db.hosts.Hosts.list", lambda *_a, **_k: 1 // 0, raising=True)
        answer = get(api, "boss", HOSTS)
        (line,) = [line for line in log() if "kongming.api.errors" in line and "ERROR" in line][:1]
        assert answer.status == 500
        about, _, _ = line.partition("]")
        assert answer.headers["x-openstack-request-id"] in about
        assert "id-of-boss" in about

    def test_without_keystone_likewise(self, tmp_path, log, monkeypatch):
        monkeypatch.setattr("kongming.db.hosts.Hosts.list", lambda *_a, **_k: 1 // 0)
        (tmp_path / "noauth").mkdir()
        answer = Api(tmp_path / "noauth").request("GET", HOSTS)
        (line,) = [line for line in log() if "kongming.api.errors" in line and "ERROR" in line][:1]
        about, _, _ = line.partition("]")
        assert answer.headers["x-openstack-request-id"] in about
        assert "noauth" in about


def test_an_invalid_path_of_the_health_check_is_refused(tmp_path, identity):
    for path in ("alive", "/", "/v1/hosts"):
        with pytest.raises(exception.ConfigInvalid, match=r"\[healthcheck\] path"):
            with_keystone(tmp_path, f"{identity.options}[healthcheck]\npath = {path}\n")


def test_an_unresponsive_keystone_stops_no_server(tmp_path):
    databases.database(f"sqlite:///{tmp_path}/kongming.sqlite").close()
    conf = tmp_path / "kongming.conf"
    with Silent() as unresponsive:
        conf.write_text(
            f"[DEFAULT]\nstate_path = {tmp_path}\ntransport_url = fake://\n"
            f"[keystone_authtoken]\nauth_type = password\nauth_url = {unresponsive.url}\n"
            "username = a\npassword = b\nuser_domain_id = default\nproject_id = x\n"
            "http_connect_timeout = 20\n"
        )
        with control_plane.Api(tmp_path, conf, workers=1) as api, ThreadPoolExecutor(12) as pool:

            def request(number):
                return api.request("GET", ALLOCATIONS, headers={"X-Auth-Token": f"{number}"})

            requests = [pool.submit(request, number) for number in range(12)]
            refused_at_once = len(requests) - (THREADS - 1)
            wait_until(
                lambda: sum(each.done() for each in requests) >= refused_at_once, 60, "three wait"
            )
            assert api.request("GET", "/healthcheck").status == 200
            assert api.request("GET", "/").status == 200
            assert sum(not each.done() for each in requests) == THREADS - 1
            unresponsive.hang_up()
            answers = [each.result(60) for each in requests]
    assert codes(answers) == {"busy": refused_at_once, "identity_unavailable": THREADS - 1}


def test_an_unusable_option_ends_the_server_with_one_line(tmp_path, identity):
    conf = tmp_path / "kongming.conf"
    missing = "memcached_servers = 127.0.0.1:1\n"
    conf.write_text(f"[DEFAULT]\nstate_path = {tmp_path}\n{identity.options}{missing}")
    # As on a machine where nobody has installed it.
    (tmp_path / "memcache.py").write_text("raise ModuleNotFoundError('no', name='memcache')")
    api = control_plane.Api(tmp_path, conf, workers=1)
    api.process.env = {**(api.process.env or {}), "PYTHONPATH": str(tmp_path)}
    api.process.start()
    wait_until(lambda: not api.process.running, 60, "the server has ended")
    log = api.process.log.read_text()
    (line,) = [line for line in log.splitlines() if line.startswith("kongming-api: ")]
    assert "pip install python-memcached" in line
    # gunicorn may show where it halts itself.
    assert "kongming/wsgi" not in log


class TestAudit:
    MAP = Path(__file__).parents[3] / "etc/kongming/api_audit_map.conf"

    def audited(self, tmp_path, identity, driver="log"):
        section = f"[audit_middleware_notifications]\ndriver = {driver}\n"
        options = f"audit_map_file = {self.MAP}\n{identity.options}{section}"
        return with_keystone(tmp_path, options)

    def test_each_authenticated_request_is_an_event_with_its_outcome(
        self, tmp_path, identity, caplog
    ):
        caplog.set_level(logging.INFO)
        api = self.audited(tmp_path, identity)
        body = {"allocation": {"vcpu_pinning": "1"}}
        api.request("PUT", PATH, body, headers={"X-Auth-Token": "boss"})
        get(api, "made-up")
        events = [
            json.loads(each.getMessage())
            for each in caplog.records
            if each.name.startswith("oslo.messaging.notification.audit")
        ]
        assert [each["event_type"] for each in events] == [
            "audit.http.request", "audit.http.response",
        ]  # fmt: skip
        requested, answered = (each["payload"] for each in events)
        assert (requested["action"], requested["requestPath"]) == ("update", PATH)
        assert requested["initiator"]["id"] == "id-of-boss"
        assert (answered["outcome"], answered["reason"]["reasonCode"]) == ("success", "201")
        assert "gAAAA" not in caplog.text

    def test_a_map_that_can_not_be_read_is_named(self, tmp_path, identity):
        with pytest.raises(exception.ConfigInvalid, match="audit_map_file: /absent can't be read"):
            with_keystone(tmp_path, f"audit_map_file = /absent\n{identity.options}")
