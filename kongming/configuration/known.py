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

"""The options that files may have; those of authentication plug-ins depend on the files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from oslo_config import cfg

from kongming.conf import nova
from kongming.configuration import options
from kongming.configuration.files import Setting
from kongming.configuration.options import Options

_ALONE = [
    cfg.StrOpt("auth_type", deprecated_name="auth_plugin"),
    cfg.StrOpt("auth_section"),
]


@dataclass(frozen=True, slots=True)
class Known:
    """The options that some files may have.

    :ivar options: by section.
    :ivar elsewhere: sections that only another service reads, or one whose libraries are not
        installed here.
    :ivar idle: sections that are not read because of another option, with the explanation.
    :ivar problems: problems of the options that select others.
    """

    options: Options
    elsewhere: frozenset[str]
    idle: dict[str, str]
    problems: tuple[str, ...]

    @classmethod
    def of(cls, settings: Sequence[Setting], *, of_the_api: bool) -> Known:
        """Return the options that these settings may set.

        :param of_the_api: whether to include those that only the REST API reads.
        """
        everywhere = options.everywhere()
        found = {section: [*each] for section, each in everywhere.items() if each}
        elsewhere = everywhere.keys() - found.keys()
        idle = {}
        problems = []
        if of_the_api:
            found |= {section: [*each] for section, each in options.of_the_api().items()}
        else:
            elsewhere.update(options.OF_THE_API)
        for section in options.AUTHENTICATE:
            home = _value(settings, section, "auth_section") or section
            if section in elsewhere:
                elsewhere.add(home)
                continue
            auth_type = _value(settings, home, "auth_type", "auth_plugin")
            if not auth_type and home == section:
                found[section].extend(_ALONE)
                if section == nova.GROUP:
                    idle[section] = "which has no effect without auth_type"
                continue
            of_plugin = options.of_authentication(auth_type)
            if of_plugin is None:
                problems.append(
                    f"[{home}] auth_type: unknown authentication method; the usual ones are "
                    "password and v3applicationcredential"
                )
                of_plugin = options.of_authentication(None) or []
            for each in {section, home}:
                found.setdefault(each, []).extend(of_plugin)
        unique = {section: _unique(each) for section, each in found.items()}
        return cls(unique, frozenset(elsewhere - unique.keys()), idle, tuple(problems))

    def names(self) -> dict[str, set[str]]:
        """Return all names that a file may have, by section."""
        found: dict[str, set[str]] = {section: set() for section in self.options}
        for section, each in self.options.items():
            for option in each:
                for group, name in options.names(section, option):
                    found.setdefault(group, set()).add(name)
        return found


def _value(settings: Iterable[Setting], section: str, *names: str) -> str | None:
    found = [each.value for each in settings if each.section == section and each.name in names]
    return found[-1] if found else None


def _unique(found: Iterable[cfg.Opt]) -> list[cfg.Opt]:
    by_name: dict[str, cfg.Opt] = {}
    for option in found:
        by_name.setdefault(option.dest, option)
    return list(by_name.values())
