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

"""Options that libraries read from oslo.config's global configuration."""

from __future__ import annotations

from pathlib import Path

from oslo_concurrency import lockutils
from oslo_config import cfg

from kongming.bus.client_options import client_options

_LOCKS = "locks"


def hand_over(conf: cfg.ConfigOpts) -> None:
    """Copy options that libraries read there to the global configuration.

    These are the options of oslo.concurrency's locks, which ``use_queue_manager`` of
    oslo.messaging needs, and those of oslo.messaging's clients.

    :param conf: has all options that the files may set.
    """
    known = [("oslo_concurrency", lockutils._opts), *client_options()]
    for section, registered in known:
        cfg.CONF.register_opts(registered, group=section)
        for option in registered:
            cfg.CONF.set_override(option.dest, conf[section][option.dest], group=section)
    if not conf.oslo_concurrency.lock_path:
        path = str(Path(conf.state_path, _LOCKS))
        cfg.CONF.set_override("lock_path", path, group="oslo_concurrency")
