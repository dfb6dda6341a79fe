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

"""The options of Nova that Kongming follows, in the nova.conf that ``[guard]`` names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from oslo_config import cfg

from kongming import exception
from kongming.allocation.cpuset import CpuSet
from kongming.nova import config

OPTION = "[guard] nova_config_file"
_RABBIT = "oslo_messaging_rabbit"
_DURABLE = ("amqp_durable_queues", "rabbit_quorum_queue")


def cpus(paths: list[str], name: str) -> CpuSet:
    """Return the CPUs of a ``[compute]`` option; none if it is not set.

    :param paths: the value of ``[guard] nova_config_file``.
    :raises ConfigInvalid: naming the option and the problem.
    """
    if not paths:
        return CpuSet()
    text = read(paths, {"compute": [cfg.StrOpt(name, default="")]})["compute"][name] or ""
    # Nova ignores empty items; the rest of the grammar is the same.
    items = ",".join(item for item in text.split(",") if item.strip())
    try:
        return CpuSet.parse(items) if items else CpuSet()
    except exception.RequestInvalid as error:
        raise exception.ConfigInvalid(
            f"{OPTION}: [compute] {name} in {', '.join(paths)}: {error}"
        ) from error


def queues(paths: list[str]) -> dict[str, bool]:
    """Return the options that decide the kind of Nova's queues; none if no path is named.

    :param paths: the value of ``[guard] nova_config_file``.
    :raises ConfigInvalid: if they can't be read.
    """
    if not paths:
        return {}
    nova = read(paths, {_RABBIT: [cfg.BoolOpt(name, default=False) for name in _DURABLE]})
    return {name: nova[_RABBIT][name] for name in _DURABLE}


def read(paths: list[str], options: Mapping[Any, Iterable[Any]]) -> cfg.ConfigOpts:
    """Read options, by group.

    :param paths: the value of ``[guard] nova_config_file``.
    :raises ConfigInvalid: if they can't be read.
    """
    try:
        return config.read(paths, options)
    except exception.ConfigInvalid as error:
        raise exception.ConfigInvalid(f"{OPTION}: {error}") from None
