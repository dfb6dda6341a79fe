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

"""``[libvirt]``: connection to libvirt."""

from oslo_config import cfg

GROUP = "libvirt"

OPTS = [
    cfg.StrOpt(
        "connection_uri",
        default="qemu:///system",
        help="Connection URI of libvirt on this host. It must equal [libvirt] connection_uri in "
        "nova.conf; the default suits KVM and QEMU. As with virsh, credentials come from "
        "auth.conf, and certificates from /etc/pki or ?pkipath=.",
    ),
    cfg.IntOpt(
        "keepalive_interval",
        default=5,
        min=1,
        max=3_600,
        help="Seconds between keepalive probes to libvirtd.",
    ),
    cfg.IntOpt(
        "keepalive_count",
        default=5,
        min=1,
        max=1_000,
        help="Number of unanswered keepalive probes after which the connection is closed and "
        "opened again.",
    ),
]
