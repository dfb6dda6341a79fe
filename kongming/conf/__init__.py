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

"""The options of kongming.conf: registered on a conf that is handed in.

One file for each option group; there is no global configuration.
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
    """Set those of the libraries' defaults that differ for us.

    Prefetch: with 1, a connection lost between handling and acknowledging
    an event can leave the listener waiting for ever; with 0, a backlog is
    read into memory whole. Log levels: the launcher warns of running in one
    process, which is what we want; what goes wrong with the database is told
    in our words. The driver's shortest and longest wait
    for a message: the first costs CPU time just when a guest is worked on,
    and its 5 s would be the time that each stop takes. Messages: reading one
    costs what its length is worth, whatever its sender says of it.
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
