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

"""Who may do what, with the tokens of a real Keystone; the API under gunicorn."""

from contextlib import closing
import functools
import json
import os
import subprocess

from openstack import exceptions
import pytest

from kongming.allocation.allocation import Allocation
from kongming.db import migration
from kongming.db.allocations import Allocations
from kongming.db.database import Database
from kongming.db.values import Location
from kongming.tests.api import Api as EmbeddedApi
from kongming.tests.connections import api_at
from kongming.tests.databases import BY, configuration, instance
from kongming.tests.testbed.control_plane import Api
from kongming.tests.testbed.keystone import ADMIN, BIN, DOMAIN, PASSWORD, Keystone
from kongming.tests.testbed.process import free_port, patience
from kongming.tests.thorough import stories

RED, BLUE, UNLOCATED, ABSENT = (instance(number) for number in (1, 2, 3, 4))
BODY = {"allocation": {"vcpu_pinning": "1"}}


@pytest.fixture(scope="module")
def keystone(tmp_path_factory):
    with Keystone(tmp_path_factory.mktemp("keystone")) as keystone:
        yield keystone


@pytest.fixture(scope="module")
def projects(keystone):
    """Projects and their users: reader@red, member@red and so on."""
    made = {name: keystone.project(name) for name in ("red", "blue", "service")}
    for who in ("reader@red", "reader@blue", "member@red", "admin@blue", "service@service"):
        role, _, project = who.partition("@")
        keystone.user(who, made[project], role)
    return made


@pytest.fixture(scope="module")
def connection(tmp_path_factory, projects):
    """A database with an allocation of each project, and one that is nobody's yet."""
    url = f"sqlite:///{tmp_path_factory.mktemp('database')}/kongming.sqlite"
    with closing(Database(configuration(url))) as database:
        migration.sync(database)
        allocations = Allocations(database)
        requested = Allocation(cpu_shares=5)
        for uuid in (RED, BLUE, UNLOCATED):
            allocations.put(uuid, requested, generation=None, **BY)
        found = {RED: projects["red"], BLUE: projects["blue"]}
        allocations.locate({uuid: Location(found[uuid], "compute-1") for uuid in found})
    return url


@pytest.fixture(scope="module")
def options(projects):
    """Return the part of kongming.conf that names a Keystone."""

    def options(identity_url):
        return (
            "[keystone_authtoken]\n"
            f"www_authenticate_uri = {identity_url}\nauth_type = password\n"
            f"auth_url = {identity_url}\nusername = service@service\npassword = {PASSWORD}\n"
            f"user_domain_id = {DOMAIN}\nproject_id = {projects['service']}\n"
            f"http_request_max_retries = 0\nhttp_connect_timeout = {5 * patience():.0f}\n"
        )

    return options


@pytest.fixture(scope="module")
def api(tmp_path_factory, keystone, connection, options):
    root = tmp_path_factory.mktemp("api")
    conf = root / "kongming.conf"
    conf.write_text(
        f"[DEFAULT]\nstate_path = {root}\ntransport_url = fake://\n"
        f"[database]\nconnection = {connection}\n{options(keystone.url)}"
    )
    with Api(root, conf) as api:
        yield api


@pytest.fixture(scope="module")
def token_of(keystone, projects):
    """Return a token of somebody's, the same one again and again."""
    return functools.cache(lambda who: keystone.token(who, projects[who.partition("@")[2]]))


@pytest.fixture
def send(api, token_of):
    """Send a request as somebody; return its status, and the code of an error."""

    def send(who, method, path, body=None, *, token="", service_token=""):
        if who:
            token = token_of(who)
        headers = {"X-Auth-Token": token, "X-Service-Token": service_token}
        answer = api.request(method, path, body, {k: v for k, v in headers.items() if v})
        code = answer.body["errors"][0]["code"] if answer.status >= 400 else ""
        return answer.status, code

    return send


def of(uuid):
    return f"/v1/allocations/{uuid}"


@pytest.mark.parametrize("path", ["/", "/v1", "/openapi.json", "/v1/schemas/allocation"])
def test_the_versions_are_public(send, path):
    assert send("", "GET", path) == (200, "")
    assert send("", "GET", path, token="garbage") == (200, "")


@pytest.mark.parametrize("token", ["", "garbage", "gAAAAA" + 200 * "x", "\xe9"])
@stories("method", ["GET", "PUT", "DELETE"])
def test_without_a_token_no_resource_is_shown(api, keystone, token, method):
    headers = {"X-Auth-Token": token} if token else {}
    answer = api.request(method, of(RED), BODY, headers)
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"] == f'Keystone uri="{keystone.url}"'
    (error,) = answer.body["errors"]
    assert error["code"] == "unauthenticated"
    assert error["request_id"] == answer.headers["x-openstack-request-id"]


def test_a_token_that_has_ended(send, keystone, token_of, projects):
    token = keystone.ended_token("member@red", projects["red"])
    assert send("", "GET", of(RED), token=token) == (401, "unauthenticated")
    # A service that works for somebody may still finish what it began.
    service = token_of("service@service")
    assert send("", "GET", of(RED), token=token, service_token=service) == (200, "")
    # It speaks for somebody, it does not lend its rights.
    assert send("", "PUT", of(RED), BODY, token=token, service_token=service)[0] == 403


@pytest.fixture(scope="module")
def catalogued(api, keystone):
    """Have the API in the catalogue."""
    keystone.endpoint("kongming", api.url)


@pytest.mark.usefixtures("catalogued")
def test_the_python_client_finds_the_api_in_the_catalogue(keystone, projects):
    def client(who, **options):
        auth = {"auth_url": keystone.url, "username": who, "password": PASSWORD}
        auth |= {"user_domain_id": DOMAIN, "project_id": projects[who.partition("@")[2]]}
        return api_at(auth_type="password", auth=auth, **options)

    for who, visible in (("admin@blue", {RED, BLUE, UNLOCATED}), ("reader@red", {RED})):
        assert {each.id for each in client(who).allocations()} == visible
    with pytest.raises(exceptions.ForbiddenException) as refused:
        client("reader@red").unset_allocation(RED)
    assert refused.value.code == "forbidden"
    with pytest.raises(exceptions.NotFoundException) as unknown:
        client("reader@red").get_allocation(BLUE)
    assert unknown.value.code == "allocation_unknown"
    with pytest.raises(exceptions.HttpException, match="in the region x, only in") as lost:
        list(client("admin@blue", region_name="x").hosts())
    assert not lost.value.outcome_unknown


@pytest.mark.usefixtures("catalogued")
def test_the_command_line_finds_the_api_in_the_catalogue(keystone, projects):
    def openstack(who, *arguments, **more):
        environment = keystone.environment(who, projects[who.partition("@")[2]]) | more
        return subprocess.run(
            [str(BIN / "openstack"), "kongming", "allocation", *arguments, "-f", "json"],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    for who, visible in (("admin@blue", {RED, BLUE, UNLOCATED}), ("reader@red", {RED})):
        listed = openstack(who, "list")
        assert listed.returncode == 0, listed.stderr
        assert {row["instance_uuid"] for row in json.loads(listed.stdout)} == visible
    refused = openstack("reader@red", "unset", RED)
    assert refused.returncode == 1
    assert "forbidden" in refused.stderr
    for name, value, message in (
        ("OS_REGION_NAME", "elsewhere", "in the region elsewhere, only in (no region)"),
        ("OS_INTERFACE", "admin", "with the interface admin, only internal, public: choose"),
        ("OS_PROJECT_ID", "", "the token is not scoped"),
    ):
        lost = openstack("admin@blue", "list", **{name: value})
        assert lost.returncode == 1
        assert message in lost.stderr


def test_an_invalid_service_token_is_refused(send, token_of):
    for token in ("garbage", token_of("member@red")):
        assert send("admin@blue", "GET", of(RED), service_token=token)[0] == 401


def test_a_token_that_was_revoked(send, keystone, projects):
    token = keystone.token("admin@blue", projects["blue"])
    keystone.revoke(token)
    assert send("", "GET", of(RED), token=token) == (401, "unauthenticated")


def test_a_token_without_a_project_has_no_rights(send, keystone):
    token = keystone.token(ADMIN, None)
    assert send("", "GET", of(RED), token=token) == (403, "forbidden")
    assert send("", "GET", "/v1/allocations", token=token) == (403, "forbidden")


# member implies reader
@stories("who", ["reader@red", "member@red"])
def test_a_member_of_a_project_sees_its_instances(api, send, token_of, projects, who):
    assert send(who, "GET", of(RED)) == (200, "")
    assert send(who, "GET", f"{of(RED)}/history") == (200, "")
    for uuid in (BLUE, UNLOCATED, ABSENT):
        assert send(who, "GET", of(uuid)) == (404, "allocation_unknown")
        assert send(who, "GET", f"{of(uuid)}/history") == (404, "allocation_unknown")
    token = token_of(who)
    for query in ("", f"?project_id={projects['red']}", "?limit=1"):
        listed = api.request("GET", f"/v1/allocations{query}", None, {"X-Auth-Token": token})
        (mine,) = listed.body["allocations"]
        # Its host is hidden from them by Nova, too.
        assert (mine["instance_uuid"], mine["host"], mine["reported_by"]) == (RED, None, None)
        assert listed.body["links"] == []
    assert send(who, "GET", "/v1/allocations?host=compute-1") == (403, "forbidden")
    query = f"?project_id={projects['blue']}"
    listed = api.request("GET", f"/v1/allocations{query}", None, {"X-Auth-Token": token})
    assert listed.body["allocations"] == []


@stories("who", ["reader@red", "reader@blue", "member@red"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", of(RED)),
        ("PUT", f"{of(RED)}?dry_run=true"),
        ("DELETE", of(RED)),
        ("DELETE", of(ABSENT)),
        ("GET", "/v1/allocation-maps"),
        ("GET", "/v1/allocation-maps/blue"),
        ("PUT", "/v1/allocation-maps/blue"),
        ("PUT", "/v1/allocation-maps/blue?dry_run=true"),
        ("DELETE", "/v1/allocation-maps/blue"),
        ("GET", "/v1/hosts"),
        ("GET", "/v1/hosts/compute-1"),
    ],
)
def test_a_reader_of_a_project_may_neither_change_it_nor_see_the_cloud(send, who, method, path):
    assert send(who, method, path, BODY) == (403, "forbidden")


# Administrators are so in each project.
@pytest.mark.parametrize("who", ["admin@blue", "service@service"])
def test_administrators_and_services_have_all_rights(send, who):
    uuid = instance(len(who) * 100)
    assert send(who, "PUT", of(uuid), BODY) == (201, "")
    assert send(who, "GET", f"{of(uuid)}/history") == (200, "")
    assert send(who, "DELETE", of(uuid)) == (204, "")
    assert send(who, "GET", of(uuid)) == (404, "allocation_unknown")
    for other in (RED, BLUE, UNLOCATED):
        assert send(who, "GET", of(other)) == (200, "")
    body = {"allocations": {uuid: BODY["allocation"]}}
    assert send(who, "PUT", "/v1/allocation-maps/all", body) == (201, "")
    assert send(who, "DELETE", "/v1/allocation-maps/all") == (204, "")
    assert send(who, "GET", "/v1/hosts") == (200, "")
    assert send(who, "GET", "/v1/hosts/compute-1") == (404, "host_unknown")


def test_the_history_names_the_requester(api, token_of):
    token = token_of("admin@blue")
    path = of(instance(77))
    put = api.request("PUT", path, BODY, {"X-Auth-Token": token})
    shown = api.request("GET", f"{path}/history", None, {"X-Auth-Token": token}).body
    (change,) = shown["history"]
    assert change["request_id"] == put.headers["x-openstack-request-id"]
    assert change["requested_by"].startswith("user ")


def test_the_requester_can_not_be_forged(api, send):
    headers = {
        "X-Roles": "admin",
        "X-User-Id": "me",
        "X-Project-Id": "red",
        "X-Identity-Status": "Confirmed",
        "X-Service-Identity-Status": "Confirmed",
    }
    assert api.request("GET", of(RED), None, headers).status == 401
    assert api.request("DELETE", of(RED), None, headers).status == 401


@pytest.mark.parametrize("path", ["", "/v3"])
def test_keystone_is_away(tmp_path, connection, options, token_of, path):
    nobody = options(f"http://127.0.0.1:{free_port()}{path}")
    api = EmbeddedApi(tmp_path, nobody, connection=connection, auth_strategy="keystone")
    token = {"X-Auth-Token": token_of("reader@red")}
    answer = api.request("GET", of(RED), headers=token)
    # The client is not to blame: another token would be of no help.
    assert (answer.status, answer.error["code"]) == (503, "identity_unavailable")
    answer = api.request("GET", of(RED))
    assert (answer.status, answer.error["code"]) == (401, "unauthenticated")
    assert api.request("GET", "/v1", headers=token).status == 200


def test_no_token_is_in_the_log(api, token_of, send):
    token = token_of("admin@blue")
    assert send("", "GET", of(RED), token=token) == (200, "")
    logged = api.process.log.read_text()
    assert token not in logged
    assert PASSWORD not in logged
