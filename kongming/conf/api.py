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

"""``[api]``: limits of the REST API, and how its clients are authenticated."""

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
            (KEYSTONE, "Keystone tokens, validated as [keystone_authtoken] configures"),
            (NOAUTH, "no authentication; only requests from localhost are accepted"),
        ],
        help="How API clients are authenticated. Change it only to try Kongming on a single "
        "machine: with noauth, every local user may do everything, and requests from other "
        "machines or through a proxy are refused.",
    ),
    cfg.StrOpt(
        "audit_map_file",
        default="",
        help="Path of the audit map of keystonemiddleware, such as "
        "/etc/kongming/api_audit_map.conf: each authenticated request then emits CADF events as "
        "[audit_middleware_notifications] configures. Empty (the default): no events.",
    ),
    cfg.IntOpt(
        "max_limit",
        default=1000,
        min=1,
        max=10_000,
        help="Maximum number of entries in one page of a list. Lower it if responses are too "
        "large for a client or a proxy.",
    ),
    cfg.IntOpt(
        "max_map_instances",
        default=5000,
        min=1,
        max=MAP_INSTANCES_MAX,
        help="Maximum number of instances in one allocation map. Raise it if your orchestrator "
        "sends more at once: each thousand instances takes about 10 MB of memory and up to one "
        "second of CPU time per request.",
    ),
    cfg.IntOpt(
        "max_body_size",
        default=16 * 1024 * 1024,
        min=1024,
        max=1024 * 1024 * 1024,
        help="Maximum size of a request body, in bytes. Change it together with "
        "max_map_instances.",
    ),
    cfg.IntOpt(
        "server_threads",
        default=4,
        min=1,
        help="Number of threads in each process of the WSGI server (gunicorn: --threads, uWSGI: "
        "threads). Set it to the value that the server uses: one thread never waits for "
        "Keystone, the database or a host's dry run, so that other requests and /healthcheck "
        "are still served.",
    ),
]

CORS = "cors"
#: What browsers may send, and read of the responses, for the origins of [cors] allowed_origin.
CORS_DEFAULTS = {
    "allow_methods": ["GET", "PUT", "DELETE", "HEAD"],
    "allow_headers": ["X-Auth-Token", "OpenStack-API-Version", "If-Match", "If-None-Match"],
    "expose_headers": ["X-OpenStack-Request-Id", "OpenStack-API-Version", "Retry-After"],
}

HEALTHCHECK = "healthcheck"
HEALTHCHECK_OPTS = [
    cfg.StrOpt(
        "path",
        default="/healthcheck",
        help="Path of the health check for load balancers. Change it if they use another path.",
    ),
]
