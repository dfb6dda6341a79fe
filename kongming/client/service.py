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

"""The description of the service, for connections of openstacksdk."""

from __future__ import annotations

from typing import Any, cast

from openstack import exceptions
from openstack.service_description import ServiceDescription

from kongming import version
from kongming.client import versions
from kongming.client.proxy import Proxy

SERVICE_TYPE = "kongming"


class _Service(ServiceDescription):  # type: ignore[type-arg]
    """Kongming, with the keys of clouds.yaml that the openstack client has for it, too."""

    supported_versions = {"1": Proxy}  # noqa: RUF012, as in the base class

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """Return the proxy of a connection; its first request reports a missing endpoint."""
        if instance is None:
            return self
        if self.service_type not in instance._proxies:
            made = instance._proxies[self.service_type] = self._make_proxy(instance)
            made._connection = instance
        return instance._proxies[self.service_type]

    def _make_proxy(self, instance: Any) -> Any:
        config = instance.config
        requested = config.get_api_version(self.service_type)
        requested = requested or config.get_default_microversion(self.service_type)
        if requested and not versions.is_known(requested):
            raise exceptions.ConfigException(
                f"kongming_api_version {requested!r}: name 1 or a version like {versions.DEFAULT}"
            )
        found = config.get_session_client(
            # With another version, openstacksdk would ask the API for its versions now.
            self.service_type,
            version="latest",
            constructor=Proxy,
            client_name="python-kongming",
            client_version=version.release(),
        )
        found.max_version = None
        found.default_microversion = versions.microversion(requested)
        return found


#: For ``Connection.add_service``, and the argument ``extra_services`` of ``Connection``.
SERVICE = _Service(SERVICE_TYPE)


def add_to(connection: Any) -> Proxy:
    """Add Kongming to a connection of openstacksdk.

    :param connection: as returned by ``openstack.connect``.
    :returns: ``connection.kongming``.
    :raises ConfigException: if kongming_api_version is not a version of this API.
    """
    connection.add_service(SERVICE)
    return cast(Proxy, connection.kongming)
