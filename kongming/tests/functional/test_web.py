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

"""The REST API among browsers, caches and clients that send what nobody should."""

import json
import re

import jsonschema
import pytest

from kongming.api import operation
from kongming.tests.api import Api
from kongming.tests.databases import instance
from kongming.tests.functional.requests import ALLOCATIONS, HOSTS, MAPS, refused
from kongming.tests.logs import logged
from kongming.tests.testbed.process import free_port

PATH = f"{ALLOCATIONS}/{instance(1)}"
BODY = b'{"allocation": {"vcpu_pinning": "1"}}'
TOKEN = {"X-Auth-Token": "gAAAA"}
PAGE = "https://dashboard.example.com"
PREFLIGHT = {"Access-Control-Request-Method": "PUT"}
LOOPBACK = (
    "localhost",
    "LocalHost:9630",
    "127.0.0.1",
    "127.0.0.1:80",
    "127.255.3.4:9630",
    "[::1]",
    "[::1]:9630",
    "[0:0:0:0:0:0:0:1]:1",
    "localhost:",
)
ELSEWHERE = (
    "placing.example",
    "placing.example:9630",
    "192.0.2.1",
    "[2001:db8::1]:9630",
    "localhost.placing.example",
    "placing.example.localhost",
    "127.0.0.1.placing.example",
    "127.1",
    "127.0.0.1.",
    "127.0.0.256",
    "127.0.0.1, placing.example",
    "localhost@placing.example",
    "user@localhost",
    "localhost:80:80",
    "::1",
    "[::1",
    "[::2]",
    "[::1]placing.example",
    "0.0.0.0",
    "2130706433",
    "localhost\nplacing.example",
    "localhost/placing.example",
    "",
)


@pytest.fixture
def api(tmp_path):
    return Api(tmp_path)


@pytest.fixture
def keystone(tmp_path):
    """The API with an unavailable Keystone."""
    return keystone_at(tmp_path)


def keystone_at(tmp_path, more=""):
    nobody = f"http://127.0.0.1:{free_port()}"
    return Api(
        tmp_path,
        f"[keystone_authtoken]\nwww_authenticate_uri = {nobody}\nauth_type = password\n"
        f"auth_url = {nobody}\nusername = a\npassword = b\nuser_domain_id = default\n"
        f"project_id = x\nhttp_request_max_retries = 0\n{more}",
        auth_strategy="keystone",
    )


@pytest.fixture
def log(keystone):
    """What the API logs, as oslo.log writes it."""
    with logged(keystone.conf) as text:
        yield text


def header(name, value):
    return {f"HTTP_{name.upper().replace('-', '_')}": value}


def granted(api, origin, method="OPTIONS", **headers):
    answer = api.request(method, PATH, headers={"Origin": origin, **headers})
    return {
        name.lower(): value
        for name, value in answer.headers.items()
        if name.lower().startswith("access-control")
    }


class TestOrigins:
    """Pages of other origins, in a browser."""

    def test_no_origin_is_permitted_by_default(self, keystone):
        assert granted(keystone, PAGE, **PREFLIGHT) == {}

    def test_a_named_origin_may_send_what_a_client_sends(self, tmp_path):
        api = keystone_at(tmp_path, f"[cors]\nallowed_origin = {PAGE}\n")
        sent = {"Access-Control-Request-Headers": "x-auth-token,content-type,if-match"}
        found = granted(api, PAGE, **{**PREFLIGHT, **sent})
        assert found["access-control-allow-origin"] == PAGE
        assert found["access-control-allow-methods"] == "PUT"
        assert "x-auth-token" in found["access-control-allow-headers"]
        assert granted(api, "https://other.example.com", **PREFLIGHT) == {}
        read = granted(api, PAGE, "GET")
        assert "X-OpenStack-Request-Id" in read["access-control-expose-headers"]


class TestOnlyThisMachine:
    @pytest.mark.parametrize("host", LOOPBACK)
    def test_a_loopback_host_is_answered(self, api, host):
        assert api.request("GET", ALLOCATIONS, environ=header("Host", host)).status == 200
        origin = header("Origin", f"http://{host}")
        assert api.request("GET", ALLOCATIONS, environ=origin).status == 200

    @pytest.mark.parametrize(("method", "path"), [("GET", HOSTS), ("DELETE", PATH)])
    def test_a_name_that_a_page_pointed_here_is_refused(self, api, method, path):
        for host in ELSEWHERE:
            answer = api.request(method, path, environ=header("Host", host))
            detail = refused(answer, 403, "not_local")
            assert "localhost, 127.0.0.0/8 and [::1]" in detail, host

    def test_nor_is_a_request_that_names_no_host(self, api):
        environ = {"HTTP_HOST": None}
        request = api.request("GET", ALLOCATIONS, environ={**environ, "HTTP_HOST": ""})
        refused(request, 403, "not_local")

    @pytest.mark.parametrize("scheme", ["http://", "https://"])
    def test_a_page_of_another_origin_is_refused(self, api, scheme):
        for host in ELSEWHERE:
            answer = api.request("PUT", PATH, data=BODY, environ=header("Origin", scheme + host))
            assert "the header Origin is" in refused(answer, 403, "not_local"), host
        assert api.request("GET", PATH).status == 404

    @pytest.mark.parametrize(
        "origin",
        [
            "null",
            "",
            "localhost",
            "file://",
            "chrome-extension://abc",
            "http://localhost http://x",
        ],
    )
    def test_a_request_without_an_origin_is_not_refused(self, api, origin):
        refused(api.request("GET", PATH, environ=header("Origin", origin)), 403, "not_local")

    @pytest.mark.parametrize("variable", ["RAW_URI", "REQUEST_URI"])
    @pytest.mark.parametrize(
        ("target", "status"),
        [
            (ALLOCATIONS, 200),
            (f"http://localhost:9630{ALLOCATIONS}", 200),
            (f"http://placing.example{ALLOCATIONS}", 403),
            (f"http://localhost@placing.example{ALLOCATIONS}", 403),
            (f"HTTP://[{ALLOCATIONS}", 403),
            ("placing.example:443", 403),
        ],
    )
    def test_a_target_that_is_a_whole_url_counts_too(self, api, variable, target, status):
        assert api.request("GET", ALLOCATIONS, environ={variable: target}).status == status

    def test_the_documents_are_for_every_host(self, api):
        answer = api.request("GET", "/v1", environ=header("Host", "placing.example"))
        assert answer.status == 200

    def test_with_keystone_hosts_and_pages_are_its_business(self, keystone):
        environ = header("Host", "placing.example") | header("Origin", "https://x.example")
        refused(keystone.request("GET", ALLOCATIONS, environ=environ), 401, "unauthenticated")


class TestHeaders:
    @pytest.mark.parametrize(
        "path", ["/", ALLOCATIONS, PATH, "/nowhere", "/healthcheck", "/openapi.json", MAPS + "/x"]
    )
    @pytest.mark.parametrize("kind", ["api", "keystone"])
    def test_no_answer_is_kept_or_guessed_at(self, request, kind, path):
        api = request.getfixturevalue(kind)
        for method in ("GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE"):
            answer = api.request(method, path, headers=TOKEN)
            assert answer.headers.getall("Cache-Control") == ["no-store"], method
            assert answer.headers.getall("X-Content-Type-Options") == ["nosniff"], method

    @pytest.mark.parametrize("kind", ["api", "keystone"])
    @pytest.mark.parametrize(("method", "path"), [("GET", PATH), ("HEAD", HOSTS), ("PUT", PATH)])
    def test_answers_that_depend_on_the_client_have_a_vary_header(
        self, request, kind, method, path
    ):
        answer = request.getfixturevalue(kind).request(method, path, headers=TOKEN)
        assert answer.headers["Vary"] == "X-Auth-Token, OpenStack-API-Version"

    @pytest.mark.parametrize(
        "name", ["X-HTTP-Method-Override", "X-Method-Override", "X-HTTP-Method"]
    )
    def test_no_header_overrides_the_method(self, api, name):
        assert api.request("PUT", PATH, data=BODY).status == 201
        assert api.request("GET", PATH, headers={name: "DELETE"}).status == 200
        assert api.request("POST", PATH, headers={name: "DELETE"}).status == 405
        assert api.get(PATH)["status"] == "pending"


class TestProxies:
    @pytest.fixture
    def link(self, tmp_path):
        """Return the link that the versions have, for a request with headers."""
        api = Api(
            tmp_path,
            "[oslo_middleware]\nenable_proxy_headers_parsing = true\n",
            auth_strategy="keystone",
        )

        def link(**headers):
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            answer = api.request("GET", "/v1", headers={"Host": "api.internal:9630", **named})
            (found,) = answer.body["version"]["links"]
            return found["href"]

        return link

    def test_the_first_of_several_values_is_that_of_the_client(self, link):
        assert link(X_Forwarded_Proto="https, http") == "https://api.internal:9630/v1"
        assert link(X_Forwarded_Proto="http,https,https") == "http://api.internal:9630/v1"
        both = {"X_Forwarded_Proto": " https , http", "X_Forwarded_Host": "cloud.example, inner"}
        assert link(**both) == "https://cloud.example/v1"
        assert link(**both, X_Forwarded_Prefix="/kongming, /x") == (
            "https://cloud.example/kongming/v1"
        )

    @pytest.mark.parametrize("proto", ["", " ,https", "javascript", "ftp, https", "https http"])
    def test_an_invalid_scheme_is_ignored(self, link, proto):
        assert link(X_Forwarded_Proto=proto) == "http://api.internal:9630/v1"

    def test_a_single_value_counts_as_before(self, link):
        assert link(X_Forwarded_Proto="https") == "https://api.internal:9630/v1"
        assert link(Forwarded="proto=https;host=a.example, proto=http") == "https://a.example/v1"


class TestLog:
    @pytest.mark.parametrize(
        "path",
        [
            HOSTS + "/x%0a2026-01-01 00:00:00.000 1 CRITICAL kongming [-] forged",
            HOSTS + "/x%1b[2J%0d%c2%85%e2%80%a8%e2%80%aeforged",
            HOSTS + "/%ff%0aforged",
        ],
    )
    def test_no_path_forges_a_line_while_keystone_is_away(self, keystone, log, path):
        refused(keystone.request("GET", path, headers=TOKEN), 503, "identity_unavailable")
        lines = log().removesuffix("\n").split("\n")
        assert all(line.isprintable() for line in lines)
        assert not [line for line in lines if line.startswith(("forged", "2026-01-01"))]
        assert any(
            re.search(rf"ERROR kongming\.api\.errors .*GET {HOSTS}/.*forged", x) for x in lines
        )

    def test_nor_does_a_token_or_another_header(self, keystone, log):
        sent = "a\x0b\x1b[2J\x85b"
        keystone.request(
            "GET",
            PATH,
            environ={**header("X-Auth-Token", sent), **header("OpenStack-API-Version", sent)},
        )
        assert all(line.isprintable() for line in log().splitlines())


class TestBodies:
    @pytest.mark.parametrize("path", [PATH, MAPS + "/x"])
    @pytest.mark.parametrize(
        "body",
        [b"[]", b'"x"', b"1", b"null", b"true", b"", b"[[[{}]]]", b"\x00", b"\xef\xbb\xbf", b"{}"],
    )
    def test_a_body_that_is_no_object_is_refused_and_not_logged(self, api, caplog, path, body):
        refused(api.request("PUT", path, data=body), 400, "request_invalid")
        assert not caplog.records

    @pytest.mark.parametrize("written", ["null", '"x"', "[]", "1", '[["vcpu_pinning", "1"]]'])
    def test_an_invalid_allocation_is_refused_too(self, api, caplog, written):
        sent = f'{{"allocation": {written}}}'.encode()
        refused(api.request("PUT", PATH, data=sent), 400, "request_invalid")
        sent = f'{{"allocations": {{"{instance(1)}": {written}}}}}'.encode()
        refused(api.request("PUT", MAPS + "/x", data=sent), 400, "request_invalid")
        assert not caplog.records

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-16-le"])
    def test_json_is_utf_8(self, api, encoding):
        sent = BODY.decode().encode(encoding)
        detail = refused(api.request("PUT", PATH, data=sent), 400, "request_invalid")
        assert "codec" not in detail

    def test_a_byte_order_mark_is_accepted(self, api):
        assert api.request("PUT", PATH, data=b"\xef\xbb\xbf" + BODY).status == 201

    @pytest.mark.parametrize(
        ("kind", "status"),
        [
            ("application/json; charset=utf-8", 201),
            ('application/json;CHARSET="UTF-8"', 201),
            ("application/json; charset=latin-1", 415),
            ("application/json; charset=utf-16; x=y", 415),
            ("application/json; charset=", 415),
            ("application/json, application/json", 415),
        ],
    )
    def test_another_charset_is_refused_by_its_name(self, api, kind, status):
        answer = api.request("PUT", PATH, data=BODY, headers={"Content-Type": kind})
        assert answer.status == status
        if status == 415:
            refused(answer, 415, "content_type_unsupported")

    @pytest.mark.parametrize("encoding", ["gzip", "br", "GZIP", "gzip, identity", "nonsense"])
    def test_a_compressed_body_is_refused_by_its_name(self, api, encoding):
        sent = {"Content-Encoding": encoding}
        answer = api.request("PUT", PATH, data=b"\x1f\x8b\x08\x00", headers=sent)
        detail = refused(answer, 415, "body_encoded")
        assert repr(encoding) in detail
        assert "without the header Content-Encoding" in detail

    @pytest.mark.parametrize("encoding", ["identity", "", "Identity"])
    def test_the_identity_encoding_is_accepted(self, api, encoding):
        sent = {"Content-Encoding": encoding}
        assert api.request("PUT", PATH, data=BODY, headers=sent).status == 201


class TestOddRequests:
    @pytest.mark.parametrize("kind", ["api", "keystone"])
    @pytest.mark.parametrize(
        ("path", "environ"),
        [
            ("/v1/%ff", {}),
            (f"{ALLOCATIONS}/%00", {}),
            (f"{HOSTS}/%ed%a0%80", {}),
            (f"{HOSTS}/..%2f..%2fetc", {}),
            (f"{ALLOCATIONS}?limit=%ff", {}),
            (f"{ALLOCATIONS}?%ff=1", {}),
            (f"{ALLOCATIONS}?limit=%zz", {}),
            (f"{ALLOCATIONS}?limit=1&limit=2", {}),
            (f"{ALLOCATIONS}?marker={'a' * 100_000}", {}),
            (f"{ALLOCATIONS}?{'&'.join(f'a{n}=1' for n in range(5_000))}", {}),
            (f"{HOSTS}/{'a' * 100_000}", {}),
            ("/", {"PATH_INFO": "http://placing.example/v1/allocations"}),
            ("/", {"PATH_INFO": "*"}),
            ("/", {"PATH_INFO": "/v1/\xff\xfe"}),
            (ALLOCATIONS, {"QUERY_STRING": "\xff\xfe=\x00"}),
        ],
    )
    def test_an_error_is_one_line_of_json(self, request, caplog, kind, path, environ):
        answer = request.getfixturevalue(kind).request("GET", path, environ=environ)
        assert answer.status in ((401, 404) if kind == "keystone" else (400, 404))
        assert json.loads(answer.data) == answer.body
        assert not answer.error["detail"].isspace()
        assert "Traceback" not in caplog.text
        assert not [record for record in caplog.records if record.exc_info]

    @pytest.mark.parametrize("length", ["abc", "-5", "1_0", "\xb2"])
    def test_an_invalid_length_is_refused(self, api, length):
        answer = api.request("PUT", PATH, data=BODY, environ={"CONTENT_LENGTH": length})
        refused(answer, 400, "request_invalid")


@pytest.mark.parametrize(
    ("pattern", "good"),
    [
        (operation.UUID, instance(1)),
        (operation.MAP_NAME, "a"),
        (operation.HOST_NAME, "compute-1"),
        (operation.PROJECT_ID, "p"),
    ],
)
def test_a_documented_pattern_lets_no_line_break_through(pattern, good):
    validator = jsonschema.Draft202012Validator({"type": "string", "pattern": pattern})
    assert validator.is_valid(good)
    for other in (f"{good}\n", f"\n{good}", f"{good}\nx", f"{good}\r", f"{good}\u2028"):
        assert not validator.is_valid(other)
