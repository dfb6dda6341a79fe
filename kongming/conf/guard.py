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

"""``[guard]``: what may not be asked for, whoever asks."""

from oslo_config import cfg

GROUP = "guard"

OPTS = [
    cfg.StrOpt(
        "allowed_cpus",
        default="",
        mutable=True,
        help="Host CPUs that may be asked for, as a cpuset of CPU ids, for instance "
        "'4-31,^10'. Empty (the default) means all. Set it if a part of the host's CPUs is "
        "for guests that are placed by request.",
    ),
    cfg.StrOpt(
        "reserved_cpus",
        default="",
        mutable=True,
        help="Host CPUs that may not be asked for even if they are allowed, as a cpuset of CPU "
        "ids. Empty (the default) means none. Set it to the CPUs of the host's own work: its "
        "operating system, virtual switch, storage.",
    ),
    cfg.StrOpt(
        "allowed_nodes",
        default="",
        mutable=True,
        help="NUMA nodes that may be asked for a guest's memory, as a set of node ids in the "
        "form of a cpuset, for instance '0-1'. Empty (the default) means all. Set it if a "
        "node's memory is kept for something else.",
    ),
    cfg.ListOpt(
        "allowed_projects",
        default=[],
        mutable=True,
        help="Ids of the projects whose instances may ask, separated by commas. Empty (the "
        "default) means all. Set it where not every user who may edit an instance's metadata "
        "is to choose CPUs.",
    ),
    cfg.StrOpt(
        "overlap",
        default="warn",
        choices=[
            ("allow", "it is done"),
            ("warn", "it is done, and logged as a warning"),
            ("refuse", "it is refused"),
        ],
        mutable=True,
        help="What becomes of a request for CPUs that another guest is pinned to (default: "
        "warn). Set it to refuse where every guest is to have its CPUs alone, to allow where "
        "sharing them is meant.",
    ),
    cfg.StrOpt(
        "smt",
        default="warn",
        choices=[
            ("allow", "it is done"),
            ("warn", "it is done, and told as a warning"),
            ("refuse", "it is refused"),
        ],
        mutable=True,
        help="What becomes of a request for CPUs whose cores another guest is pinned to: with "
        "SMT (hyper-threading) the CPUs of a core slow each other down, and caches that they "
        "share leak (default: warn, for a neighbour on the core is often meant, and never to be "
        "overlooked). Set it to refuse where every guest is to have its cores alone, to allow "
        "where guests are packed on purpose.",
    ),
    cfg.StrOpt(
        "numa_guests",
        default="within",
        choices=[
            ("within", "placed within the CPUs that Nova gave them"),
            ("refuse", "refused"),
        ],
        mutable=True,
        help="What becomes of a request for a guest with a NUMA topology (flavors with "
        "hw:numa_nodes, hw:mem_page_size, or the CPU policy dedicated or mixed), whose CPUs Nova "
        "chose itself (default: within, which never contradicts what Nova counts). Set it to "
        "refuse where such guests are to stay exactly as Nova started them.",
    ),
    cfg.BoolOpt(
        "numa_across_cells",
        default=False,
        mutable=True,
        help="Whether the dedicated CPUs of a guest may be permuted across its own NUMA cells "
        "(default: false, because the memory of a cell does not move along, and is remote then). "
        "Set it where the guest's NUMA cells matter less than which CPU each vCPU has.",
    ),
    cfg.ListOpt(
        "nova_config_file",
        default=[],
        mutable=True,
        help="Paths of Nova's configuration on this host, separated by commas: files such as "
        "/etc/nova/nova.conf, or folders of such files; later ones win. CPUs of their "
        "[compute] cpu_dedicated_set may then be asked for only by the guest that Nova gave "
        "them to, and emulators and iothreads of guests with a NUMA topology may run on their "
        "cpu_shared_set, too. Empty (the default) means that nova.conf is not read. Set it where "
        "Nova pins guests with a dedicated CPU policy; the user that Kongming runs as must be "
        "able to read these files.",
    ),
]
