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

"""``[guard]``: which placements this host refuses, whatever their source."""

from oslo_config import cfg

GROUP = "guard"

OPTS = [
    cfg.StrOpt(
        "allowed_cpus",
        default="",
        mutable=True,
        help="Host CPUs that requests may name, as a cpuset, for instance '4-31,^10'. Empty "
        "(the default) means all. Set it to dedicate a part of the host's CPUs to guests with "
        "requests.",
    ),
    cfg.StrOpt(
        "reserved_cpus",
        default="",
        mutable=True,
        help="Host CPUs that requests must not name even if they are allowed, as a cpuset. "
        "Empty (the default) means none. Set it to the CPUs that serve the host itself: "
        "operating system, virtual switch, storage.",
    ),
    cfg.StrOpt(
        "allowed_nodes",
        default="",
        mutable=True,
        help="NUMA nodes that requests may name for a guest's memory, as a set of node ids in "
        "cpuset form, for instance '0-1'. Empty (the default) means all. Set it if the memory of "
        "a node is reserved for another purpose.",
    ),
    cfg.ListOpt(
        "allowed_projects",
        default=[],
        mutable=True,
        help="Comma-separated ids of the projects whose instances may be placed. Empty (the "
        "default) means all. Set it if not every user who can edit instance metadata should be "
        "able to choose CPUs.",
    ),
    cfg.StrOpt(
        "overlap",
        default="warn",
        choices=[
            ("allow", "apply the request"),
            ("warn", "apply the request and log a warning"),
            ("refuse", "refuse the request"),
        ],
        mutable=True,
        help="How to handle a request for CPUs that another guest is pinned to (default: warn). "
        "Set it to refuse if guests must not share CPUs, to allow if sharing is intended.",
    ),
    cfg.StrOpt(
        "smt",
        default="warn",
        choices=[
            ("allow", "apply the request"),
            ("warn", "apply the request and log a warning"),
            ("refuse", "refuse the request"),
        ],
        mutable=True,
        help="How to handle a request for CPUs whose SMT siblings (hyper-threads of the same "
        "core) another guest is pinned to. Siblings slow each other down, and shared caches "
        "leak data (default: warn). Set it to refuse if guests must not share cores, to allow "
        "if guests are packed on purpose.",
    ),
    cfg.StrOpt(
        "numa_guests",
        default="within",
        choices=[
            ("within", "place the guest within the CPUs that Nova gave it"),
            ("refuse", "refuse the request"),
        ],
        mutable=True,
        help="How to handle a request for a guest with a NUMA topology (flavors with "
        "hw:numa_nodes, hw:mem_page_size, or the CPU policy dedicated or mixed), whose CPUs Nova "
        "chose itself (default: within, which never contradicts Nova's accounting). Set it to "
        "refuse if such guests must stay exactly as Nova started them.",
    ),
    cfg.BoolOpt(
        "numa_across_cells",
        default=False,
        mutable=True,
        help="Whether the dedicated CPUs of a guest may be permuted across its own NUMA cells "
        "(default: false, because the memory of a cell does not move along and becomes remote). "
        "Set it if the CPU of each vCPU matters more than local memory.",
    ),
    cfg.ListOpt(
        "nova_config_file",
        default=[],
        mutable=True,
        help="Comma-separated paths of Nova's configuration on this host: files such as "
        "/etc/nova/nova.conf, or directories of such files; later ones take precedence. CPUs "
        "in [compute] cpu_dedicated_set are then reserved for the guests that Nova gave them "
        "to, emulator and iothreads of guests with a NUMA topology may also run on "
        "cpu_shared_set, and kongming-notification-handler declares queues of Nova's kind "
        "(durable, quorum). Empty (the default) means that nova.conf is not read. Set it if "
        "Nova pins guests with a dedicated CPU policy, or has durable queues; the user that "
        "runs Kongming must be able to read these files.",
    ),
]
