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
"""Who may do what over the API: oslo.policy's rules, in code.

An operator changes them in policy.yaml.
"""

from __future__ import annotations

import functools

from oslo_config import cfg
from oslo_policy import policy

from kongming import exception
from kongming.policies.enforcer import Enforcer, PolicyRefused

_ADMIN_OR_SERVICE = "rule:kongming:admin_or_service"
_READER = "rule:kongming:reader"

_PROJECT = ["project"]


def _rule(
    noun: str, verb: str, check: str, description: str, method: str, path: str
) -> policy.DocumentedRuleDefault:
    return policy.DocumentedRuleDefault(
        name=f"kongming:{noun}:{verb}",
        check_str=check,
        description=description,
        operations=[{"method": method, "path": path}],
        scope_types=_PROJECT,
    )


_ALLOCATION = "/v1/allocations/{instance_uuid}"
_MAP = "/v1/allocation-maps/{name}"

_RULES = (
    policy.RuleDefault(
        name="kongming:admin_or_service",
        check_str="role:admin or role:service",
        description="Who may request placements: administrators, and services such as a MANO.",
    ),
    policy.RuleDefault(
        name="kongming:reader",
        check_str=f"{_ADMIN_OR_SERVICE} or (role:reader and project_id:%(project_id)s)",
        description="Who may see the placement of an instance: also the readers of its project.",
    ),
    _rule(
        "allocation",
        "list",
        _READER,
        "List allocations; readers get those of their project.",
        "GET",
        "/v1/allocations",
    ),
    _rule("allocation", "get", _READER, "Show an allocation.", "GET", _ALLOCATION),
    _rule("allocation", "set", _ADMIN_OR_SERVICE, "Set an allocation.", "PUT", _ALLOCATION),
    _rule(
        "allocation",
        "plan",
        _ADMIN_OR_SERVICE,
        "Plan an allocation on its host (dry run).",
        "PUT",
        f"{_ALLOCATION}?dry_run=true",
    ),
    _rule(
        "allocation",
        "delete",
        _ADMIN_OR_SERVICE,
        "Release an instance: return it to its baseline.",
        "DELETE",
        _ALLOCATION,
    ),
    _rule(
        "allocation",
        "history",
        _READER,
        "Show the requests for an instance and their outcomes.",
        "GET",
        f"{_ALLOCATION}/history",
    ),
    _rule("map", "list", _ADMIN_OR_SERVICE, "List allocation maps.", "GET", "/v1/allocation-maps"),
    _rule("map", "get", _ADMIN_OR_SERVICE, "Show an allocation map.", "GET", _MAP),
    _rule("map", "set", _ADMIN_OR_SERVICE, "Set an allocation map.", "PUT", _MAP),
    _rule(
        "map",
        "plan",
        _ADMIN_OR_SERVICE,
        "Plan an allocation map on its hosts (dry run).",
        "PUT",
        f"{_MAP}?dry_run=true",
    ),
    _rule(
        "map",
        "delete",
        _ADMIN_OR_SERVICE,
        "Delete an allocation map: return its instances to their baseline.",
        "DELETE",
        _MAP,
    ),
    _rule("host", "list", _ADMIN_OR_SERVICE, "List the compute hosts.", "GET", "/v1/hosts"),
    _rule("host", "get", _ADMIN_OR_SERVICE, "Show a compute host.", "GET", "/v1/hosts/{host}"),
)


def list_rules() -> list[policy.RuleDefault]:
    """Return all rules, for the enforcer and the generator of the sample."""
    return list(_RULES)


def make_enforcer(conf: cfg.ConfigOpts) -> policy.Enforcer:
    """Return the enforcer of the rules, as changed by policy.yaml.

    :raises ConfigInvalid: if that file can't be read.
    """
    made = Enforcer(conf)
    made.register_defaults(_RULES)
    try:
        made.load_rules()
    except PolicyRefused as error:
        raise exception.ConfigInvalid(f"[oslo_policy] policy_file, {error}") from None
    except Exception as error:  # The library raises many kinds for an invalid file.
        why = " ".join(str(error).split())
        raise exception.ConfigInvalid(
            f"[oslo_policy] policy_file, {made.policy_path or made.policy_file}: {why}"
        ) from error
    return made


@functools.cache
def enforcer() -> policy.Enforcer:
    """Return an enforcer for the tools of oslo.policy, which read kongming.conf themselves."""
    conf = cfg.CONF
    if not conf.config_file:
        conf([], project="kongming")
    return make_enforcer(conf)
