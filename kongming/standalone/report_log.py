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

"""The reports that conductors have stored or refused, and those that are still to be sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from kongming.rpc.messages import Refusal, Report, of_instances


class ReportLog:
    """The reports that were sent. A refused report is sent again only when it changes."""

    def __init__(self) -> None:
        self._sent: Mapping[str, Report] = {}
        self._refused: dict[str, Report] = {}

    def all_of(self, reports: Mapping[str, Report]) -> list[Report]:
        """Return all reports, without those that were refused and are unchanged."""
        return [each for uuid, each in reports.items() if each != self._refused.get(uuid)]

    def changed(self, reports: Mapping[str, Report]) -> list[Report]:
        """Return the reports that differ from the ones sent last."""
        changed = {uuid: each for uuid, each in reports.items() if each != self._sent.get(uuid)}
        return self.all_of(changed)

    def sent(self, reports: Mapping[str, Report], *, complete: bool) -> None:
        """Note that the present reports of this host were sent, as far as they were due.

        :param complete: whether these are all; then refusals of other instances are forgotten.
        """
        self._sent = reports
        if complete:
            self._refused = {uuid: self._refused[uuid] for uuid in self._refused.keys() & reports}

    def acknowledged(
        self, sent: Sequence[Report], refusals: Iterable[Refusal]
    ) -> tuple[list[Report], list[tuple[Report, str]]]:
        """Note which of the sent reports were refused.

        :returns: the stored reports, and the refused ones, each with the reason.
        """
        named = of_instances(refusals)
        stored = [each for each in sent if each.instance_uuid not in named]
        refused = [each for each in sent if each.instance_uuid in named]
        for each in stored:
            self._refused.pop(each.instance_uuid, None)
        self._refused |= {each.instance_uuid: each for each in refused}
        return stored, [(each, named[each.instance_uuid].message) for each in refused]
