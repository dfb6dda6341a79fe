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

"""``[api]``: what the REST API takes, and from whom."""

from oslo_config import cfg

GROUP = "api"

KEYSTONE = "keystone"
NOAUTH = "noauth"

#: No allocation map may have more instances, whatever the option says.
MAP_INSTANCES_MAX = 100_000

OPTS = [
    cfg.StrOpt(
        "auth_strategy",
        default=KEYSTONE,
        choices=[
            (KEYSTONE, "a token of Keystone's, as [keystone_authtoken] says"),
            (NOAUTH, "nobody is asked who they are; only this machine itself is answered"),
        ],
        help="How it is found out who asks. Change it for a first look on one machine: with "
        "noauth, everybody who is on it may do everything, and requests from elsewhere, or "
        "through a proxy, are refused.",
    ),
    cfg.IntOpt(
        "max_limit",
        default=1000,
        min=1,
        max=10_000,
        help="The most entries in one answer of a list; the rest is on its next pages. Change it "
        "if the answers are too long for a client or a proxy.",
    ),
    cfg.IntOpt(
        "max_map_instances",
        default=5000,
        min=1,
        max=MAP_INSTANCES_MAX,
        help="The most instances in one allocation map. Change it if your orchestrator hands over "
        "more at once: each thousand of them takes some 10 MB of memory and up to a second of "
        "CPU time for the request.",
    ),
    cfg.IntOpt(
        "max_body_size",
        default=16 * 1024 * 1024,
        min=1024,
        max=1024 * 1024 * 1024,
        help="The longest body of a request, in bytes. Change it together with max_map_instances.",
    ),
    cfg.IntOpt(
        "server_threads",
        default=4,
        min=1,
        help="How many threads each process of the WSGI server has (gunicorn: --threads, uWSGI: "
        "threads). One of them is kept from waiting for Keystone, for the database, or for a "
        "host's answer to a dry run: others, and /healthcheck, are answered then. Set it to what "
        "the server has.",
    ),
]

HEALTHCHECK = "healthcheck"
HEALTHCHECK_OPTS = [
    cfg.StrOpt(
        "path",
        default="/healthcheck",
        help="Path at which load balancers are told whether the API works. Change it if they ask "
        "elsewhere.",
    ),
]
