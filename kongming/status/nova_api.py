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

"""Check whether Nova's API is available, and shows the service user what it needs."""

from __future__ import annotations

from collections.abc import Iterator

from oslo_config import cfg
from oslo_upgradecheck.upgradecheck import Result

from kongming.allocation import host_name
from kongming.conf import nova as conf_nova
from kongming.conf.notification_handler import LEGACY
from kongming.nova.server import Server
from kongming.status.finding import bad, doubtful, good


def check_host(conf: cfg.ConfigOpts) -> Iterator[Result]:
    """List the servers of this host, as the handler does."""
    if not conf_nova.is_configured(conf):
        if conf.notification_handler.trigger == LEGACY:
            yield bad("[nova] auth_type is not set: the legacy trigger needs Nova's API")
        else:
            yield good("[nova] is not configured and not required: requests come with the events")
        return
    found = list(_servers(conf, host=host_name.of(conf)))
    if found:
        yield good(f"Nova reports {len(found)} servers on {conf.host}")
    else:
        yield doubtful(
            f"Nova reports no server on {conf.host}: if servers exist here, [DEFAULT] host is not "
            "the name of nova-compute on this host"
        )


def check_all(conf: cfg.ConfigOpts) -> Iterator[Result]:
    """List servers of all hosts, as the conductor does."""
    if not conf_nova.is_configured(conf):
        yield good("[nova] is not configured: the executors report where instances are")
        return
    # Its first page shows whether the user may see servers and hosts.
    first = next(_servers(conf), None)
    yield good("Nova has no server" if first is None else "Nova reports servers and their hosts")


def _servers(conf: cfg.ConfigOpts, **filters: str) -> Iterator[Server]:
    # Imported here: it costs time and memory, and not every machine needs it.
    from kongming.nova.client import Nova

    return Nova(conf).servers(**filters)
