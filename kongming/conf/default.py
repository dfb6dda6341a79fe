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

"""``[DEFAULT]``: the name of this host and its state directory."""

from oslo_config import cfg

from kongming.allocation import host_name

GROUP = None

OPTS = [
    cfg.Opt(
        "host",
        type=host_name.HostName(),
        default=host_name.of_machine(),
        sample_default="<the machine's hostname>",
        help="Name of this compute host. It must equal [DEFAULT] host in nova.conf on this "
        "host, because it identifies the events and requests for this host. Set it if nova.conf "
        "sets it, or if Nova does not accept the machine's hostname.",
    ),
    cfg.StrOpt(
        "state_path",
        default="/var/lib/kongming",
        regex=".",
        help="Directory in which Kongming stores the desired allocation of each instance. It "
        "must be owned by the user that runs the service (who creates it if permitted) and be "
        "on storage that survives a reboot.",
    ),
]
