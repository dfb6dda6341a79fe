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

"""``[nova]``: how Nova's API is asked, the way every OpenStack service has it.

The options of the authentication are keystoneauth's. Importing that takes 13 MB,
which a service that asks nothing does not pay.
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
        help="Seconds between two looks at those servers of this host that have changed, which "
        "catch what no event told (0: never, but for the one after the start). Each is one "
        "request to Nova and comes at a moment of its own on each host. Change it if a thousand "
        "hosts are too many, or to have metadata take effect sooner where Nova emits no "
        "instance.update.",
        mutable=True,
    ),
    cfg.IntOpt(
        "resync_full_interval",
        default=3600,
        min=0,
        max=604_800,
        help="Seconds between two looks at all servers of this host, changed or not (0: never, "
        "but for the one after the start). Nova does not count the removal of a single metadata "
        "key as a change: without other events, it takes this long to be seen.",
        mutable=True,
    ),
    cfg.IntOpt(
        "start_spread",
        default=10,
        min=0,
        max=3_600,
        help="The look after the start comes within so many seconds, at a moment of its own on "
        "each host, so that a thousand hosts that start at once do not ask at once.",
    ),
]

_PLUGINS = ("password", "v3applicationcredential")


def is_configured(conf: cfg.ConfigOpts) -> bool:
    """Tell whether the files say how to authenticate, in [nova] or where its auth_section says."""
    probe = cfg.ConfigOpts()
    probe.register_opt(
        cfg.StrOpt("auth_type", deprecated_opts=[cfg.DeprecatedOpt("auth_plugin", group=GROUP)]),
        group=GROUP,
    )
    probe.register_opt(cfg.StrOpt("auth_section"), group=GROUP)
    probe([], default_config_files=conf.config_file, default_config_dirs=conf.config_dir)
    return bool(probe.nova.auth_type or probe.nova.auth_section)


def register_auth_opts(conf: cfg.ConfigOpts) -> None:
    """Register keystoneauth's options, which the file must have named a plugin of."""
    from keystoneauth1 import loading

    loading.register_auth_conf_options(conf, GROUP)
    loading.register_session_conf_options(conf, GROUP)
    loading.register_adapter_conf_options(conf, GROUP)
    conf.set_default("timeout", TIMEOUT_S, group=GROUP)


def auth_opts() -> list[Any]:
    """Give keystoneauth's options, for the sample and the reference."""
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
