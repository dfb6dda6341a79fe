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
"""The plug-in as python-openstackclient loads it: name, options and client."""

from __future__ import annotations

import argparse
from typing import Any

from keystoneauth1.adapter import Adapter
from osc_lib import exceptions, utils

from kongming import version
from kongming.client import versions
from kongming.client.endpoints import Settings
from kongming.client.rest import Client

API_NAME = "kongming"
API_VERSION_OPTION = "os_kongming_api_version"
DEFAULT_API_VERSION = versions.DEFAULT

_SETTINGS = Settings(
    address="--os-kongming-endpoint",
    project="--os-project-name",
    region="--os-region-name",
    interface="--os-interface or kongming_interface of clouds.yaml",
)


def make_client(instance: Any) -> Client:
    """Return the client, for the client manager of osc_lib.

    Keys of clouds.yaml for this service, such as ``kongming_interface``, take precedence over keys
    and options for all services, as in openstacksdk.
    """
    configuration = instance.get_configuration()

    def own(*names: str) -> str | None:
        found = (configuration.get(f"{API_NAME}_{name}") for name in names)
        return next((str(each) for each in found if each), None)

    return Client(
        Adapter(
            instance.session,
            service_type=API_NAME,
            interface=configuration.get(f"{API_NAME}_interface") or instance.interface,
            region_name=own("region_name") or instance.region_name,
            endpoint_override=own("endpoint_override", "endpoint"),
            default_microversion=versions.microversion(own("api_version", "default_microversion")),
            client_name="python-kongming",
            client_version=version.release(),
        ),
        settings=_SETTINGS,
    )


def build_option_parser(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add the options of all commands of the service."""
    parser.add_argument(
        "--os-kongming-api-version",
        metavar="<kongming-api-version>",
        default=utils.env("OS_KONGMING_API_VERSION"),
        help=f"Kongming API version, default={DEFAULT_API_VERSION} (Env: OS_KONGMING_API_VERSION)",
    )
    parser.add_argument(
        "--os-kongming-endpoint",
        metavar="<kongming-endpoint>",
        dest="os_kongming_endpoint_override",
        default=utils.env("OS_KONGMING_ENDPOINT_OVERRIDE", "OS_KONGMING_ENDPOINT"),
        help="The URL of Kongming's API, overrides the service catalogue "
        "(Env: OS_KONGMING_ENDPOINT_OVERRIDE)",
    )
    return parser


def check_api_version(requested: str) -> bool:
    """Check the form of the requested version; the service checks whether it is supported.

    :raises CommandError: if it is no version.
    """
    if not versions.is_known(requested):
        raise exceptions.CommandError(
            f"--os-kongming-api-version, or kongming_api_version of clouds.yaml, {requested!r}: "
            f"name 1 or a version like {DEFAULT_API_VERSION}"
        )
    return True
