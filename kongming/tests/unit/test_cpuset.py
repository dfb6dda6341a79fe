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

"""The cpuset's written form: what it means, and how garbage is refused."""

from hypothesis import given
from hypothesis import strategies as st
import pytest

from kongming import exception
from kongming.cpuset import MAX_ID, CpuSet, shown

ids = st.integers(0, MAX_ID)
cpusets = st.frozensets(ids, min_size=1, max_size=40).map(CpuSet)
spaces = st.text(" \t\n\r\f\v", max_size=2)


@st.composite
def items(draw, max_id=60):
    """One item: its text, the ids it stands for, whether it excludes them."""
    first = draw(st.integers(0, max_id))
    last = draw(st.none() | st.integers(first, max_id))
    excludes = draw(st.booleans())
    signs = ["^"] * excludes + ["0" * draw(st.integers(0, 2)) + str(first)]
    signs += [] if last is None else ["-", str(last)]
    text = "".join(draw(spaces) + sign for sign in signs) + draw(spaces)
    return text, set(range(first, (first if last is None else last) + 1)), excludes


@given(st.lists(items(), min_size=1, max_size=12))
def test_means_inclusions_less_exclusions_in_any_order(listed):
    included = set().union(*(ids for _, ids, excludes in listed if not excludes))
    excluded = set().union(*(ids for _, ids, excludes in listed if excludes))
    text = ",".join(text for text, _, _ in listed)
    if included - excluded:
        assert CpuSet.parse(text) == included - excluded
    else:
        with pytest.raises(exception.RequestInvalid):
            CpuSet.parse(text)


@given(cpusets)
def test_written_form_reads_back(cpus):
    assert CpuSet.parse(str(cpus)) == cpus


@given(cpusets)
def test_written_form_is_the_shortest(cpus):
    runs = 1 + sum(b != a + 1 for a, b in zip(list(cpus), list(cpus)[1:], strict=False))
    assert str(cpus).count(",") == runs - 1


@given(cpusets, st.integers(1, MAX_ID + 1))
def test_cpumap_holds_what_the_host_has(cpus, size):
    assert CpuSet.from_cpumap(cpus.cpumap(size)) == {cpu for cpu in cpus if cpu < size}


@given(st.text(max_size=60) | st.text("0123456789-^, \t", max_size=60))
def test_any_text_is_a_cpuset_or_refused(text):
    try:
        cpus = CpuSet.parse(text)
    except exception.RequestInvalid as refusal:
        assert "position" in str(refusal)
        assert str(refusal).isprintable()
        assert len(str(refusal)) < 250
    else:
        assert cpus
        assert max(cpus) <= MAX_ID
        assert set(text) <= set("0123456789-^, \t\n\r\f\v")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty item at position 1"),
        ("  ", "empty item at position 1"),
        ("1,,2", "empty item at position 3"),
        ("1,2,", "empty item at position 5"),
        (",1", "empty item at position 1"),
        ("1,x,2", "item 'x' at position 3"),
        ("1, 2 3", "item ' 2 3' at position 3"),
        ("5-3", "runs backwards: write 3-5"),
        ("^10", "'^10' at position 1 only excludes"),
        ("5-6,^0-9", "empty once its exclusions are taken out"),
        ("1-2-3", "item '1-2-3' at position 1"),
        ("^^1", "item '^^1'"),
        ("-1", "item '-1'"),
        ("1-", "item '1-'"),
        ("+1", "item '+1'"),
        ("1_0", "item '1_0'"),
        ("0x1", "item '0x1'"),
        ("1.0", "item '1.0'"),
        ("１", r"item '\uff11'"),  # noqa: RUF001
        ("٣", r"item '\u0663'"),
        ("1\u00a0", r"item '1\xa0'"),
        ("1\x00", r"item '1\x00'"),
        ("8192", "names an id above 8191"),
        ("0-9999999999999999999", "names an id above 8191"),
        ("9" * 10_000, "names an id above 8191"),
    ],
)
def test_refusal_names_item_and_position(text, says):
    with pytest.raises(exception.RequestInvalid) as refusal:
        CpuSet.parse(text)
    assert says in str(refusal.value)
    assert refusal.value.reason == "request_invalid"


@pytest.mark.parametrize("character", ["x", "\u0100", "\U0001f600", "'"])
def test_a_quoted_item_is_short_whatever_it_holds(character):
    assert shown(character) == ascii(character)
    for length in range(200):
        quoted = shown(character * length)
        assert len(quoted) <= 44
        assert quoted[0] == quoted[-1]


def test_offset_is_added_to_positions():
    with pytest.raises(exception.RequestInvalid, match="position 8"):
        CpuSet.parse("1,x", offset=5)


def test_is_a_value():
    assert CpuSet.parse("0-2") == CpuSet([2, 1, 0]) == {0, 1, 2}
    assert len({CpuSet.parse("0-2"), CpuSet.parse("0,1,2")}) == 1
    assert str(CpuSet([9, 5, 6, 11, 10])) == "5-6,9-11"
    assert repr(CpuSet([5, 6])) == "CpuSet('5-6')"
    assert list(CpuSet([3, 1])) == [1, 3]
