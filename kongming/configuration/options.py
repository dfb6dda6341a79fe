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

"""All options of kongming.conf: Kongming's own, and those of the libraries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
import functools
import importlib.util
from typing import Any

from oslo_concurrency import opts as concurrency
from oslo_config import cfg
from oslo_log import _options as log
from oslo_service import _options as service

from kongming import conf as kongming_conf
from kongming.bus.client_options import client_options
from kongming.conf import database, nova, opts
from kongming.configuration.files import DEFAULT

#: Sections that only the REST API reads.
OF_THE_API = (
    "audit_middleware_notifications",
    "cors",
    "healthcheck",
    "keystone_authtoken",
    "oslo_middleware",
    "oslo_policy",
)
#: Sections that configure the authentication at Keystone, or name another section.
AUTHENTICATE = ("nova", "keystone_authtoken")

_PACKAGE_OF_THE_API = "keystonemiddleware"

Options = dict[str, list[Any]]


@functools.cache
def everywhere() -> Options:
    """Return the options of all services, by section."""
    kongming_conf.set_library_defaults()
    # Imported here: the choice of oslo.service's backend must come first.
    from oslo_messaging import opts as messaging
    from oslo_reports import opts as reports

    return _by_section(
        *opts.own_opts(),
        *log.list_opts(),
        *reports.list_opts(),
        *messaging.list_opts(),
        *client_options(),
        *concurrency.list_opts(),
        (database.GROUP, database.OPTS),
        (None, service.service_opts),
    )


def knows_the_api() -> bool:
    """Return whether the libraries of the REST API are installed."""
    return importlib.util.find_spec(_PACKAGE_OF_THE_API) is not None


@functools.cache
def of_the_api() -> Options:
    """Return the options of the REST API, by section; their import takes long."""
    from keystonemiddleware import audit
    from keystonemiddleware.auth_token import _opts as auth_token
    from oslo_middleware import opts as middleware
    from oslo_policy import opts as policy

    return _by_section(
        *audit.list_opts(),
        *auth_token.list_opts(),
        *middleware.list_opts_cors(),
        *middleware.list_opts_healthcheck(),
        *middleware.list_opts_http_proxy_to_wsgi(),
        *policy.list_opts(),
    )


@functools.cache
def of_authentication(auth_type: str | None) -> list[Any] | None:
    """Return the options of an authentication method; None if it is unknown.

    :param auth_type: the method; None for the options of the usual ones.
    """
    # Imported here, as it costs memory that services without Keystone do not need.
    from keystoneauth1 import exceptions, loading

    try:
        plugin = loading.get_auth_plugin_conf_options(auth_type) if auth_type else []
    except exceptions.NoMatchingPlugin:
        return None
    by_name = {option.dest: option for option in (*nova.auth_opts(), *plugin)}
    return list(by_name.values())


def register_log_options(conf: cfg.ConfigOpts) -> None:
    """Register the log options, which are options of the command line, too."""
    conf.register_cli_opts([*log.common_cli_opts, *log.logging_cli_opts])


def names(section: str, option: Any) -> Iterator[tuple[str, str]]:
    """Yield the sections and names under which a file may have an option."""
    yield section, option.dest
    for former in option.deprecated_opts:
        yield former.group or section, former.name or option.dest


def _by_section(*groups: tuple[Any, Iterable[Any]]) -> Options:
    found: Options = {}
    for group, options in groups:
        section = DEFAULT if group is None else str(getattr(group, "name", group))
        found.setdefault(section, []).extend(options)
    return found
