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

"""``[rpc]``: how API, conductors and executors prove to each other who they are."""

from oslo_config import cfg

GROUP = "rpc"

OPTS = [
    cfg.StrOpt(
        "key_file",
        default="",
        help="File with the key that calls between API, conductors and kongming-executor are "
        "signed with. Controllers need the master key ('kongming-manage broker key create'), a "
        "compute host its own key, which is made from it ('kongming-manage broker key derive "
        "HOST'). If empty, calls are neither signed nor checked: who may write to RabbitMQ's "
        "queues may then send calls in anybody's name.",
    ),
    cfg.BoolOpt(
        "require_signatures",
        default=True,
        help="Whether calls and answers that are not signed are refused, once key_file is set. "
        "Set it to false while keys are brought to all machines, and back to true afterwards. "
        "What is wrongly signed is refused in any case.",
    ),
]
