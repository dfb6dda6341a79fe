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

"""``[notification_handler]``: where Nova's notifications are listened for."""

from oslo_config import cfg, types

GROUP = "notification_handler"

VERSIONED = "versioned"
LEGACY = "legacy"
TOPICS = {VERSIONED: "versioned_notifications", LEGACY: "notifications"}

OPTS = [
    cfg.StrOpt(
        "trigger",
        default=VERSIONED,
        choices=[
            (VERSIONED, "Nova's versioned notifications, which carry the metadata"),
            (
                LEGACY,
                "Nova's legacy notifications, and Nova's API asked for the metadata; needs [nova]",
            ),
        ],
        help="What tells that something may be wanted. Change it where nova.conf leaves "
        "[notifications] notification_format at its default, and that can't be changed.",
    ),
    cfg.StrOpt(
        "exchange",
        default="nova",
        regex=".",
        max_length=255,
        help="AMQP exchange that Nova publishes its notifications to. Change it where "
        "nova.conf sets [DEFAULT] control_exchange.",
    ),
    cfg.ListOpt(
        "topics",
        default=[],
        item_type=types.String(max_length=200),
        sample_default=[TOPICS[VERSIONED]],
        help="Topics to listen on; empty means Nova's own: versioned_notifications, or "
        "notifications for the legacy trigger. Change it where nova.conf sets [notifications] "
        "versioned_notifications_topics, or [oslo_messaging_notifications] topics, for instance "
        "to a topic of its own for each host in a cloud of more than some hundred hosts.",
    ),
    cfg.StrOpt(
        "pool",
        default="kongming.$host",
        max_length=255,
        help="Name of the listener pool, which is the name of the queue too. Each host has its "
        "own, so that each sees every event. Empty means no pool: the queue of the topic "
        "itself, shared with whoever else listens to it; right only for a topic that no other "
        "host listens to.",
    ),
]


def topics(conf: cfg.ConfigOpts) -> list[str]:
    """Give the topics to listen on."""
    options = conf.notification_handler
    return list(options.topics) or [TOPICS[options.trigger]]
