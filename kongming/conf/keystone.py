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

"""``[keystone_authtoken]``: keystonemiddleware's options with Kongming's defaults."""

from __future__ import annotations

from collections.abc import Mapping

from oslo_config import cfg

GROUP = "keystone_authtoken"

#: Seconds for an answer of Keystone's, and how often it is asked again; seconds for an answer of
#: memcached's, and those for which it is left alone after none. The library would wait for ever.
LIMITS: Mapping[str, int] = {
    "http_connect_timeout": 5,
    "http_request_max_retries": 1,
    "memcache_pool_socket_timeout": 1,
    "memcache_pool_dead_retry": 30,
}


def set_defaults() -> None:
    """Replace those defaults of keystonemiddleware that do not suit Kongming.

    The import is expensive and only the API needs it.
    """
    from keystonemiddleware.auth_token import _opts

    for _, options in _opts.auth_token_opts:
        cfg.set_defaults(options, **LIMITS)


def register_opts(conf: cfg.ConfigOpts, service_type: str) -> None:
    """Register the options on ``conf`` before the middleware does.

    :param service_type: Kongming's service type in access rules of application credentials.
    """
    from keystonemiddleware import auth_token

    for group, options in auth_token.list_opts():
        conf.register_opts(options, group=group)
    for name, value in {**LIMITS, "service_type": service_type}.items():
        conf.set_default(name, value, group=GROUP)
