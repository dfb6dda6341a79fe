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

"""The options of kongming.conf, registered on the ``conf`` of the caller.

One file per option group; there is no global configuration.
"""

from oslo_config import cfg

from kongming.conf import (
    api,
    conductor,
    database,
    default,
    executor,
    guard,
    libvirt,
    metrics,
    notification_handler,
    nova,
    rpc,
    status,
)

_GROUPS = (
    default,
    notification_handler,
    libvirt,
    executor,
    conductor,
    api,
    guard,
    metrics,
    nova,
    rpc,
    status,
)


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register all of Kongming's own options on ``conf``."""
    for group in _GROUPS:
        conf.register_opts(group.OPTS, group=group.GROUP)
    database.register_opts(conf)


def set_library_defaults() -> None:
    """Replace those defaults of the libraries that do not suit Kongming.

    Prefetch: with 1, a connection that is lost between handling and
    acknowledging an event can leave the listener waiting forever; with 0, a
    whole backlog is read into memory. Log levels: the launcher warns about
    running in one process, which is intended; database errors are logged in
    Kongming's own words. Intervals of the driver's poll: the shortest costs
    CPU time while a guest is placed, and the longest, 5 s, delays each
    shutdown. Messages: the cost of reading one is bounded by its length,
    whatever its sender claims.
    """
    # Imported here: the choice of oslo.service's backend must come first.
    from oslo_log import log
    from oslo_messaging._drivers import amqpdriver, impl_rabbit
    from oslo_service import _options

    from kongming.bus import incoming

    quiet = ("oslo_service=ERROR", "sqlalchemy=CRITICAL", "oslo_db=ERROR", "alembic=WARNING")
    ours = {level.partition("=")[0] for level in quiet}
    levels = [
        level for level in log.get_default_log_levels() if level.partition("=")[0] not in ours
    ]
    log.set_defaults(default_log_levels=[*levels, *quiet])

    incoming.read_bounded()
    cfg.set_defaults(impl_rabbit.rabbit_opts, rabbit_qos_prefetch_count=100)
    # No option: the range of one of impl_rabbit's depends on what it was before.
    amqpdriver.ACK_REQUEUE_EVERY_SECONDS_MIN = 0.02
    amqpdriver.ACK_REQUEUE_EVERY_SECONDS_MAX = 1.0
    cfg.set_defaults(_options.service_opts, graceful_shutdown_timeout=9)
    database.set_defaults()
