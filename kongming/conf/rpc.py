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

"""``[rpc]``: signatures of the calls between API, conductors and executors."""

from oslo_config import cfg

GROUP = "rpc"

OPTS = [
    cfg.StrOpt(
        "key_file",
        default="",
        help="Path of the key that signs calls between API, conductors and kongming-executor. "
        "Controllers need the master key ('kongming-manage broker key create'); each compute "
        "host needs a key derived from it ('kongming-manage broker key derive HOST'). If empty "
        "(the default), calls are neither signed nor verified: any RabbitMQ user with write "
        "access to the queues can impersonate any service.",
    ),
    cfg.BoolOpt(
        "require_signatures",
        default=True,
        help="Whether to refuse unsigned calls and replies if key_file is set. Set it to false "
        "while you distribute keys to all machines, and back to true afterwards. Wrong signatures "
        "are always refused.",
    ),
]
