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

"""``[metrics]``: the endpoint for Prometheus."""

from oslo_config import cfg

GROUP = "metrics"

OPTS = [
    cfg.BoolOpt(
        "enabled",
        default=False,
        help="Whether to serve metrics for Prometheus (default: false). This takes about 2 MB of "
        "memory.",
    ),
    cfg.HostDomainOpt(
        "listen_address",
        default="127.0.0.1",
        help="Address to serve metrics on (default: localhost only). If Prometheus runs on "
        "another machine, set it to an address of a management network: metrics are neither "
        "authenticated nor encrypted.",
    ),
    cfg.PortOpt(
        "listen_port",
        default=19630,
        min=1,
        help="TCP port to serve metrics on. Change it if the port is in use on this host.",
    ),
]
