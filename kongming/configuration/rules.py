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

"""The rules of the host, from ``[guard]`` and the nova.conf that it names."""

from __future__ import annotations

from typing import Any

from oslo_config import cfg

from kongming import exception
from kongming.allocation.cpuset import CpuSet
from kongming.configuration import of_nova
from kongming.host.rules import NumaGuests, Overlap, Rules
from kongming.nova import config as nova_config

_NONE = CpuSet()


def read_rules(conf: cfg.ConfigOpts) -> Rules:
    """Read ``[guard]`` and the nova.conf that it names.

    :raises ConfigInvalid: naming the option and the problem.
    """
    try:
        return _rules(conf.guard)
    except (cfg.Error, ValueError) as error:
        raise exception.ConfigInvalid(f"[guard]: {nova_config.problem(error)}") from error


def _rules(guard: Any) -> Rules:
    return Rules(
        allowed_cpus=_cpuset("allowed_cpus", guard.allowed_cpus),
        reserved_cpus=_cpuset("reserved_cpus", guard.reserved_cpus) or _NONE,
        dedicated_cpus=of_nova.cpus(guard.nova_config_file, "cpu_dedicated_set"),
        shared_cpus=of_nova.cpus(guard.nova_config_file, "cpu_shared_set"),
        allowed_nodes=_cpuset("allowed_nodes", guard.allowed_nodes),
        allowed_projects=frozenset(guard.allowed_projects),
        overlap=Overlap(guard.overlap),
        smt=Overlap(guard.smt),
        numa_guests=NumaGuests(guard.numa_guests),
        numa_across_cells=guard.numa_across_cells,
    )


def _cpuset(option: str, text: str) -> CpuSet | None:
    if not text.strip():
        return None
    try:
        return CpuSet.parse(text)
    except exception.RequestInvalid as error:
        raise exception.ConfigInvalid(f"[guard] {option}: {error}") from error
