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

"""``[DEFAULT]``: who this host is and where its state is kept."""

from oslo_config import cfg

from kongming import host_name

GROUP = None

OPTS = [
    cfg.Opt(
        "host",
        type=host_name.HostName(),
        default=host_name.of_machine(),
        sample_default="<the machine's hostname>",
        help="Name of this compute host. It must equal [DEFAULT] host of nova.conf on this "
        "host: events are recognised as this host's by it. Change it where nova.conf sets it, or "
        "where the machine's hostname is not one that Nova takes.",
    ),
    cfg.StrOpt(
        "state_path",
        default="/var/lib/kongming",
        regex=".",
        help="Directory in which Kongming keeps what is wanted for each instance, across "
        "restarts. It belongs to the user that the service runs as (it is made if that user may) "
        "and lies on a disk that survives a reboot.",
    ),
]
