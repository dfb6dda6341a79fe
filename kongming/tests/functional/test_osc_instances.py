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
"""Instances in commands of the openstack client: by name, several at once, of unknown hosts."""

import time

import pytest

from kongming.tests import commands
from kongming.tests.api import Api
from kongming.tests.commands import client_at
from kongming.tests.connections import connect
from kongming.tests.databases import instance
from kongming.tests.testbed.nova_api import PASSWORD, NovaApi
from kongming.tests.testbed.scripted_api import Odd, ScriptedApi

SHARES = ("--cpu-shares", "7")


@pytest.fixture
def server(tmp_path):
    with ScriptedApi(Api(tmp_path)) as server:
        yield server


@pytest.fixture
def nova():
    with NovaApi() as api:
        yield api


@pytest.fixture
def run(server):
    def run(name, *arguments, connection=None):
        client = client_at(server.url)
        return commands.run(client, name, *arguments, "-f", "json", connection=connection)

    return run


@pytest.fixture
def connection(nova):
    auth = {
        "auth_url": f"{nova.url}/identity/v3",
        "username": "admin",
        "password": PASSWORD,
        "user_domain_id": "default",
        "project_name": "service",
        "project_domain_id": "default",
    }
    return connect(auth_type="password", auth=auth, region_name="RegionOne")


@pytest.fixture
def on_host(server):
    """Have a host report guests: libvirt's names, by instance."""

    def on_host(host, **names):
        guests = [
            {"instance_uuid": instance(int(number[1:])), "name": name}
            for number, name in names.items()
        ]
        now = time.time()
        server.api.hosts.heartbeat(host, started_at=now, version="1", interval_s=60, now=now)
        server.api.hosts.keep_snapshot(host, {"guests": guests}, "digest", now)

    return on_host


@pytest.mark.parametrize("privileged", [True, False])
def test_an_instance_is_found_by_the_name_of_its_server(nova, connection, run, privileged):
    nova.privileged = privileged
    nova.add("compute1", {}, instance_uuid=instance(1), name="vnf.1")
    nova.add("compute1", {}, instance_uuid=instance(2), name="vnf-1")
    ended = run("allocation set", "vnf.1", *SHARES, connection=connection)
    assert (ended.status, ended.parsed["instance_uuid"]) == (0, instance(1)), ended.stderr
    assert run("allocation show", "vnf.1", connection=connection).parsed["generation"] == 1
    (listed,) = run("allocation list", "--names", connection=connection).parsed
    assert (listed["instance_uuid"], listed["name"]) == (instance(1), "vnf.1")


def test_a_name_that_is_unknown_or_not_unique_is_refused(nova, connection, run):
    for number in (1, 2):
        nova.add("compute1", {}, instance_uuid=instance(number), name="twin")
    ended = run("allocation show", "twin", connection=connection)
    assert (ended.status, ended.lines) == (
        1,
        [f"2 instances are named 'twin' ({instance(1)}, {instance(2)}): use the UUID"],
    )
    ended = run("allocation show", "nothing", connection=connection)
    assert (ended.status, len(ended.lines)) == (1, 1)
    assert ended.stderr.startswith("no instance is named 'nothing'")


def test_without_nova_an_instance_is_found_by_the_name_of_its_guest(run, on_host, caplog):
    on_host("compute1", n1="instance-00000001")
    on_host("compute2", n2="instance-00000002")
    ended = run("allocation set", "instance-00000002", *SHARES, connection=connect())
    assert (ended.status, ended.parsed["instance_uuid"]) == (0, instance(2)), ended.stderr
    (listed,) = run("allocation list", "--names", connection=connect()).parsed
    assert listed["name"] is None
    assert "the names of the servers can't be read from Nova" in caplog.messages


def test_several_instances_are_released_at_once(server, run):
    for number in (1, 2, 3):
        run("allocation set", instance(number), *SHARES)
    server.api.allocations.claim("compute1", [instance(1)], ())
    ended = run("allocation unset", *(instance(number) for number in (1, 2, 1)))
    assert (ended.status, ended.stderr) == (0, "")
    assert ended.parsed == {"instances": [instance(1), instance(2)], "status": "releasing"}
    ended = run("allocation unset", instance(1), instance(3), "--wait", "--timeout", "0")
    assert ended.status == 1
    assert [each["instance_uuid"] for each in ended.parsed["not_released"]] == [instance(1)]
    assert ended.lines[-1] == (
        "not carried out within 0 s; the release of 2 instances was accepted and stays in force"
    )


def test_others_are_released_although_one_has_no_allocation(run):
    run("allocation set", instance(2), *SHARES)
    ended = run("allocation unset", instance(1), instance(2), "--wait")
    assert (ended.status, ended.parsed["instances"]) == (1, [instance(2)])
    assert ended.parsed["status"] == "released"
    assert ended.stderr.startswith(f"instance {instance(1)}: allocation_unknown: ")
    ended = run("allocation unset", instance(1), instance(2))
    assert (ended.status, ended.output) == (1, "")
    assert ended.lines[-1] == "no release was accepted"


def test_an_unavailable_api_ends_several_releases_at_the_first(server, run):
    run("allocation set", instance(1), *SHARES)
    with server.scripted(lambda *_: Odd(502)):
        ended = run("allocation unset", instance(1), instance(2))
        assert [method for method, _ in server.requests] == ["DELETE", "GET"]
    assert (ended.status, ended.lines[-1]) == (1, "no release was accepted")


def test_a_generation_is_that_of_one_instance(run):
    ended = run("allocation unset", instance(1), instance(2), "--generation", "1")
    assert ended.status == 1
    assert "--generation is that of one instance" in ended.stderr


def test_a_host_that_is_not_known_is_an_error(run, on_host):
    ended = run("allocation list", "--host", "compute9")
    assert (ended.status, ended.output) == (1, "")
    assert ended.stderr.startswith("host_unknown: ")
    on_host("compute1")
    assert run("allocation list", "--host", "compute1").parsed == []
