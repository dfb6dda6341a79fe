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

"""``[status]``: what only kongming-status uses."""

from oslo_config import cfg

GROUP = "status"

OPTS = [
    cfg.StrOpt(
        "management_url",
        secret=True,
        help="URL of RabbitMQ's management API, as "
        "https://user:password@host:15671 or http://user:password@host:15672. The user needs "
        "the tag 'monitoring' and read access to the virtual host. If unset (the default), "
        "'kongming-status upgrade check' can't find queues that grow without limit. The services "
        "do not use it. The certificate is verified with [oslo_messaging_rabbit] ssl_ca_file if "
        "that is set.",
    ),
]
