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

"""Entries of the database, with hosts that have or report the instance."""

from kongming.db.values import Entry, Outcome
from kongming.tests.databases import asking, instance, report

UUID, OTHER = instance(), instance(2)
HERE, THERE = "here", "there"


def entry(host=None, reporter=None, *, project=None, requested=True, generation=2, uuid=UUID):
    outcome = None
    if reporter is not None:
        absent = report(uuid, generation, "absent", changed_at=1.0).to_json()
        outcome = Outcome(**absent, host=reporter, reported_at=1.0)
    allocation = asking(1) if requested else None
    return Entry(uuid, allocation, generation, project, host, None, "mano", 1.0, 1.0, outcome)
