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

import operator

from hypothesis import given
from hypothesis import strategies as st
import pytest

from kongming import exception
from kongming.allocation.cpuset import CPU, IOTHREAD, MAX_ID, NODE, VCPU, CpuSet, listed, shown
from kongming.tests.cost import cost, soon
from kongming.tests.unit.strategies import cpusets, spaces


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
def test_a_cpuset_means_inclusions_minus_exclusions_in_any_order(listed):
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
def test_a_cpumap_has_the_length_of_the_host(cpus, size):
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
    ("text", "expected"),
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
        ("8192", "has an id above 8191"),
        ("0-9999999999999999999", "has an id above 8191"),
        ("9" * 10_000, "has an id above 8191"),
        ("99999999", "has an id above 8191"),
        ("5,9000-x", "item '9000-x' at position 3"),
    ],
)
def test_refusal_names_item_and_position(text, expected):
    with pytest.raises(exception.RequestInvalid) as refusal:
        CpuSet.parse(text)
    assert expected in str(refusal.value)
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
    assert str(CpuSet([7, 0, 5])) == "0,5,7"
    assert str(CpuSet()) == ""
    assert repr(CpuSet([5, 6])) == "CpuSet('5-6')"
    assert list(CpuSet([3, 1])) == [1, 3]


few = st.frozensets(st.integers(0, 40))


@given(few, few)
def test_sets_combine_as_sets_do(one, other):
    for combine in (operator.and_, operator.or_, operator.sub, operator.xor):
        expected = combine(one, other)
        combined = combine(CpuSet(one), CpuSet(other))
        assert combined == expected == combine(CpuSet(one), other) == combine(one, CpuSet(other))
        assert combined == CpuSet(expected)
        assert hash(combined) == hash(CpuSet(expected))
    for compare in (operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne):
        assert compare(CpuSet(one), CpuSet(other)) is compare(one, other)
        assert compare(CpuSet(one), other) is compare(one, other)
    assert CpuSet(one).isdisjoint(other) is one.isdisjoint(other)
    assert CpuSet.union([CpuSet(one), CpuSet(), CpuSet(other)]) == one | other


@given(few)
def test_a_cpuset_equals_its_cpus(ids):
    cpus = CpuSet(ids)
    assert list(cpus) == sorted(ids)
    assert len(cpus) == len(ids)
    assert bool(cpus) is bool(ids)
    assert [number in cpus for number in range(42)] == [number in ids for number in range(42)]
    assert [*cpus.runs()] == [*CpuSet(reversed(list(cpus))).runs()]
    assert all(run.start - 1 not in ids and run.stop not in ids for run in cpus.runs())
    assert CpuSet(cpus) == CpuSet.of_runs(reversed(cpus.runs())) == cpus


def test_ranges_are_read_and_invalid_ids_refused():
    assert CpuSet(range(3, 6)) == {3, 4, 5}
    assert CpuSet(range(3, 9, 2)) == {3, 5, 7}
    assert CpuSet(range(5, 5)) == CpuSet(range(5, 2)) == CpuSet() == set()
    assert CpuSet.of_runs([range(3), range(1, 2), range(4, 4), range(3, 5)]) == CpuSet(range(5))
    assert "1" not in CpuSet([1])
    assert CpuSet([1]) != {"1"}
    assert CpuSet([1]) != [1]


@pytest.mark.parametrize(
    ("of", "largest"), [(CPU, 8191), (VCPU, 4095), (IOTHREAD, 8191), (NODE, 1023)]
)
def test_each_kind_of_ids_has_its_end(of, largest):
    assert CpuSet.parse(f"0-{largest}", of=of) == CpuSet(range(largest + 1))
    assert CpuSet.parse(f"0000{largest}", of=of) == {largest}
    for text in (f"{largest + 1}", f"0-{largest + 1}", f"00000{largest + 1}"):
        with pytest.raises(exception.RequestInvalid, match=f"has an id above {largest}, "):
            CpuSet.parse(text, of=of)
    with pytest.raises(exception.RequestInvalid, match=f"leave at least one {of.noun}$"):
        CpuSet.parse("1,^1", of=of)


def test_a_long_list_is_cut_between_two_items():
    assert listed(CpuSet(range(5))) == "0-4"
    assert listed("1," * 39 + "22") == "1," * 39 + "22"
    assert listed("1," * 39 + "222") == "1," * 38 + "1,..."
    assert listed(CpuSet(range(0, 8192, 2))).endswith(",...")
    assert len(listed(CpuSet(range(1000, 8192, 2)))) < 90


def every_other(count):
    return CpuSet(range(0, 2 * count, 2))


def test_large_ids_cost_no_more_than_small_ones():
    def work(last, other):
        cpus = CpuSet.parse(f"0-{last},^{other}")
        assert CpuSet.parse(str(cpus)) == cpus & CpuSet(range(last + 1)) == cpus | cpus
        assert len(cpus) == last
        assert cpus - CpuSet([other]) == cpus <= CpuSet(range(last + 1))
        assert not cpus.isdisjoint(cpus)
        assert hash(cpus) == hash(CpuSet(cpus))
        assert other not in cpus

    small, large = cost(lambda: work(9, 5)), cost(lambda: work(8190, 4095))
    assert large.lines == small.lines
    assert large.peak <= small.peak + 500


def test_cost_grows_with_the_runs_and_no_faster():
    def work(cpus, other):
        assert CpuSet.parse(str(cpus)) == cpus
        assert len((cpus | other) - other) == len(cpus)

    few = cost(lambda: work(every_other(100), CpuSet([1])))
    many = cost(lambda: work(every_other(2000), CpuSet([1])))
    assert many.lines <= 21 * few.lines
    assert many.peak <= 25 * few.peak


@pytest.mark.parametrize("text", ["{}x", "0{}x", "0-{}x", "^{}x", "0 - {}- x", "{}^", "1{}2"])
def test_blanks_are_read_once(text):
    """A million of them would take weeks if each were tried with each."""
    with soon(), pytest.raises(exception.RequestInvalid, match="at position 1 is not one of"):
        CpuSet.parse(text.format(" \t" * 500_000))
