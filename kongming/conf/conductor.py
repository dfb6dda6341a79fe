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

"""``[conductor]``: how conductors follow Nova and talk to compute hosts."""

from oslo_config import cfg

GROUP = "conductor"

OPTS = [
    cfg.IntOpt(
        "poll_interval",
        default=60,
        min=1,
        max=86_400,
        mutable=True,
        help="Seconds between two polls of Nova for changed servers (deleted or moved). One "
        "conductor polls on behalf of all, and only if [nova] holds credentials. Each poll is "
        "one request, plus one for each thousand changed servers.",
    ),
    cfg.IntOpt(
        "poll_full_interval",
        default=3600,
        min=1,
        max=604_800,
        mutable=True,
        help="Seconds between two polls of Nova for all servers: one request for each thousand "
        "servers.",
    ),
    cfg.BoolOpt(
        "emit_notifications",
        default=False,
        help="Whether to emit versioned notifications of applied, refused, failed, drifted and "
        "released allocations, and of hosts that become unresponsive, to [DEFAULT] transport_url "
        "(or that of [oslo_messaging_notifications]), with its topics. Set it if an orchestrator "
        "listens to them: without a consumer their queue grows.",
    ),
    cfg.IntOpt(
        "host_timeout",
        default=10,
        min=1,
        max=600,
        mutable=True,
        help="Seconds to wait for a host's response to a dry run (plan), also of all its "
        "instances of an allocation map.",
    ),
]
