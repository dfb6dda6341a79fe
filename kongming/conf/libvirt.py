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

"""``[libvirt]``: how libvirt is reached."""

from oslo_config import cfg

GROUP = "libvirt"

OPTS = [
    cfg.StrOpt(
        "connection_uri",
        default="qemu:///system",
        help="libvirt's connection URI on this host. It must be the one of nova.conf ([libvirt] "
        "connection_uri), which is the default for KVM and QEMU. It is opened as virsh opens it: "
        "user and password are looked up in auth.conf, certificates in /etc/pki or ?pkipath=.",
    ),
    cfg.IntOpt(
        "keepalive_interval",
        default=5,
        min=1,
        max=3_600,
        help="Seconds between the questions by which a silent libvirtd is noticed.",
    ),
    cfg.IntOpt(
        "keepalive_count",
        default=5,
        min=1,
        max=1_000,
        help="Number of questions that may stay unanswered before the connection is given up "
        "and opened anew.",
    ),
]
