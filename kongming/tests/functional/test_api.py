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

"""The REST API as one WSGI application, with SQLite; conductors are stood in for."""

from concurrent.futures import ThreadPoolExecutor
from importlib import resources
import io
import itertools
import json
import logging
from operator import itemgetter
import re
import threading
import time
from urllib.parse import parse_qsl, quote, urlencode, urlsplit
import zoneinfo

import pytest
from sqlalchemy import insert, select

from kongming import exception
from kongming.allocation import timezones
from kongming.allocation.json_schema import PROBLEMS_MAX
from kongming.api.resources import RESOURCES
from kongming.db.models import HOST
from kongming.db.values import Location
from kongming.tests.api import Api
from kongming.tests.databases import instance, report
from kongming.tests.functional.requests import (
    ALLOCATIONS,
    HOSTS,
    MAPS,
    PIN,
    PROJECT,
    place,
    refused,
)
from kongming.tests.host_names import TAKEN
from kongming.tests.testbed.process import patience, wait_until

REQUEST_ID = re.compile(r"req-[0-9a-f-]{36}")
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
PATHS = [kind.path for kind in RESOURCES]
CHUNKED = {"CONTENT_LENGTH": "", "HTTP_TRANSFER_ENCODING": "chunked"}
NIGHT = {"name": "night", "start": "0 22 * * *", "duration_s": 3600, "vcpu_pinning": "2"}


@pytest.fixture
def api(tmp_path):
    return Api(tmp_path)


@pytest.fixture
def caplog(caplog):
    caplog.set_level(logging.INFO)
    return caplog


def path_of(number=1):
    return f"{ALLOCATIONS}/{instance(number)}"


def put(api, number=1, cpus="1", **more):
    return api.put(path_of(number), {"allocation": {"vcpu_pinning": cpus}, **more})


def see(api, host, *, ago=0.0, interval_s=10.0, view=None):
    now = time.time() - ago
    api.hosts.heartbeat(host, started_at=now - 60, version="1.2.3", interval_s=interval_s, now=now)
    if view is not None:
        api.hosts.keep_snapshot(host, view, "digest", now)


def report_all(api, host, *reports):
    api.allocations.report(host, reports, time.time())


class TestDocuments:
    def test_versions(self, api):
        version = {
            "id": "v1",
            "status": "CURRENT",
            "version": "1.0",
            "min_version": "1.0",
            "links": [{"rel": "self", "href": "http://localhost:80/v1"}],
        }
        assert api.get("/") == {"versions": [version]}
        assert api.get("/v1") == api.get("/v1/") == {"version": version}

    def test_links_are_as_the_client_calls_the_service(self, api):
        answer = api.request(
            "GET", "/v1", headers={"Host": "placing.example:9630"}, environ={"SCRIPT_NAME": "/api"}
        )
        (link,) = answer.body["version"]["links"]
        assert link["href"] == "http://placing.example:9630/api/v1"

    def test_the_schema_of_an_allocation(self, api):
        assert api.get("/v1/schemas/allocation")["title"] == "Allocation"

    def test_the_openapi_document_names_all_paths(self, api):
        assert list(api.get("/openapi.json")["paths"]) == PATHS

    @pytest.mark.parametrize("path", ["/", "/v1", "/openapi.json", "/v1/schemas/allocation"])
    def test_the_versions_are_public(self, api, path):
        api.address = "192.0.2.1"
        api.get(path)


class TestHeaders:
    @pytest.mark.parametrize("path", ["/", ALLOCATIONS, "/nowhere", HOSTS + "/unheard-of"])
    def test_each_answer_names_its_version_and_its_request(self, api, path):
        answer = api.request("GET", path)
        assert answer.headers["OpenStack-API-Version"] == "kongming 1.0"
        identified = path.startswith((ALLOCATIONS, HOSTS))
        vary = ["X-Auth-Token"] * identified + ["OpenStack-API-Version"]
        assert answer.headers["Vary"] == ", ".join(vary)
        assert REQUEST_ID.fullmatch(answer.headers["x-openstack-request-id"])

    def test_a_request_id_is_made_for_each(self, api):
        sent = {"X-Openstack-Request-Id": "req-00000000-0000-0000-0000-000000000000"}
        ids = {
            api.request("GET", "/", headers=sent).headers["x-openstack-request-id"]
            for _ in range(3)
        }
        assert len(ids) == 3
        assert sent["X-Openstack-Request-Id"] not in ids

    @pytest.mark.parametrize(
        "version",
        [
            "kongming 1.0",
            "kongming latest",
            "compute 2.1, kongming 1.0",
            "compute 2.1",
            "",
            "what",
        ],
    )
    def test_supported_versions_are_accepted(self, api, version):
        answer = api.request("GET", ALLOCATIONS, headers={"OpenStack-API-Version": version})
        assert answer.status == 200
        assert answer.headers["OpenStack-API-Version"] == "kongming 1.0"

    @pytest.mark.parametrize(
        "version",
        [
            "1.9",
            "0.9",
            "2.0",
            "1",
            "1.0.0",
            "x.y",
            "-1.0",
            "1.0 1.0",
            "\xe9",
            "\u0661.0",
            "9" * 5000,
        ],
    )
    def test_unsupported_versions_are_refused(self, api, version):
        written = f"kongming {version}".encode().decode("latin-1")
        answer = api.request("GET", ALLOCATIONS, environ={"HTTP_OPENSTACK_API_VERSION": written})
        assert "1.0 to 1.0, or latest" in refused(answer, 406, "version_unsupported")
        assert answer.headers["OpenStack-API-Version"] == "kongming 1.0"

    @pytest.mark.parametrize("path", [ALLOCATIONS, "/", path_of(), "/nowhere", HOSTS])
    def test_head_is_get_without_the_body(self, api, path):
        put(api)
        head, get = (api.request(method, path) for method in ("HEAD", "GET"))
        assert head.status == get.status
        assert head.data == b""
        assert head.headers["Content-Type"] == get.headers["Content-Type"]

    @pytest.mark.parametrize(
        ("path", "allowed"),
        [
            ("/", "GET, HEAD, OPTIONS"),
            (ALLOCATIONS, "GET, HEAD, OPTIONS"),
            (path_of(), "DELETE, GET, HEAD, OPTIONS, PUT"),
            (path_of() + "/history", "GET, HEAD, OPTIONS"),
            (MAPS, "GET, HEAD, OPTIONS"),
            (f"{MAPS}/blue", "DELETE, GET, HEAD, OPTIONS, PUT"),
            (HOSTS, "GET, HEAD, OPTIONS"),
            (f"{HOSTS}/compute-1", "GET, HEAD, OPTIONS"),
        ],
    )
    def test_methods_that_a_path_does_not_have(self, api, path, allowed):
        for method in ("POST", "PATCH", "TRACE", "CONNECT"):
            answer = api.request(method, path)
            refused(answer, 405, "method_not_allowed")
            assert ", ".join(sorted(answer.headers["Allow"].split(", "))) == allowed
        options = api.request("OPTIONS", path)
        assert (options.status, options.data) == (200, b"")

    def test_an_unknown_method_is_refused(self, api):
        refused(api.request("FROB", ALLOCATIONS), 400, "request_invalid")

    @pytest.mark.parametrize(
        "path",
        ["/nowhere", "/v2", "/v1/allocation", f"{path_of()}/x", "/v1//hosts", "/healthchecks"],
    )
    def test_unknown_paths_are_refused(self, api, path):
        assert "/openapi.json" in refused(api.request("GET", path), 404, "path_unknown")


class TestAllocation:
    def test_an_allocation_is_created_shown_replaced_and_released(self, api):
        requested = {**PIN, "vcpu_quota": {"quota_us": 10000, "period_us": 100000}}
        made = api.put(path_of(), {"allocation": requested}, 201)
        assert MOMENT.fullmatch(made["created_at"])
        assert made == {
            "instance_uuid": instance(),
            "generation": 1,
            "project_id": None,
            "host": None,
            "map": None,
            "allocation": requested,
            "status": "pending",
            "reason": "",
            "message": "",
            "source": None,
            "window": None,
            "next_change": None,
            "last_drift": "",
            "last_drift_at": None,
            "unobserved": None,
            "reported_by": None,
            "reported_at": None,
            "report_age_s": None,
            "host_state": "unknown",
            "created_at": made["created_at"],
            "updated_at": made["created_at"],
        }
        assert api.get(path_of()) == made
        replaced = api.put(path_of(), {"allocation": PIN}, 200)
        assert (replaced["generation"], replaced["allocation"]) == (2, PIN)
        assert api.conductor.hints == [[instance()]] * 2
        assert api.request("DELETE", path_of()).status == 204
        refused(api.request("GET", path_of()), 404, "allocation_unknown")

    def test_the_report_of_the_host_is_shown(self, api):
        put(api)
        place(api, "compute-1", 1)
        see(api, "compute-1")
        report_all(
            api, "compute-1", report(instance(), status="drifted", reason="repinned", drift="2")
        )
        shown = api.get(path_of())
        assert (shown["project_id"], shown["host"]) == (PROJECT, "compute-1")
        assert (shown["status"], shown["reason"], shown["source"]) == (
            "drifted",
            "repinned",
            "api",
        )
        assert (shown["last_drift"], shown["last_drift_at"]) == ("2", "1970-01-01T00:00:09.000Z")
        assert (shown["reported_by"], shown["host_state"]) == ("compute-1", "up")
        assert 0 <= shown["report_age_s"] < 60

    def test_a_host_without_heartbeats_is_unresponsive(self, api):
        put(api)
        place(api, "compute-1", 1)
        see(api, "compute-1", ago=31, interval_s=10)
        assert api.get(path_of())["host_state"] == "unresponsive"

    def test_the_outcome_of_an_older_generation_does_not_count(self, api):
        put(api)
        report_all(
            api,
            "compute-1",
            report(instance(), status="failed", reason="step_failed", message="x"),
        )
        assert api.get(path_of())["reason"] == "step_failed"
        put(api, cpus="2")
        shown = api.get(path_of())
        assert [shown[name] for name in ("status", "reason", "message")] == ["pending", "", ""]

    def test_a_window_is_shown_with_the_one_in_force_and_its_next_transition(self, api):
        always = {**NIGHT, "name": "always", "start": "* * * * *"}
        shown = api.put(path_of(), {"allocation": {"windows": [always]}})
        assert (shown["window"], shown["next_change"]) == ("always", None)
        shown = api.put(path_of(), {"allocation": {"windows": [NIGHT]}})
        assert re.fullmatch(r"\S+T2[23]:00:00\.000Z", shown["next_change"])
        assert shown["allocation"] == {"windows": [{**NIGHT, "timezone": "UTC"}]}

    def test_a_list_does_not_name_the_window_in_force(self, api):
        api.put(path_of(), {"allocation": {"windows": [NIGHT]}}, 201)
        shown = api.get(path_of())
        (row,) = api.get("/v1/allocations")["allocations"]
        assert shown.keys() - row.keys() == {"window", "next_change"}
        assert {name: shown[name] for name in row} == row

    def test_a_zone_that_is_updated_counts_at_once(self, api, tmp_path, monkeypatch):
        monkeypatch.setattr(timezones, "_zones", {})
        monkeypatch.setattr(zoneinfo, "TZPATH", (str(tmp_path), *zoneinfo.TZPATH))
        rules = resources.files("tzdata").joinpath("zoneinfo")
        (tmp_path / "Test").write_bytes(rules.joinpath("UTC").read_bytes())
        api.put(path_of(), {"allocation": {"windows": [{**NIGHT, "timezone": "Test"}]}}, 201)
        before = api.get(path_of())["next_change"]
        (tmp_path / "Test").write_bytes(rules.joinpath("Asia/Kolkata").read_bytes())
        after = api.get(path_of())["next_change"]
        # Half an hour is left of five and a half.
        assert (before[14:16], after[14:16]) == ("00", "30")

    def test_a_repeated_request_has_no_effect_and_sends_no_hint(self, api):
        made = put(api, cpus="1-3")
        again = put(api, cpus="3,1,2", generation=1)
        assert again == made
        assert api.conductor.hints == [[instance()]]
        assert len(api.get(f"{path_of()}/history")["history"]) == 1

    def test_generations(self, api):
        put(api, generation=0)
        detail = refused(
            api.request("PUT", path_of(), {"allocation": PIN, "generation": 0}),
            409,
            "generation_conflict",
        )
        assert instance() in detail
        assert put(api, cpus="2", generation=1)["generation"] == 2
        stale = {"allocation": {"vcpu_pinning": "3"}, "generation": 1}
        refused(api.request("PUT", path_of(), stale), 409, "generation_conflict")
        refused(api.request("DELETE", f"{path_of()}?generation=1"), 409, "generation_conflict")
        assert put(api, cpus="3", generation=None)["generation"] == 3
        assert api.request("DELETE", f"{path_of()}?generation=3").status == 204
        refused(
            api.request("PUT", path_of(), {"allocation": PIN, "generation": 3}),
            409,
            "generation_conflict",
        )
        assert len(api.conductor.hints) == 3

    def test_an_allocation_on_a_host_is_released_by_that_host_first(self, api):
        put(api)
        place(api, "compute-1", 1)
        left = api.request("DELETE", path_of())
        assert left.status == 202
        assert (left.body["status"], left.body["allocation"]) == ("releasing", None)
        assert left.body["generation"] == 2
        assert api.conductor.hints[1:] == [[instance()]]
        assert api.get(path_of())["status"] == "releasing"
        assert api.request("DELETE", path_of()).body["generation"] == 2
        report_all(api, "compute-1", report(instance(), 2, "released"))
        refused(api.request("GET", path_of()), 404, "allocation_unknown")

    def test_a_missing_allocation_is_not_found(self, api):
        for method, path in (
            ("GET", path_of()),
            ("DELETE", path_of()),
            ("GET", f"{path_of()}/history"),
        ):
            refused(api.request(method, path), 404, "allocation_unknown")
        assert api.conductor.hints == []

    @pytest.mark.parametrize(
        "wrong",
        ["1", instance().upper(), instance()[:-1], instance() + "0", "%00", "%ff", "%0a", "%20"],
    )
    def test_invalid_ids_are_refused(self, api, wrong):
        for method in ("GET", "PUT", "DELETE"):
            answer = api.request(method, f"{ALLOCATIONS}/{wrong}", {"allocation": PIN})
            assert "instance_uuid" in refused(answer, 400, "request_invalid")
        answer = api.request("GET", f"{ALLOCATIONS}/{wrong}/history")
        refused(answer, 400, "request_invalid")

    def test_a_client_can_not_set_project_or_host(self, api):
        for name in ("project_id", "host", "map"):
            answer = api.request("PUT", path_of(), {"allocation": PIN, name: "x"})
            assert name in refused(answer, 400, "request_invalid")


class TestDryRun:
    BODY = {"allocation": PIN}  # noqa: RUF012

    def test_a_plan_is_handed_on(self, api):
        api.conductor.answer = {
            "host": "compute-1",
            "outcome": "planned",
            "reason": "",
            "message": "",
            "warnings": ["shared"],
            "steps": [{"target": "vCPU 0", "from": "0-7", "to": "1", "grant": ""}],
        }
        answer = api.request("PUT", f"{path_of()}?dry_run=true", self.BODY)
        assert answer.status == 200
        assert answer.body == {"instance_uuid": instance(), **api.conductor.answer}
        ((instance_uuid, allocation),) = api.conductor.planned
        assert (instance_uuid, allocation.to_json()) == (instance(), PIN)
        assert api.conductor.hints == []
        assert api.get(ALLOCATIONS)["allocations"] == []

    @pytest.mark.parametrize("outcome", ["refused", "failed", "absent"])
    def test_a_refusal_by_the_host_is_a_normal_answer(self, api, outcome):
        api.conductor.answer = {"outcome": outcome, "host": None}
        answer = api.request("PUT", f"{path_of()}?dry_run=true", self.BODY)
        assert (answer.status, answer.body["outcome"]) == (200, outcome)

    @pytest.mark.parametrize(
        "unavailable", [exception.HostUnresponsive, exception.ConductorUnresponsive]
    )
    def test_an_unavailable_host_is_an_error(self, api, unavailable):
        api.conductor.answer = unavailable("no response")
        answer = api.request("PUT", f"{path_of()}?dry_run=true", self.BODY)
        assert refused(answer, 503, unavailable.reason) == "no response"

    def test_a_missing_conductor_is_an_error(self, tmp_path, monkeypatch):
        monkeypatch.setattr("kongming.rpc.client._MARGIN_S", -0.9)
        options = "[conductor]\nhost_timeout = 1\n[DEFAULT]\ntransport_url = fake:///nobody\n"
        api = Api(tmp_path, options, real_conductor=True)
        answer = api.request("PUT", f"{path_of()}?dry_run=true", self.BODY)
        assert "transport_url" in refused(answer, 503, "conductor_unresponsive")
        # The request is kept all the same.
        assert put(api)["status"] == "pending"

    def test_waiting_requests_on_almost_all_threads_do_not_block_others(self, api, monkeypatch):
        conductor = SlowConductor()
        monkeypatch.setattr(api.conductor, "plan", conductor.plan)

        def plan():
            return api.request("PUT", f"{path_of()}?dry_run=true", {"allocation": PIN})

        with ThreadPoolExecutor(4) as pool:
            plans = [pool.submit(plan) for _ in range(api.conf.api.server_threads - 1)]
            wait_until(lambda: conductor.plans == len(plans), 30, "they wait")
            wait_until(lambda: plan().status == 503, 30, "one more is refused")
            busy = plan()
            assert "retry" in refused(busy, 503, "busy")
            assert busy.headers["Retry-After"] == "1"
            assert api.request("GET", ALLOCATIONS).status == 200
            assert api.request("GET", "/healthcheck").status == 200
            assert not any(each.done() for each in plans)
            conductor.answer.set()
            assert {each.result(30).body["outcome"] for each in plans} == {"planned"}
        assert plan().status == 200

    def test_a_dry_run_is_requested_with_a_valid_value_only(self, api):
        assert api.request("PUT", f"{path_of()}?dry_run=false", self.BODY).status == 201
        for wrong in ("", "1", "True", "yes"):
            answer = api.request("PUT", f"{path_of()}?dry_run={wrong}", self.BODY)
            assert "true or false" in refused(answer, 400, "request_invalid")

    def test_an_invalid_allocation_is_refused_without_the_host(self, api):
        for body in ({"allocation": {}}, {"allocation": {"vcpu_pinning": "x"}}):
            answer = api.request("PUT", f"{path_of()}?dry_run=true", body)
            refused(answer, 400, "request_invalid")
        assert api.conductor.planned == []


class TestDryRunOfAMap:
    PATH = f"{MAPS}/blue?dry_run=true"

    def plan(self, api, numbers, headers=None, **more):
        allocations = {instance(number): PIN for number in numbers}
        return api.request("PUT", self.PATH, {"allocations": allocations, **more}, headers=headers)

    def put_map(self, api, name, *numbers):
        allocations = {instance(number): PIN for number in numbers}
        api.put(f"{MAPS}/{name}", {"allocations": allocations})

    def test_each_instance_has_an_outcome_and_nothing_is_stored(self, api):
        self.put_map(api, "blue", 1, 2)
        before = api.get(f"{MAPS}/blue")
        api.conductor.hints.clear()
        planned = {
            "host": "compute-1",
            "outcome": "planned",
            "reason": "",
            "message": "",
            "warnings": [],
            "steps": [{"target": "vCPU 0", "from": "0-7", "to": "1", "grant": ""}],
        }
        unresponsive = {"outcome": "unresponsive", "reason": "host_unresponsive", "steps": []}
        unresponsive = planned | unresponsive
        api.conductor.answer = planned | {instance(3): unresponsive}
        answer = self.plan(api, [3, 1])
        assert answer.status == 200
        assert [*map(itemgetter(0), api.conductor.planned)] == [*map(instance, (3, 1, 2))]
        # Two is not in it any more.
        assert api.conductor.planned[2][1] is None
        assert (answer.body["name"], list(answer.body)) == ("blue", ["name", "counts", "plans"])
        assert answer.body["counts"] == {"unresponsive": 1, "planned": 2}
        assert answer.body["plans"][0] == {"instance_uuid": instance(3), **unresponsive}
        assert api.get(f"{MAPS}/blue") == before
        assert api.conductor.hints == []

    def test_a_map_that_would_be_refused_is_not_planned(self, api):
        self.put_map(api, "red", 5)
        refused(self.plan(api, [5]), 409, "map_conflict")
        refused(self.plan(api, [1], generation=1), 409, "generation_conflict")
        self.put_map(api, "blue", 1)
        refused(self.plan(api, [1], {"If-None-Match": "*"}), 412, "generation_conflict")
        refused(self.plan(api, [1], generation=7), 409, "generation_conflict")
        refused(self.plan(api, [1], later=7), 400, "request_invalid")
        assert api.conductor.planned == []
        api.conductor.answer = {"outcome": "planned"}
        assert self.plan(api, [1], generation=1).status == 200
        # An instance that its map is releasing may join another map.
        api.request("DELETE", f"{MAPS}/red")
        assert self.plan(api, [1, 5]).status == 200

    def test_an_unavailable_conductor_is_an_error(self, api):
        api.conductor.answer = exception.ConductorUnresponsive("none answers")
        assert refused(self.plan(api, [1]), 503, "conductor_unresponsive") == "none answers"


BODIES = {
    "empty": (b"", "not JSON"),
    "no JSON": (b"allocation: 1", "not JSON"),
    "two": (b"{} {}", "not JSON"),
    "not UTF-8": (b'{"allocation": {"vcpu_pinning": "\xff"}}', "not JSON"),
    "NaN": (b'{"allocation": {"cpu_shares": NaN}}', "NaN"),
    "infinite": (b'{"allocation": {"cpu_shares": -Infinity}}', "Infinity"),
    "as large as infinite": (b'{"allocation": {"cpu_shares": 1e999}}', "cpu_shares"),
    "a number of 5000 digits": (b'{"allocation": {"cpu_shares": ' + b"9" * 5000 + b"}}", "JSON"),
    "a number of 4000 digits": (b'{"allocation": {"cpu_shares": ' + b"9" * 4000 + b"}}", "shares"),
    "a fraction": (b'{"allocation": {"cpu_shares": 1024.5}}', "cpu_shares"),
    "deep": (b'{"allocation": ' + b"[" * 20 + b"]" * 20 + b"}", "nested"),
    "bottomless": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested"),
    "twice": (b'{"allocation": {}, "allocation": {}}', "'allocation' twice"),
    "twice inside": (b'{"allocation": {"cpu_shares": 3, "cpu_shares": 3}}', "'cpu_shares' twice"),
    "a list": (b"[]", "not a JSON object"),
    "null": (b"null", "not a JSON object"),
    "without": (b"{}", "lacks the field allocation"),
    "unknown": (b'{"allocation": {"cpu_shares": 3}, "x\\u0000\\ud800": 1}', "unknown field"),
    "unknown inside": (b'{"allocation": {"x": 3}}', "'x'"),
    "nothing requested": (b'{"allocation": {}}', "DELETE"),
    "no allocation": (b'{"allocation": null}', "allocation"),
    "no cpuset": (b'{"allocation": {"vcpu_pinning": "1-"}}', "vcpu_pinning"),
    "NUL": (b'{"allocation": {"vcpu_pinning": "\\u0000"}}', "vcpu_pinning"),
    "a surrogate": (b'{"allocation": {"numa_nodes": "\\ud800"}}', "numa_nodes"),
    "a window with NUL": (
        json.dumps({"allocation": {"windows": [{**NIGHT, "name": "a\0b"}]}}).encode(),
        "window",
    ),
    "a window on 30 February": (
        json.dumps({"allocation": {"windows": [{**NIGHT, "start": "0 0 30 2 *"}]}}).encode(),
        "never occurs",
    ),
    "a time zone elsewhere": (
        json.dumps({"allocation": {"windows": [{**NIGHT, "timezone": "../passwd"}]}}).encode(),
        "time zone",
    ),
    "generation -1": (b'{"allocation": {"cpu_shares": 3}, "generation": -1}', "generation"),
    "generation true": (b'{"allocation": {"cpu_shares": 3}, "generation": true}', "generation"),
    "generation 2^31": (
        b'{"allocation": {"cpu_shares": 3}, "generation": 2147483648}',
        "generation",
    ),
    "generation as text": (b'{"allocation": {"cpu_shares": 3}, "generation": "1"}', "generation"),
}


class TestBody:
    @pytest.mark.parametrize(("data", "message"), BODIES.values(), ids=BODIES)
    def test_an_invalid_body_is_refused(self, api, data, message):
        assert message in refused(api.request("PUT", path_of(), data=data), 400, "request_invalid")
        assert api.get(ALLOCATIONS)["allocations"] == []
        assert api.conductor.hints == []

    def test_whole_numbers_may_be_written_as_fractions(self, api):
        data = (
            b'{"allocation": {"cpu_shares": 1.024e3,'
            b' "vcpu_quota": {"quota_us": 5000.0, "period_us": 1e5}}, "generation": 0.0}'
        )
        answer = api.request("PUT", path_of(), data=data)
        assert answer.status == 201
        assert b'"quota_us": 5000, "period_us": 100000' in answer.data
        assert answer.body["allocation"]["cpu_shares"] == 1024

    @pytest.mark.parametrize(
        "kind", ["", "text/plain", "application/xml", "application/json-patch"]
    )
    def test_a_body_without_the_media_type_of_json_is_refused(self, api, kind):
        answer = api.request("PUT", path_of(), {"allocation": PIN}, headers={"Content-Type": kind})
        refused(answer, 415, "content_type_unsupported")

    @pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON"])
    def test_spellings_of_the_media_type_are_accepted(self, api, kind):
        answer = api.request("PUT", path_of(), {"allocation": PIN}, headers={"Content-Type": kind})
        assert answer.status == 201

    def test_a_body_that_is_too_long_is_not_read(self, tmp_path):
        api = Api(tmp_path, "max_body_size = 1024\n")
        data = json.dumps({"allocation": PIN}).encode()
        fitting, longer = data.ljust(1024), data.ljust(1025)
        assert api.request("PUT", path_of(), data=fitting).status == 201
        detail = refused(api.request("PUT", path_of(), data=longer), 413, "body_too_large")
        assert "1024 bytes" in detail
        # It does not declare its length.
        chunked = {**CHUNKED, "wsgi.input_terminated": True}
        assert api.request("PUT", path_of(), data=fitting, environ=chunked).status == 200
        answer = api.request("PUT", path_of(), data=longer, environ=chunked)
        refused(answer, 413, "body_too_large")

    def test_a_client_that_still_sends_learns_that_its_body_is_too_long(self, tmp_path):
        api = Api(tmp_path, "max_body_size = 1024\n")
        for length, read in ((3000, 3000), (10**9, 4096)):
            stream = io.BytesIO(bytes(5000))
            environ = {"wsgi.input": stream, "CONTENT_LENGTH": str(length)}
            answer = api.request("PUT", path_of(), data=b"x", environ=environ)
            refused(answer, 413, "body_too_large")
            assert stream.tell() == read

    def test_chunks_that_the_server_does_not_read(self, api):
        # uWSGI hands such a body over as an empty one.
        answer = api.request("PUT", path_of(), data=b"", environ=CHUNKED)
        assert "Content-Length" in refused(answer, 411, "length_required")

    @pytest.mark.parametrize("length", ["-1", "x", "1.5"])
    def test_invalid_lengths_are_refused(self, api, length):
        answer = api.request("PUT", path_of(), data=b"{}", environ={"CONTENT_LENGTH": length})
        refused(answer, 400, "request_invalid")


class TestList:
    def test_pages_are_followed_to_the_end(self, tmp_path):
        api = Api(tmp_path, "max_limit = 4\n")
        for number in range(1, 11):
            put(api, number)
        place(api, "compute-1", *range(1, 10))
        sizes, found = [], []
        path = f"{ALLOCATIONS}?host=compute-1&status=pending&limit=1000"
        while path:
            answer = api.get(path)
            sizes.append(len(answer["allocations"]))
            found += [each["instance_uuid"] for each in answer["allocations"]]
            path = next((link["href"] for link in answer["links"]), None)
            if path:
                query = dict(parse_qsl(urlsplit(path).query))
                assert query == {
                    "host": "compute-1",
                    "status": "pending",
                    "limit": "1000",
                    "marker": found[-1],
                }
                assert path.startswith(f"http://localhost:80{ALLOCATIONS}?")
        assert sizes == [4, 4, 1]
        assert found == [instance(number) for number in range(1, 10)]

    def test_a_page_that_ends_with_the_last_has_no_link(self, api):
        for number in (1, 2):
            put(api, number)
        assert api.get(f"{ALLOCATIONS}?limit=2")["links"] == []
        assert len(api.get(f"{ALLOCATIONS}?limit=1")["links"]) == 1

    def test_links_are_as_the_client_calls_the_service(self, api):
        for number in (1, 2):
            put(api, number)
        answer = api.request(
            "GET",
            f"{ALLOCATIONS}/?limit=1",
            headers={"Host": "[::1]:9630"},
            environ={"SCRIPT_NAME": "/placing", "wsgi.url_scheme": "https"},
        )
        assert answer.body["links"] == [
            {
                "rel": "next",
                "href": f"https://[::1]:9630/placing{ALLOCATIONS}?limit=1&marker={instance(1)}",
            }
        ]

    def test_filters(self, api):
        for number in range(1, 5):
            put(api, number)
        api.put(f"{MAPS}/blue", {"allocations": {instance(5): PIN}})
        place(api, "compute-1", 1, 2)
        place(api, "compute-2", 3, project_id="other")
        report_all(api, "compute-1", report(instance(1)))

        def found(query):
            listed = api.get(f"{ALLOCATIONS}?{query}")["allocations"]
            return [int(each["instance_uuid"][-2:]) for each in listed]

        assert found("") == [1, 2, 3, 4, 5]
        assert found("host=compute-1") == [1, 2]
        assert found(f"project_id={PROJECT}") == [1, 2]
        assert found("project_id=other&host=compute-2") == [3]
        assert found("project_id=nobody") == []
        assert found("status=applied") == [1]
        assert found("status=pending&host=compute-1") == [2]
        assert found("map=blue") == [5]
        assert found(f"marker={instance(3)}") == [4, 5]
        assert found(f"marker={instance(9)}") == []

    @pytest.mark.parametrize(
        "query",
        [
            *("limit=0", "limit=-1", "limit=x", "limit=", "limit", "limit=1.0", "limit=%201"),
            *(
                "limit=9223372036854775808",
                "limit=" + "9" * 5000,
                "limit=1&limit=2",
                "limit=%d9%a1",
            ),
            *(
                "marker=x",
                "marker=",
                "status=gone",
                "status=",
                "status=%ff",
                "host=a%00b",
                "host=",
            ),
            *("host=%0a", "host=a%0a", "project_id=%00", "project_id=" + "a" * 65, "map=-", "x=1"),
            *("=1", "%ff=1", "Limit=1", "generation=1", "dry_run=true"),
        ],
    )
    def test_invalid_queries_are_refused(self, api, query):
        refused(api.request("GET", f"{ALLOCATIONS}?{query}"), 400, "request_invalid")

    @pytest.mark.parametrize("path", [path_of(), MAPS + "/blue", HOSTS + "/compute-1", HOSTS])
    def test_parameters_that_a_path_does_not_have(self, api, path):
        detail = refused(api.request("GET", f"{path}?status=applied"), 400, "request_invalid")
        assert "unknown parameter 'status'" in detail


class TestHistory:
    def test_all_requests_are_listed_page_by_page(self, api):
        for cpus in range(5):
            put(api, cpus=str(cpus))
        report_all(api, "compute-1", report(instance(), 5, message="shared", changed_at=20.5))
        path, found = f"{path_of()}/history?limit=2", []
        while path:
            answer = api.get(path)
            found += answer["history"]
            path = next((link["href"] for link in answer["links"]), None)
        assert [each["generation"] for each in found] == [1, 2, 3, 4, 5]
        assert [each["status"] for each in found] == ["pending"] * 4 + ["applied"]
        assert MOMENT.fullmatch(found[-1].pop("requested_at"))
        assert REQUEST_ID.fullmatch(found[-1].pop("request_id"))
        del found[-1]["id"]
        assert found[-1] == {
            "generation": 5,
            "allocation": {"vcpu_pinning": "4"},
            "map": None,
            "requested_by": "noauth",
            "status": "applied",
            "reason": "",
            "message": "shared",
            "host": "compute-1",
            "changed_at": "1970-01-01T00:00:20.500Z",
        }

    def test_the_history_names_the_request(self, api):
        answer = api.request("PUT", path_of(), {"allocation": PIN})
        (entry,) = api.get(f"{path_of()}/history")["history"]
        assert entry["request_id"] == answer.headers["x-openstack-request-id"]

    def test_the_history_survives_the_instance(self, api):
        put(api)
        api.allocations.forget([instance()], time.time())
        entries = api.get(f"{path_of()}/history")["history"]
        assert [(each["status"], each["allocation"]) for each in entries][1:] == [("gone", None)]

    def test_the_page_after_the_last_is_empty(self, api):
        put(api)
        last = 2**63 - 1
        assert api.get(f"{path_of()}/history?marker={last}&limit={last}")["history"] == []
        for wrong in ("marker=-1", "marker=x", f"marker={last + 1}"):
            answer = api.request("GET", f"{path_of()}/history?{wrong}")
            refused(answer, 400, "request_invalid")


class TestMap:
    def test_a_map_is_created_replaced_and_shown(self, api):
        blue = {instance(1): PIN, instance(2): {"cpu_shares": 7}}
        made = api.put(f"{MAPS}/blue", {"allocations": blue}, 201)
        assert MOMENT.fullmatch(made["created_at"])
        assert made == {
            "name": "blue",
            "generation": 1,
            "deleting": False,
            "instances": 2,
            "created_at": made["created_at"],
            "updated_at": made["created_at"],
        }
        assert [sorted(each) for each in api.conductor.hints] == [[instance(1), instance(2)]]
        assert api.put(f"{MAPS}/blue", {"allocations": blue}, 200) == made
        assert len(api.conductor.hints) == 1
        place(api, "compute-1", 1, 2)
        report_all(api, "compute-1", report(instance(2)))
        dropped = api.put(
            f"{MAPS}/blue", {"allocations": {instance(2): blue[instance(2)]}, "generation": 1}, 200
        )
        assert dropped["generation"] == 2
        assert api.conductor.hints[1:] == [[instance(1)]]
        shown = api.get(f"{MAPS}/blue")
        assert shown["counts"] == {"applied": 1}
        (left,) = shown["allocations"]
        assert (left["instance_uuid"], left["generation"]) == (instance(2), 1)
        alone = api.get(path_of(2)) | {"report_age_s": left["report_age_s"]}
        assert alone == left | {"window": None, "next_change": None}
        assert api.get(path_of(1))["status"] == "releasing"
        assert [each["name"] for each in api.get(MAPS)["allocation_maps"]] == ["blue"]

    def test_single_allocations_are_adopted(self, api):
        put(api)
        api.put(f"{MAPS}/blue", {"allocations": {instance(): PIN}})
        shown = api.get(path_of())
        assert (shown["map"], shown["generation"]) == ("blue", 1)

    def test_generations(self, api):
        body = {"allocations": {instance(): PIN}}
        api.put(f"{MAPS}/blue", {**body, "generation": 0}, 201)
        for generation in (0, 2):
            answer = api.request("PUT", f"{MAPS}/blue", {**body, "generation": generation})
            assert "blue" in refused(answer, 409, "generation_conflict")
        # Whoever changes one of it changes it, too.
        put(api, cpus="3")
        assert api.get(f"{MAPS}/blue")["generation"] == 2
        answer = api.request("DELETE", f"{MAPS}/blue?generation=1")
        refused(answer, 409, "generation_conflict")
        assert api.request("DELETE", f"{MAPS}/blue?generation=2").status == 204
        refused(api.request("GET", f"{MAPS}/blue"), 404, "map_unknown")
        refused(api.request("GET", path_of()), 404, "allocation_unknown")

    def test_an_instance_is_in_one_map(self, api):
        api.put(f"{MAPS}/blue", {"allocations": {instance(1): PIN}})
        both = {"allocations": {instance(1): PIN, instance(2): PIN}}
        detail = refused(api.request("PUT", f"{MAPS}/green", both), 409, "map_conflict")
        assert all(word in detail for word in ("blue", "green", instance(1)))
        refused(api.request("GET", f"{MAPS}/green"), 404, "map_unknown")
        refused(api.request("GET", path_of(2)), 404, "allocation_unknown")
        assert len(api.conductor.hints) == 1

    def test_a_map_stays_until_its_last_allocation_is_released(self, api):
        api.put(f"{MAPS}/blue", {"allocations": {instance(1): PIN, instance(2): PIN}})
        place(api, "compute-1", 1)
        gone = api.request("DELETE", f"{MAPS}/blue")
        assert (gone.status, gone.body["deleting"], gone.body["instances"]) == (202, True, 1)
        assert sorted(api.conductor.hints[-1]) == [instance(1), instance(2)]
        assert api.get(f"{MAPS}/blue")["counts"] == {"releasing": 1}
        assert api.request("DELETE", f"{MAPS}/blue").status == 202
        assert len(api.conductor.hints) == 2
        report_all(api, "compute-1", report(instance(1), 2, "released"))
        refused(api.request("GET", f"{MAPS}/blue"), 404, "map_unknown")
        refused(api.request("DELETE", f"{MAPS}/blue"), 404, "map_unknown")

    def test_too_many(self, tmp_path):
        api = Api(tmp_path, "max_map_instances = 2\n")
        found = {instance(number): PIN for number in range(3)}
        answer = api.request("PUT", f"{MAPS}/blue", {"allocations": found})
        assert "max_map_instances" in refused(answer, 400, "request_invalid")
        found.popitem()
        api.put(f"{MAPS}/blue", {"allocations": found}, 201)

    def test_an_empty_map_is_accepted(self, api):
        assert api.put(f"{MAPS}/blue", {"allocations": {}}, 201)["instances"] == 0
        assert api.get(f"{MAPS}/blue")["counts"] == {}
        assert api.conductor.hints == []
        assert api.request("DELETE", f"{MAPS}/blue").status == 204

    def test_pages(self, api):
        for name in "abcde":
            api.put(f"{MAPS}/{name}", {"allocations": {}})
        path, found = f"{MAPS}?limit=2", []
        while path:
            answer = api.get(path)
            found += [each["name"] for each in answer["allocation_maps"]]
            path = next((link["href"] for link in answer["links"]), None)
        assert found == list("abcde")

    @pytest.mark.parametrize(
        "name", ["-", ".x", "a b", "a%00", "a%0a", "a%2fb", "%c3%a9", "%ff", "a" * 256]
    )
    def test_invalid_names_of_maps_are_refused(self, api, name):
        for method in ("GET", "PUT", "DELETE"):
            answer = api.request(method, f"{MAPS}/{name}", {"allocations": {}})
            if "%2f" in name:
                refused(answer, 404, "path_unknown")
            else:
                assert "name" in refused(answer, 400, "request_invalid")

    def test_valid_names_of_maps_are_accepted(self, api):
        for name in ("a", "a" * 255, "0", "vEPC_blue-1.2"):
            assert api.put(f"{MAPS}/{name}", {"allocations": {}}, 201)["name"] == name

    @pytest.mark.parametrize(
        ("allocations", "message"),
        [
            ([], "not an object"),
            (None, "not an object"),
            ({"x": PIN}, "allocations: instance_uuid 'x'"),
            ({instance().upper(): PIN}, "instance_uuid"),
            ({"\0": PIN}, "instance_uuid"),
            ({"\ud800": PIN}, "instance_uuid"),
            ({instance(): {}}, f"allocations.{instance()}: the allocation is empty"),
            ({instance(): {"cpu_shares": 0}}, f"allocations.{instance()}: cpu_shares"),
        ],
    )
    def test_an_invalid_map_is_refused(self, api, allocations, message):
        answer = api.request("PUT", f"{MAPS}/blue", {"allocations": allocations})
        assert message in refused(answer, 400, "request_invalid")
        refused(api.request("GET", f"{MAPS}/blue"), 404, "map_unknown")

    def test_a_reader_may_wait_for_the_outcome(self, api):
        api.put(f"{MAPS}/blue", {"allocations": {instance(1): PIN}})
        place(api, "compute-1", 1)
        with ThreadPoolExecutor() as readers:
            waiting = [
                readers.submit(api.get, f"{path}?wait_s=30")
                for path in (f"{MAPS}/blue", path_of(1))
            ]
            report_all(api, "compute-1", report(instance(1), 1, "applied"))
            of_map, of_instance = (each.result() for each in waiting)
        assert of_map["counts"] == {"applied": 1}
        assert of_instance["status"] == "applied"
        # What is settled, or is not there, is answered at once; a short wait ends.
        assert api.get(f"{MAPS}/blue?wait_s=30")["counts"] == {"applied": 1}
        refused(api.request("GET", f"{MAPS}/green?wait_s=30"), 404, "map_unknown")
        api.put(f"{MAPS}/blue", {"allocations": {instance(1): {"vcpu_pinning": "7"}}})
        assert api.get(f"{MAPS}/blue?wait_s=1")["counts"] == {"pending": 1}
        refused(api.request("GET", f"{MAPS}/blue?wait_s=31"), 400, "request_invalid")

    def test_all_problems_of_a_map_are_named(self, api):
        requested = {"x": PIN, instance(1): {}, instance(2): {"cpu_shares": 0, "numa_nodes": "y"}}
        body = {"allocations": requested, "generation": -1}
        answer = api.request("PUT", f"{MAPS}/blue", body)
        assert answer.status == 400
        assert {each["code"] for each in answer.body["errors"]} == {"request_invalid"}
        details = [each["detail"] for each in answer.body["errors"]]
        assert len(details) == 5
        for detail, expected in zip(
            details,
            (
                "generation is not",
                "instance_uuid 'x'",
                f"allocations.{instance(1)}: the allocation is empty",
                f"allocations.{instance(2)}: cpu_shares",
                f"allocations.{instance(2)}: numa_nodes",
            ),
            strict=True,
        ):
            assert expected in detail
        requested = {instance(number): {} for number in range(100)}
        answer = api.request("PUT", f"{MAPS}/blue", {"allocations": requested})
        assert len(answer.body["errors"]) == PROBLEMS_MAX

    def test_an_instance_that_is_named_twice(self, api):
        entry = f'"{instance()}": {{"cpu_shares": 3}}'
        data = f'{{"allocations": {{{entry}, {entry}}}}}'.encode()
        answer = api.request("PUT", f"{MAPS}/blue", data=data)
        assert "twice" in refused(answer, 400, "request_invalid")


VIEW = {"cells": [], "unassigned_cpus": "", "guests": [{}, {}], "rules": {}, "violations": [{}]}


class TestHosts:
    def test_a_host_is_shown(self, api):
        see(api, "compute-1", ago=5, view=VIEW)
        shown = api.get(f"{HOSTS}/compute-1")
        assert 5 <= shown["heartbeat_age_s"] < 65
        assert (shown["state"], shown["version"]) == ("up", "1.2.3")
        assert (shown["guests"], shown["violations"], shown["snapshot"]) == (2, 1, VIEW)
        for name in ("heartbeat_at", "started_at", "snapshot_at"):
            assert MOMENT.fullmatch(shown[name])
        (listed,) = api.get(HOSTS)["hosts"]
        assert listed == {
            name: value for name, value in shown.items() if name not in ("snapshot", "snapshot_at")
        } | {"heartbeat_age_s": listed["heartbeat_age_s"]}

    def test_a_host_without_a_snapshot_that_is_unresponsive_is_shown(self, api):
        see(api, "compute-1", ago=3600)
        shown = api.get(f"{HOSTS}/compute-1")
        assert (shown["state"], shown["snapshot"], shown["snapshot_at"]) == (
            "unresponsive",
            None,
            None,
        )

    def test_pages(self, api):
        names = [f"compute-{number}.example" for number in range(5)]
        for name in names:
            see(api, name)
        path, found = f"{HOSTS}?limit=2", []
        while path:
            answer = api.get(path)
            found += [each["name"] for each in answer["hosts"]]
            path = next((link["href"] for link in answer["links"]), None)
        assert found == names

    def test_a_host_with_any_name_that_nova_accepts_is_found(self, api):
        for number, name in enumerate(TAKEN):
            see(api, name, view=VIEW)
            put(api, number)
            place(api, name, number)
        assert sorted(each["name"] for each in api.get(HOSTS)["hosts"]) == sorted(TAKEN)
        for number, name in enumerate(TAKEN):
            assert api.get(f"{HOSTS}/{quote(name, safe='')}")["name"] == name
            found = api.get(f"{ALLOCATIONS}?{urlencode({'host': name})}")["allocations"]
            assert [each["instance_uuid"] for each in found] == [instance(number)]

    def test_an_unknown_host_is_not_found(self, api):
        answer = api.request("GET", f"{HOSTS}/compute-9")
        assert "compute-9" in refused(answer, 404, "host_unknown")

    @pytest.mark.parametrize("name", ["a%00b", "%ff", "-", "a" * 256])
    def test_invalid_names_of_hosts_are_refused(self, api, name):
        refused(api.request("GET", f"{HOSTS}/{name}"), 400, "request_invalid")


class TestNoAuth:
    @pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
    def test_this_machine_is_answered(self, api, address):
        api.address = address
        api.get(ALLOCATIONS)

    @pytest.mark.parametrize(
        "address", ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1", "", "unix:", "0.0.0.0", "::"]
    )
    def test_other_clients_are_refused(self, api, address):
        api.address = address
        for method, path in (
            ("GET", ALLOCATIONS),
            ("HEAD", ALLOCATIONS),
            ("GET", HOSTS),
            ("GET", MAPS),
            ("PUT", path_of()),
            ("DELETE", f"{MAPS}/blue"),
        ):
            answer = api.request(method, path, {"allocation": PIN})
            if method == "HEAD":
                assert answer.status == 403
            else:
                assert "auth_strategy" in refused(answer, 403, "not_local")
        api.address = "127.0.0.1"
        assert api.get(ALLOCATIONS)["allocations"] == []

    @pytest.mark.parametrize(
        "header",
        [
            "X-Forwarded-For",
            "Forwarded",
            "X-Forwarded-Host",
            "X-Forwarded-Proto",
            "X-Real-IP",
            "Via",
        ],
    )
    def test_a_client_behind_a_proxy_is_refused(self, api, header):
        for value in ("127.0.0.1", "for=127.0.0.1", ""):
            answer = api.request("GET", ALLOCATIONS, headers={header: value})
            refused(answer, 403, "not_local")

    def test_proxies_are_not_believed_even_if_that_is_configured(self, tmp_path):
        api = Api(tmp_path, "[oslo_middleware]\nenable_proxy_headers_parsing = true\n")
        api.address = "192.0.2.1"
        forwarded = {"X-Forwarded-For": "127.0.0.1", "Forwarded": "for=127.0.0.1"}
        refused(api.request("GET", ALLOCATIONS, headers=forwarded), 403, "not_local")

    def test_an_identity_claimed_in_headers_is_ignored(self, api):
        claimed = {"X-User-Id": "mano", "X-Roles": "admin", "X-Identity-Status": "Confirmed"}
        api.request("PUT", path_of(), {"allocation": PIN}, headers=claimed)
        (entry,) = api.get(f"{path_of()}/history")["history"]
        assert entry["requested_by"] == "noauth"


class SlowConductor:
    """A conductor that takes its time."""

    def __init__(self):
        self.plans, self.answer = 0, threading.Event()

    def plan(self, _instance_uuid, _allocation):
        self.plans += 1
        assert self.answer.wait(60 * patience())
        return {"outcome": "planned"}


class TestFaults:
    def test_health(self, api):
        answer = api.request("GET", "/healthcheck")
        assert (answer.status, answer.data) == (200, b"OK")
        assert REQUEST_ID.fullmatch(answer.headers["x-openstack-request-id"])
        api.address = "192.0.2.1"
        assert api.request("GET", "/healthcheck").status == 200

    def test_health_at_another_path(self, tmp_path):
        api = Api(tmp_path, "[healthcheck]\npath = /alive\n")
        answer = api.request("GET", "/alive")
        assert (answer.status, answer.data) == (200, b"OK")
        refused(api.request("GET", "/healthcheck"), 404, "path_unknown")

    def test_without_tables(self, tmp_path):
        api = Api(tmp_path, tables=False)
        answer = api.request("GET", "/healthcheck")
        assert (answer.status, answer.data) == (503, b"database_unavailable")
        assert "kongming-manage db sync" in refused(
            api.request("GET", ALLOCATIONS), 503, "database_unavailable"
        )

    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("GET", ALLOCATIONS, None),
            ("GET", path_of(), None),
            ("PUT", path_of(), {"allocation": PIN}),
            ("DELETE", path_of(), None),
            ("GET", path_of() + "/history", None),
            ("GET", MAPS, None),
            ("PUT", f"{MAPS}/blue", {"allocations": {}}),
            ("DELETE", f"{MAPS}/blue", None),
            ("GET", HOSTS, None),
            ("GET", f"{HOSTS}/compute-1", None),
        ],
    )
    def test_a_database_that_is_away(self, unavailable, caplog, method, path, body):
        detail = refused(unavailable.request(method, path, body), 503, "database_unavailable")
        assert "s3cret" not in detail + caplog.text
        # The driver's words are for the operator.
        assert "refused" not in detail
        assert "Connection refused" in caplog.text
        assert "check [database] connection" in detail
        assert unavailable.conductor.hints == []

    def test_an_unavailable_database_is_reported_to_load_balancers(self, unavailable):
        answer = unavailable.request("GET", "/healthcheck")
        assert (answer.status, answer.data) == (503, b"database_unavailable")

    @pytest.fixture
    def unavailable(self, tmp_path):
        url = "postgresql+psycopg2://kongming:s3cret@127.0.0.1:1/kongming"
        more = "[database]\nmax_retries = 0\n"
        return Api(tmp_path, more, tables=False, connection=url)

    def test_an_unexpected_error_is_an_internal_server_error(self, api, monkeypatch, caplog):
        def fail(*_, **__):
            raise ZeroDivisionError("a secret")

        monkeypatch.setattr(api.conductor, "changed", fail)
        answer = api.request("PUT", path_of(), {"allocation": PIN})
        detail = refused(answer, 500, "internal_error")
        assert answer.error["request_id"] in detail
        assert "secret" not in detail
        (record,) = [record for record in caplog.records if record.exc_info]
        assert record.exc_info[0] is ZeroDivisionError
        assert answer.error["request_id"] in record.getMessage()
        assert api.request("GET", path_of()).status == 200

    def test_a_refusal_is_not_logged_as_a_fault(self, api, caplog):
        refused(api.request("GET", path_of()), 404, "allocation_unknown")
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


STEPS = (1, 10, 100, 1000)


class TestStatements:
    """How much SQL a request needs does not depend on how much there is."""

    @pytest.fixture
    def count(self, api):
        def count(method, path, body=None):
            before = api.database.statements
            answer = api.request(method, path, body)
            assert answer.status < 300, answer
            return api.database.statements - before

        return count

    def test_of_allocations_and_maps(self, api, count):
        counts = []
        numbers = itertools.count(1)
        for step, size in enumerate(STEPS):
            uuids = [instance(next(numbers)) for _ in range(size)]
            requested = dict.fromkeys(uuids, PIN)
            more = {uuid: {"vcpu_pinning": "2"} for uuid in uuids}
            fewer = {uuid: more[uuid] for uuid in uuids[: size // 2]}
            path = f"{MAPS}/map{step}"
            made = count("PUT", path, {"allocations": requested})
            place_all(api, uuids)
            alone = f"{ALLOCATIONS}/{uuids[-1]}"
            counts.append(
                {
                    "map made": made,
                    "map again": count("PUT", path, {"allocations": requested}),
                    "map changed": count("PUT", path, {"allocations": more}),
                    "map shown": count("GET", path),
                    "maps": count("GET", MAPS),
                    "list": count("GET", f"{ALLOCATIONS}?limit={size}"),
                    "of the map": count("GET", f"{ALLOCATIONS}?map=map{step}&status=pending"),
                    "of a host": count("GET", f"{ALLOCATIONS}?host=compute-{size}"),
                    "get": count("GET", alone),
                    "put": count("PUT", alone, {"allocation": {"cpu_shares": size + 2}}),
                    "history": count("GET", f"{alone}/history"),
                    "delete": count("DELETE", alone),
                    "map dropped": count("PUT", path, {"allocations": fewer or more}),
                    "map deleted": count("DELETE", path),
                }
            )
        assert counts[1:] == counts[:1] * (len(STEPS) - 1)
        assert max(counts[0].values()) <= 20

    def test_of_hosts(self, api, count):
        counts = []
        for size in STEPS:
            record_many(api, [f"compute-{size}-{number}" for number in range(size)])
            counts.append((count("GET", HOSTS), count("GET", f"{HOSTS}/compute-{size}-0")))
        assert counts[1:] == counts[:1] * (len(STEPS) - 1)


def record_many(api, hosts):
    """Record heartbeats of many hosts at once."""
    see(api, "model", view=VIEW)
    with api.database.writer() as session:
        row = session.execute(select(HOST).where(HOST.c.name == "model")).one()._asdict()
        session.execute(insert(HOST), [{**row, "name": host} for host in hosts])
    api.hosts.forget("model")


def place_all(api, uuids):
    """Place each on a host of its own, which has reported."""
    host = f"compute-{len(uuids)}"
    api.allocations.locate({uuid: Location(PROJECT, f"{host}") for uuid in uuids})
    see(api, host)


def test_a_request_is_stored_before_a_hint_is_sent(api, monkeypatch):
    statuses = []
    monkeypatch.setattr(
        api.conductor,
        "changed",
        lambda uuids: statuses.append(api.allocations.get(uuids[0]).status),
    )
    put(api)
    assert statuses == ["pending"]
