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

"""The enforcer of policy.yaml, which refuses files that oslo.policy would misread.

The library reads YAML 1.1, and treats any empty or false value, such as ``no`` without quotes, as
a rule that allows everyone.
"""

from __future__ import annotations

import logging
from pathlib import Path

from oslo_policy import policy

from kongming import exception
from kongming.allocation.cpuset import shown
from kongming.runtime import core_schema

LOG = logging.getLogger(__name__)


class Enforcer(policy.Enforcer):
    """The enforcer of oslo.policy; it keeps the previous rules if a changed file is refused."""

    _logged = ""

    def load_rules(self, force_reload: bool = False) -> None:
        """Load the changed files.

        :raises PolicyRefused: if a file is refused, and no rules are loaded yet.
        """
        former, of_files = self.rules, self.file_rules
        try:
            super().load_rules(force_reload)
            self._logged = ""
        except PolicyRefused as error:
            if not former:
                raise
            self.rules, self.file_rules = former, of_files
            if str(error) != self._logged:
                LOG.error("Policy refused: %s; keeping the previous rules", error)
            self._logged = str(error)

    def _load_policy_file(self, path: str, force_reload: bool, overwrite: bool = True) -> bool:
        known = self._file_cache.get(path)
        try:
            if force_reload or known is None or Path(path).stat().st_mtime > known["mtime"]:
                check(Path(path).read_text(encoding="utf-8"))
        except (exception.RequestInvalid, UnicodeDecodeError) as error:
            raise PolicyRefused(f"{path}, {error}") from error
        except OSError:
            LOG.debug("%s can't be read; oslo.policy reports it", path)
        return super()._load_policy_file(path, force_reload, overwrite)


class PolicyRefused(exception.ConfigInvalid):
    """oslo.policy would misread a policy file."""


def check(text: str) -> None:
    """Check that oslo.policy reads a policy file as it is written.

    :raises RequestInvalid: naming the line of the first rule that it misreads.
    """
    document = core_schema.read(text)
    rules = {} if document.value is None else document.value
    if not isinstance(rules, dict):
        raise exception.RequestInvalid("line 1: a policy file must map names to rules")
    parsed = policy.parse_file_contents(text)
    for name, rule in rules.items():
        if not _is_rule(rule) or parsed.get(name) != rule:
            raise exception.RequestInvalid(
                f"line {document.lines[(name,)]}: {shown(name)} has no valid rule; a rule is a "
                'text in quotes: "role:admin", or "!" to deny everyone'
            )


def _is_rule(value: object) -> bool:
    """Return whether a value is a rule: a text, or a list of rules."""
    if isinstance(value, list):
        return all(isinstance(each, str | list) and _is_rule(each) for each in value)
    return isinstance(value, str)
