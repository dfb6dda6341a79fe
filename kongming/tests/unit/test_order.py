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

"""The order of events, also of those that say that an instance is elsewhere."""

from kongming.notification.order import _MOST, Order


def test_an_older_event_is_late_and_one_of_the_same_time_is_not():
    order = Order()
    order.note("a", 5.0)
    assert order.is_late("a", 4.9)
    assert not order.is_late("a", 5.0)
    assert not order.is_late("b", 1.0)


def test_an_event_behind_one_that_says_elsewhere_is_late():
    order = Order()
    order.note_elsewhere("a", 5.0)
    order.note_elsewhere("a", 3.0)
    assert order.is_late("a", 4.0)
    assert not order.is_late("a", 6.0)
    assert not order.knows("a")


def test_many_that_are_elsewhere_leave_ours_alone():
    order = Order()
    order.note("ours", 5.0)
    for number in range(_MOST + 1):
        order.note_elsewhere(str(number), 5.0)
    assert order.is_late("ours", 4.0)
    assert not order.is_late("0", 4.0)
    assert order.is_late("1", 4.0)
