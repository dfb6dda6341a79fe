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

"""The service of openstacksdk: what is configured, its resources and its exceptions."""

import json
from types import SimpleNamespace

from keystoneauth1.session import Session
from openstack import exceptions
from openstack.config import OpenStackConfig
from openstack.config.cloud_region import CloudRegion
from openstack.connection import Connection
import pytest

import kongming.client
from kongming.client import Allocation, AllocationMap, Fault, responses
from kongming.tests.catalogues import EAST, WEST, Auth, token
from kongming.tests.connections import api_at, connect
from kongming.tests.databases import instance


def test_a_connection_has_the_service():
    connection = connect("http://here")
    added = kongming.client.add_to(connection)
    assert connection.kongming is added
    assert isinstance(added, kongming.client.Proxy)
    more = connect("http://there")
    more.add_service(kongming.client.SERVICE)
    assert more.kongming is not added


@pytest.mark.parametrize(
    ("options", "url"),
    [
        ({"kongming_endpoint_override": "http://here"}, "http://here"),
        ({"kongming_endpoint": "http://here"}, "http://here"),
        ({"auth": {"endpoint": "http://here"}}, "http://here"),
        ({"auth": {"endpoint": "http://a"}, "kongming_endpoint_override": "http://b"}, "http://b"),
    ],
)
def test_the_address_is_configured(options, url):
    assert api_at(**options).get_endpoint() == url


def test_clouds_yaml_is_read(tmp_path):
    path = tmp_path / "clouds.yaml"
    options = {"kongming_endpoint_override": "http://here/v1", "kongming_api_version": 1.0}
    path.write_text(json.dumps({"clouds": {"lab": {"auth_type": "none", **options}}}))
    config = OpenStackConfig(config_files=[str(path)], load_envvars=False)
    api = kongming.client.add_to(Connection(config=config.get_one("lab")))
    assert (api.get_endpoint(), api.default_microversion) == ("http://here/v1", "1.0")


@pytest.mark.parametrize(
    ("options", "microversion"),
    [
        ({}, "1.0"),
        ({"kongming_api_version": "1"}, "1.0"),
        ({"kongming_api_version": "1.3"}, "1.3"),
        ({"kongming_api_version": 1.3}, "1.3"),
        ({"kongming_default_microversion": "1.3"}, "1.3"),
    ],
)
def test_the_configured_version_is_requested(options, microversion):
    assert api_at("http://here", **options).default_microversion == microversion


def test_another_version_is_refused():
    with pytest.raises(exceptions.ConfigException, match="kongming_api_version '2'"):
        api_at("http://here", kongming_api_version="2")


def of_catalogue(endpoints, **options):
    """The service of a connection whose token has a catalogue."""
    session = Session(auth=Auth(token(endpoints=endpoints)))
    files = OpenStackConfig(load_yaml_config=False, load_envvars=False)
    cloud = files.get_one(auth_type="none", auth={}, **options)
    config = CloudRegion(name="x", session=session, config=cloud.config)
    return kongming.client.add_to(Connection(config=config))


@pytest.mark.parametrize(
    ("options", "url"),
    [
        ({}, "http://east"),
        ({"kongming_interface": "internal"}, "http://in-east"),
        ({"kongming_interface": "admin", "kongming_region_name": "west"}, "http://west"),
    ],
)
def test_the_address_is_in_the_catalogue(options, url):
    assert of_catalogue(EAST + WEST, **options).get_endpoint() == url


def test_a_missing_endpoint_is_reported_with_the_keys_of_clouds_yaml():
    with pytest.raises(Fault) as fault:
        of_catalogue(WEST).get_host("x")
    assert "with the interface public, only admin: choose one with interface, or" in str(
        fault.value
    )
    assert str(fault.value).endswith("with kongming_endpoint_override of clouds.yaml")
    with pytest.raises(Fault, match="no service catalogue: name the API's address with kongming_"):
        api_at().get_host("x")


@pytest.mark.parametrize(
    ("status", "kind", "of_openstack"),
    [
        (400, kongming.client.BadRequest, exceptions.BadRequestException),
        (403, kongming.client.Forbidden, exceptions.ForbiddenException),
        (404, kongming.client.NotFound, exceptions.NotFoundException),
        (409, kongming.client.Conflict, exceptions.ConflictException),
        (503, Fault, exceptions.HttpException),
    ],
)
def test_an_error_is_an_exception_of_openstacksdk(status, kind, of_openstack):
    def answer(body):
        return SimpleNamespace(status_code=status, json=lambda: body, headers={}, url="http://x")

    error = {"code": "a_code", "detail": "because\n", "request_id": "req-1"}
    fault = responses.of_answer(answer({"errors": [error]}))
    assert type(fault) is kind
    assert isinstance(fault, of_openstack)
    assert (fault.status_code, fault.code, fault.request_id) == (status, "a_code", "req-1")
    assert str(fault).startswith("a_code: because\\n")
    # A page of a proxy is no answer about a resource.
    assert type(responses.of_answer(answer({}))) is Fault


@pytest.mark.parametrize(
    ("status", "source", "in_force"),
    [
        ("applied", "api", True),
        ("applied", None, True),
        ("elsewhere", "api", True),
        ("applied", "operator", False),
        ("pending", None, False),
        ("refused", "api", False),
        ("of-a-newer-api", "api", False),
    ],
)
def test_an_allocation_is_in_force_or_not(status, source, in_force):
    found = Allocation.existing(instance_uuid=instance(), status=status, source=source)
    assert (found.id, found.is_in_force) == (instance(), in_force)


def test_resources_have_the_fields_of_the_api_and_of_newer_ones():
    found = AllocationMap.existing(name="blue", generation=3, newer={"x": 1})
    assert (found.id, found.name, found.generation) == ("blue", "blue", 3)
    assert (found.counts, found.newer) == (None, {"x": 1})
    assert json.loads(json.dumps(found))["generation"] == 3
