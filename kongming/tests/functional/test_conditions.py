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
"""Conditional requests: a header that names a generation is honoured or refused, never ignored."""

import pytest

from kongming.tests.api import Api
from kongming.tests.databases import instance
from kongming.tests.functional.requests import ALLOCATIONS, MAPS, PIN, place, refused

ALLOCATION, MAP = f"{ALLOCATIONS}/{instance(1)}", f"{MAPS}/blue"
BODIES = {
    ALLOCATION: {"allocation": PIN},
    MAP: {"allocations": {instance(2): PIN}},
}
OTHERS = {
    ALLOCATION: {"allocation": {"vcpu_pinning": "2"}},
    MAP: {"allocations": {instance(2): {"vcpu_pinning": "2"}}},
}
EACH = pytest.mark.parametrize("path", [ALLOCATION, MAP])


@pytest.fixture
def api(tmp_path):
    return Api(tmp_path)


@pytest.fixture
def there(api):
    """The API with an allocation and a map of generation 2, which are on a host."""
    for path, body in BODIES.items():
        api.put(path, OTHERS[path])
        api.put(path, body)
    place(api, "compute-1", 1, 2)
    return api


def change(api, path, headers, method="PUT", **more):
    body = {**OTHERS[path], **more} if method == "PUT" else None
    return api.request(method, path, body, headers=headers)


def generation(api, path):
    return api.get(path)["generation"]


@EACH
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize("written", ['"2"', "2", ' "2" '])
def test_a_change_to_the_generation_that_is_named_is_made(there, path, method, written):
    answer = change(there, path, {"If-Match": written}, method)
    assert answer.status == (200 if method == "PUT" else 202)
    assert answer.body["generation"] == 3


@EACH
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_a_change_to_another_generation_is_not(there, path, method):
    hints = len(there.conductor.hints)
    for written in ('"1"', '"3"', '"0"', '"2147483647"', "1"):
        answer = change(there, path, {"If-Match": written}, method)
        assert "2" in refused(answer, 412, "generation_conflict"), written
    assert generation(there, path) == 2
    assert len(there.conductor.hints) == hints


@EACH
def test_a_conflict_without_a_header_is_409_as_before(there, path):
    refused(change(there, path, {}, generation=1), 409, "generation_conflict")
    refused(there.request("DELETE", f"{path}?generation=1"), 409, "generation_conflict")


@EACH
def test_if_none_match_creates_missing_resources_only(api, path):
    headers = {"If-None-Match": "*"}
    assert change(api, path, headers).status == 201
    refused(change(api, path, headers), 412, "generation_conflict")
    assert generation(api, path) == 1


@EACH
def test_if_match_on_a_missing_resource_fails(api, path):
    refused(change(api, path, {"If-Match": '"1"'}), 412, "generation_conflict")
    assert api.request("GET", path).status == 404


NOT_UNDERSTOOD = (
    {"If-Match": "*"},
    {"If-Match": 'W/"2"'},
    {"If-Match": '"1", "2"'},
    {"If-Match": '"abc"'},
    {"If-Match": '"2'},
    {"If-Match": '2"'},
    {"If-Match": ""},
    {"If-Match": '"-2"'},
    {"If-Match": '"2147483648"'},
    {"If-Match": f'"{"9" * 50}"'},
    {"If-None-Match": '"1"'},
    {"If-None-Match": "*", "If-Match": '"2"'},
    {"If-Unmodified-Since": "Wed, 21 Oct 2026 07:28:00 GMT"},
    {"If-Modified-Since": "Wed, 21 Oct 2026 07:28:00 GMT"},
    {"If-Range": '"2"'},
    {"Range": "bytes=0-1"},
    {"Content-Range": "bytes 0-1/2", "If-Match": '"2"'},
)


@EACH
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_a_condition_that_is_not_understood_is_refused(there, path, method):
    for headers in NOT_UNDERSTOOD:
        detail = refused(change(there, path, headers, method), 400, "request_invalid")
        assert any(name in detail for name in headers), headers
    assert generation(there, path) == 2


@EACH
def test_header_and_body_may_name_the_same_generation(there, path):
    assert change(there, path, {"If-Match": '"2"'}, generation=2).status == 200
    answer = change(there, path, {"If-Match": '"3"'}, generation=2)
    assert "3" in refused(answer, 400, "request_invalid")
    answer = there.request("DELETE", f"{path}?generation=2", headers={"If-Match": '"3"'})
    refused(answer, 400, "request_invalid")


@pytest.mark.parametrize("header", ["If-Match", "If-None-Match", "If-Unmodified-Since"])
def test_a_dry_run_ignores_conditions(there, header):
    path = f"{ALLOCATION}?dry_run=true"
    answer = there.request("PUT", path, BODIES[ALLOCATION], headers={header: '"1"'})
    assert header in refused(answer, 400, "request_invalid")
    assert there.conductor.planned == []
