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

"""``[nova]``: access to Nova's API, with the options that every OpenStack service has.

The options for authentication are keystoneauth's. Importing it takes 13 MB, so only
services that use Nova's API do.
"""

from __future__ import annotations

from typing import Any

from oslo_config import cfg

GROUP = "nova"

TIMEOUT_S = 30

OPTS = [
    cfg.IntOpt(
        "resync_interval",
        default=600,
        min=0,
        max=86_400,
        help="Seconds between two resyncs with the changed servers of this host, which recover "
        "what no event reported (0: only the one after startup). Each resync is one request to "
        "Nova, at a time that differs between hosts. Raise it if many hosts overload Nova's API; "
        "lower it to apply metadata sooner if Nova emits no instance.update.",
        mutable=True,
    ),
    cfg.IntOpt(
        "resync_full_interval",
        default=3600,
        min=0,
        max=604_800,
        help="Seconds between two resyncs with all servers of this host, changed or not (0: only "
        "the one after startup). Nova does not report the removal of a single metadata key as a "
        "change: without other events, it takes effect after this time.",
        mutable=True,
    ),
    cfg.IntOpt(
        "start_spread",
        default=10,
        min=0,
        max=3_600,
        help="Number of seconds over which hosts that start together spread their first resync.",
    ),
]

_PLUGINS = ("password", "v3applicationcredential")


def is_configured(conf: cfg.ConfigOpts) -> bool:
    """Return whether the files hold credentials, in [nova] or in its auth_section."""
    probe = cfg.ConfigOpts()
    probe.register_opt(
        cfg.StrOpt("auth_type", deprecated_opts=[cfg.DeprecatedOpt("auth_plugin", group=GROUP)]),
        group=GROUP,
    )
    probe.register_opt(cfg.StrOpt("auth_section"), group=GROUP)
    probe([], default_config_files=conf.config_file, default_config_dirs=conf.config_dir)
    return bool(probe.nova.auth_type or probe.nova.auth_section)


def register_auth_opts(conf: cfg.ConfigOpts) -> None:
    """Register keystoneauth's options for the plugin that the files name."""
    from keystoneauth1 import loading

    loading.register_auth_conf_options(conf, GROUP)
    loading.register_session_conf_options(conf, GROUP)
    loading.register_adapter_conf_options(conf, GROUP)
    conf.set_default("timeout", TIMEOUT_S, group=GROUP)


def auth_opts() -> list[Any]:
    """Return keystoneauth's options, for the sample and the reference."""
    from keystoneauth1 import loading

    plugins = [
        option for name in _PLUGINS for option in loading.get_auth_plugin_conf_options(name)
    ]
    session = loading.get_session_conf_options()
    for option in session:
        if option.dest == "timeout":
            option.default = TIMEOUT_S
    adapter = loading.get_adapter_conf_options(include_deprecated=False)
    by_name = {
        option.dest: option
        for option in (*loading.get_auth_common_conf_options(), *plugins, *session, *adapter)
    }
    return sorted(by_name.values(), key=lambda option: option.dest)
