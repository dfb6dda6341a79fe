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

"""What can't be read or observed is logged once, and so is its return."""

import pytest

from kongming.hypervisor.visibility import (
    GROUPS,
    THREADS,
    Gap,
    Visibility,
    hidden_groups,
    hidden_threads,
)

FILE = Gap("/sys/x", "read", "Permission denied", "what libvirt reports is used instead")


@pytest.fixture
def logged(caplog):
    """Return a function that returns the lines since it was last called."""
    caplog.set_level("INFO")

    def logged():
        found = [f"{each.levelname} {each.getMessage()}" for each in caplog.records]
        caplog.clear()
        return found

    return logged


def test_a_gap_is_logged_once_and_its_end_once(logged):
    visibility = Visibility()
    for _ in range(2):
        visibility.lost(FILE)
    assert visibility.gaps() == [FILE]
    assert logged() == [
        "WARNING /sys/x can't be read (Permission denied): what libvirt reports is used instead"
    ]
    for _ in range(2):
        visibility.regained("/sys/x")
    assert logged() == ["INFO /sys/x can be read again"]
    assert visibility.gaps() == []
    visibility.lost(FILE)
    assert len(logged()) == 1


def test_a_value_that_was_never_lost_is_not_regained(logged):
    visibility = Visibility()
    visibility.regained("/sys/x")
    visibility.lost(FILE)
    logged()
    visibility.regained("/sys/y")
    assert logged() == []
    assert visibility.lacks("/sys/x")
    assert not visibility.lacks("/sys/y")


def test_many_parts_are_one_gap_that_ends_with_the_last_of_them(logged):
    visibility = Visibility()
    for guest in ("a", "b"):
        visibility.lost(hidden_threads("hidepid"), guest)
    assert len(logged()) == 1
    visibility.regained(THREADS, "a")
    assert logged() == []
    visibility.regained(THREADS, "b")
    assert logged() == ["INFO The threads of guests can be observed again"]


def test_another_reason_is_another_gap_until_no_value_is_hidden(logged):
    visibility = Visibility()
    visibility.lost(hidden_threads("hidepid"), "a")
    visibility.lost(hidden_threads("no /proc"), "a")
    assert ["(hidepid)" in line for line in logged()] == [True, False]
    visibility.regained(THREADS, "a")
    assert visibility.gaps() == []


def test_one_guest_may_have_gaps_of_several_kinds(logged):
    visibility = Visibility()
    visibility.lost(hidden_threads("hidepid"), "a")
    visibility.lost(hidden_groups("not mounted"), "a")
    visibility.regained(THREADS, "a")
    visibility.regained(GROUPS, "b")
    assert visibility.lacks(GROUPS)
    visibility.regained(GROUPS, "a")
    assert visibility.gaps() == []


def test_a_part_that_ended_leaves_its_gap_without_another_log_line(logged):
    visibility = Visibility()
    visibility.lost(hidden_threads("hidepid"), "a")
    visibility.lost(hidden_threads("hidepid"), "a/vCPU 0")
    visibility.forget("a")
    logged()
    visibility.lost(hidden_threads("hidepid"), "b")
    assert logged() == []
    visibility.forget("b")
    visibility.regained(THREADS, "c")
    assert len(logged()) == 1


def test_the_first_of_many_files_is_named():
    gap = Gap("/sys/cpu*/x", "read", "Permission denied", "left out", "/sys/cpu7/x")
    assert str(gap) == "/sys/cpu*/x can't be read (Permission denied: /sys/cpu7/x): left out"
    assert gap == Gap("/sys/cpu*/x", "read", "Permission denied", "left out", "/sys/cpu8/x")
