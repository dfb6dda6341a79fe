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
"""Where the plug-in of openstackclient finds the API, and its error if it does not."""

from types import SimpleNamespace

from keystoneauth1 import noauth
from keystoneauth1.session import Session
import pytest

from kongming.client.responses import Fault
from kongming.osc import plugin
from kongming.tests.catalogues import EAST, WEST, Auth, token


def client(auth, *, interface="public", region_name=None, **options):
    return plugin.make_client(
        SimpleNamespace(
            session=Session(auth=auth),
            interface=interface,
            region_name=region_name,
            get_configuration=lambda: options,
        )
    )


@pytest.mark.parametrize(
    ("made", "options", "expected"),
    [
        ({"scope": ""}, {}, "the token is not scoped and has no service catalogue"),
        ({}, {}, "has no endpoint of the type kongming: create one"),
        ({"scope": "system"}, {}, "has no endpoint of the type kongming: create one"),
        ({"endpoints": EAST, "kind": "metering"}, {}, "of the type kongming: create one"),
        (
            {"endpoints": EAST + WEST},
            {"region_name": "north"},
            "of the type kongming in the region north, only in east, west: choose one with",
        ),
        (
            {"endpoints": EAST + WEST},
            {"region_name": "west", "interface": "internalURL"},
            "with the interface internal in the region west, only admin: choose one",
        ),
        (
            {"endpoints": WEST},
            {},
            "of the type kongming with the interface public, only admin: choose one",
        ),
        (
            {"endpoints": WEST},
            {"kongming_interface": ["internal", "public"]},
            "with the interface internal, public, only admin",
        ),
        (
            {"endpoints": EAST + WEST},
            {"kongming_region_name": "south", "region_name": "east"},
            "in the region south, only in east, west",
        ),
    ],
)
def test_an_endpoint_that_is_not_found_is_reported_with_the_existing_ones(made, options, expected):
    with pytest.raises(Fault) as fault:
        client(Auth(token(**made)), **options).host("x")
    assert expected in str(fault.value)
    assert str(fault.value).endswith("or name the API's address with --os-kongming-endpoint")
    assert not fault.value.outcome_unknown


def test_a_log_in_without_a_catalogue_needs_an_address():
    with pytest.raises(Fault, match="no service catalogue: name the API's address with"):
        client(noauth.NoAuth()).host("x")


@pytest.mark.parametrize(
    ("options", "url"),
    [
        ({}, "http://east"),
        ({"kongming_interface": "internal"}, "http://in-east"),
        ({"kongming_interface": "admin", "kongming_region_name": "west"}, "http://west"),
        ({"interface": "internal"}, "http://in-east"),
        ({"interface": "internal", "kongming_interface": "public"}, "http://east"),
        ({"region_name": "west", "kongming_region_name": "east"}, "http://east"),
        ({"kongming_endpoint_override": "http://here"}, "http://here"),
        ({"kongming_endpoint": "http://here"}, "http://here"),
        ({"kongming_endpoint_override": "http://a", "kongming_endpoint": "http://b"}, "http://a"),
        ({"kongming_endpoint_override": "", "kongming_interface": ""}, "http://east"),
    ],
)
def test_an_option_of_this_service_precedes_one_of_all_services(options, url):
    found = client(Auth(token(endpoints=EAST + WEST)), **options)
    assert found._adapter.get_endpoint() == url


@pytest.mark.parametrize(
    ("version", "microversion"), [(None, "1.0"), ("1", "1.0"), ("1.3", "1.3"), (1.2, "1.2")]
)
def test_the_configured_version_is_requested(version, microversion):
    found = client(Auth(token(endpoints=EAST)), kongming_api_version=version)
    assert found._adapter.default_microversion == microversion
