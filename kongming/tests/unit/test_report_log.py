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

"""Which reports are sent to conductors, and which are sent again."""

from hypothesis import given
from hypothesis import strategies as st

from kongming.allocation.statuses import Status
from kongming.rpc.messages import Refusal
from kongming.standalone.report_log import ReportLog
from kongming.tests.databases import instance, report

UUID, OTHER = instance(), instance(2)


def reports(**statuses):
    """Return reports by instance: a and b with a status each."""
    named = {"a": UUID, "b": OTHER}
    return {named[name]: report(named[name], 1, status) for name, status in statuses.items()}


def refused(uuid=UUID):
    return Refusal("reports", uuid, "odd")


def test_only_reports_that_differ_from_the_last_ones_are_sent():
    log = ReportLog()
    first = reports(a="applied", b="applied")
    assert log.changed(first) == [*first.values()]
    log.sent(first, complete=False)
    assert log.changed(first) == []
    second = reports(a="failed", b="applied")
    assert log.changed(second) == [second[UUID]]


def test_an_acknowledgement_distinguishes_stored_reports_from_refused_ones():
    log, sent = ReportLog(), [*reports(a="applied", b="failed").values()]
    unnamed = Refusal("reports", "[7]", "no object")
    stored, unstored = log.acknowledged(sent, [refused(), unnamed])
    assert (stored, unstored) == ([sent[1]], [(sent[0], "odd")])


def test_a_refused_report_is_sent_again_when_it_changes_and_after_another_one():
    log, first, second = ReportLog(), reports(a="applied"), reports(a="failed")
    log.acknowledged([first[UUID]], [refused()])
    assert log.all_of(first) == log.changed(first) == []
    assert log.all_of(second) == [second[UUID]]
    log.acknowledged([second[UUID]], [])
    assert log.all_of(first) == [first[UUID]]


def test_a_refusal_is_forgotten_with_its_instance_after_a_complete_exchange():
    log, both = ReportLog(), reports(a="applied", b="applied")
    log.acknowledged([both[UUID]], [refused()])
    log.sent(reports(b="applied"), complete=False)
    assert log.all_of(both) == [both[OTHER]]
    log.sent(reports(b="applied"), complete=True)
    assert log.all_of(both) == [*both.values()]


statuses = st.sampled_from([Status.APPLIED, Status.FAILED, Status.REFUSED])
states = st.fixed_dictionaries({}, optional={"a": statuses, "b": statuses})


@given(st.lists(st.tuples(states, st.sets(st.sampled_from([UUID, OTHER]))), max_size=8))
def test_conductors_get_each_acceptable_report_whatever_was_refused_before(steps):
    log, stored = ReportLog(), {}
    for state, refuses in steps:
        present = reports(**state)
        sent = log.changed(present)
        log.sent(present, complete=False)
        for each in log.acknowledged(sent, map(refused, refuses))[0]:
            stored[each.instance_uuid] = each
    last = reports(**steps[-1][0]) if steps else {}
    final = log.all_of(last)
    for each in log.acknowledged(final, [])[0]:
        stored[each.instance_uuid] = each
    for uuid, each in last.items():
        assert stored.get(uuid) == each or each not in final
