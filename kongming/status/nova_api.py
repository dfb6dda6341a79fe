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

from kongming import exception
from kongming.allocation import host_name
from kongming.conf import nova as conf_nova
from kongming.conf.notification_handler import LEGACY
from kongming.status.finding import bad, doubtful, good


def check(conf: cfg.ConfigOpts) -> Iterator[Result]:
    """List the servers of this host, as the service does."""
    if not conf_nova.is_configured(conf):
        if conf.notification_handler.trigger == LEGACY:
            yield bad("[nova] auth_type is not set: the legacy trigger needs Nova's API")
        else:
            yield good("[nova] is not configured and not required: requests come with the events")
        return
    # Imported here: it costs time and memory, and not every host needs it.
    from kongming.nova.client import Nova

    try:
        servers = list(Nova(conf).servers(host=host_name.of(conf)))
    except exception.NovaUnavailable as error:
        yield bad(f"{error}; repeat this check after correcting it")
        return
    if servers:
        yield good(f"Nova reports {len(servers)} servers on {conf.host}")
    else:
        yield doubtful(
            f"Nova reports no server on {conf.host}: if servers exist here, [DEFAULT] host is not "
            "the name of nova-compute on this host"
        )
