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

"""The kinds of queues: the defaults of one transport after those of another."""

from oslo_config import cfg

from kongming.bus.queue_kind import QUORUM, SECTION, QueueKind, set_defaults


def test_the_defaults_of_a_transport_do_not_remain_for_the_next():
    conf = cfg.ConfigOpts()
    conf([])
    kinds = []
    for defaults in (QUORUM, {}, QUORUM):
        set_defaults(conf, defaults)
        kinds.append(str(QueueKind.of_messages(conf[SECTION])))
    assert kinds == ["quorum", "not durable", "quorum"]
