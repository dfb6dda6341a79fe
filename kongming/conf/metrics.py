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

"""``[metrics]``: what Prometheus may ask the service."""

from oslo_config import cfg

GROUP = "metrics"

OPTS = [
    cfg.BoolOpt(
        "enabled",
        default=False,
        help="Whether the service answers Prometheus (default: no). It then takes some 2 MB of "
        "memory more.",
    ),
    cfg.HostDomainOpt(
        "listen_address",
        default="127.0.0.1",
        help="Address that Prometheus finds the metrics at (default: only this host). Change it "
        "if Prometheus runs elsewhere, to an address of a network that only operators reach: "
        "neither password nor encryption protects the metrics.",
    ),
    cfg.PortOpt(
        "listen_port",
        default=19630,
        min=1,
        help="TCP port that Prometheus finds the metrics at. Change it if something else on "
        "this host listens there.",
    ),
]
