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

"""``[notification_handler]``: where to receive Nova's notifications."""

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
                "Nova's legacy notifications; the metadata is read from Nova's API; needs [nova]",
            ),
        ],
        help="Which notifications trigger a placement. Change it if [notifications] "
        "notification_format in nova.conf has its default value and can't be changed.",
    ),
    cfg.StrOpt(
        "exchange",
        default="nova",
        regex=".",
        max_length=255,
        help="AMQP exchange to which Nova publishes its notifications. Change it if nova.conf "
        "sets [DEFAULT] control_exchange.",
    ),
    cfg.ListOpt(
        "topics",
        default=[],
        item_type=types.String(max_length=200),
        sample_default=[TOPICS[VERSIONED]],
        help="Topics to listen on. Empty (the default) means Nova's defaults: "
        "versioned_notifications, or notifications for the legacy trigger. Change it if nova.conf "
        "sets [notifications] versioned_notifications_topics or [oslo_messaging_notifications] "
        "topics, for instance to one topic per host in a cloud of several hundred hosts.",
    ),
    cfg.StrOpt(
        "pool",
        default="kongming.$host",
        max_length=255,
        help="Name of the listener pool, which is also the name of the queue. Each host needs a "
        "pool of its own to receive every event. Empty means no pool: the service consumes the "
        "queue of the topic itself, which is correct only if no other host listens to this "
        "topic.",
    ),
]


def topics(conf: cfg.ConfigOpts) -> list[str]:
    """Return the topics to listen on."""
    options = conf.notification_handler
    return list(options.topics) or [TOPICS[options.trigger]]
