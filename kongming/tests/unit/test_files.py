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

"""Files of operators: what is kept is what was typed, or it is refused with its line."""

import argparse
import io
import json

from hypothesis import example, given
from hypothesis import strategies as st
import pytest

from kongming import exception
from kongming.osc import map_file
from kongming.runtime import core_schema
from kongming.terminal import files, options

X = {"x": 1}
UUID = "5f0c3b52-6a0e-4c6e-9a5f-0d6a4f0b8c11"


@pytest.fixture
def written(tmp_path):
    def written(text):
        path = tmp_path / "request"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return written


@pytest.fixture
def load(written):
    return lambda text: files.load(written(text)).value


def refused(read, *arguments):
    with pytest.raises(exception.RequestInvalid) as caught:
        read(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a":\t{"0": "5"}}', {"a": {"0": "5"}}),
        ("a: {0: '5'}", {"a": {"0": "5"}}),
        ("a: &a {x: 1, y: 1}\nb: {<<: *a, y: 2}", {"a": {"x": 1, "y": 1}, "b": {"x": 1, "y": 2}}),
        ("- &a {x: 1}\n- &b {x: 2, y: 2}\n- {<<: [*a, *b]}", [X, {"x": 2, "y": 2}, {**X, "y": 2}]),
        ("{'<<': 1}", {"<<": 1}),
        ("{'0:5'}", {"0:5": None}),
        ("a: !!str 5\nb: ! 5\nc: !!int 5\nd: !!map {}", {"a": "5", "b": "5", "c": 5, "d": {}}),
        ("- true\n- FALSE\n- null\n- ~\n-", [True, False, None, None, None]),
        ("\ufeffa: 1", {"a": 1}),
        ("", None),
    ],
)
def test_yaml_and_json_are_read(load, text, value):
    assert load(text) == value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: {c: 1,\n c: 2}", ", line 3: 'c' is repeated"),
        ('{"a": 1,\n\t"a": 2}', ", line 2: 'a' is repeated"),
        ("{0: 1, '0': 2}", "'0' is repeated"),
        ("{[1]: 2}", ", line 1: this is not a key"),
        ("\n{0:5}", ", line 2: '0:5' has no value: write a space after the colon"),
        ("a: {0: 1, 17:04}", "'17:04' has no value: write a space after the colon"),
        ("a: &a {x: 1}\nb:\n  <<: *a\n  <<: *a", ", line 4: << is repeated"),
        ("a: &a 5\nb: {<<: *a}", ", line 2: << merges mappings"),
        ("a:\n  - &a [*a]", ", line 2: *a is inside the value that it refers to"),
        ("a: 1\nb: *c", ", line 2: the anchor &c is not defined before"),
        ("a: 1\n---\nb: 1", ", line 2: a second document begins here"),
        ("a: [", ", line 1: this is neither JSON nor YAML: "),
        ("a:\n\tb: 1", ", line 2: this is neither JSON nor YAML: indent with spaces, not tabs"),
        ("a: 1\nb: \a", ", line 2: this is neither JSON nor YAML: it has a control character"),
        ("[" * 9999, "this is nested deeper than 32 levels"),
        ("x: !!python/name:os.system", "'tag:yaml.org,2002:python/name:os.system'"),
        ("x: !!int 010", "'010' can't be read with the tag"),
        ("x: !!bool yes", "'yes' can't be read with the tag"),
        ("x: !!timestamp 2026-01-01", "can't be read with the tag"),
        ("x: !!set {a, b}", "the tag 'tag:yaml.org,2002:set' is unknown"),
        (b"\xff\xfe\xff", "can't be read: its byte 1 is not UTF-8"),
    ],
)
def test_an_ambiguous_value_is_refused(written, text, expected):
    path = written(text)
    assert refused(files.load, path).startswith(path)
    assert expected in refused(files.load, path)


def nested(levels):
    return "[" * levels + "]" * levels


def test_the_deepest_nesting_is_read_and_one_more_level_is_refused(load):
    most = core_schema.MAX_DEPTH + 1
    assert load(nested(most))
    assert "deeper" in refused(load, f"# not JSON\n{nested(most + 1)}")


def test_a_repeated_alias_counts_with_its_depth_at_its_place(load):
    half = core_schema.MAX_DEPTH // 2
    chain = f"a: &a {nested(half)}\nb: "
    assert load(f"{chain}{'[' * half}*a{']' * half}")
    assert "deeper" in refused(load, f"{chain}{'[' * (half + 1)}*a{']' * (half + 1)}")


def test_aliases_do_not_multiply_without_bound(monkeypatch, load):
    monkeypatch.setattr(core_schema, "MAX_VALUES", 7)
    # Seven values: the mapping, a and its two, b, and in it a's two less one.
    assert load("a: &a [1, 2]\nb: *a")
    assert "more than 7 values" in refused(load, "a: &a [1, 2]\nb: *a\nc: 1")


def test_a_bomb_of_aliases_is_refused(load):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 20)]
    assert "including those of aliases" in refused(load, "\n".join(lines))


@pytest.mark.parametrize(
    "text",
    [
        *("010", "0100", "0o17", "0x1F", "0b11", "1_000", "+5", "1e3", "1.0", "-.5", "00"),
        *("17:04", "1:20", "8:00", "190:20:30", "12:30:45.5"),
        *("yes", "No", "on", "OFF", "y", "n", "tRUE", ".inf", "-.INF", ".nan", "Infinity", "NaN"),
        *("2026-01-01", "2026-01-01T10:00:00Z", "=", "\u0665", "1\u00a0"),
    ],
)
def test_other_forms_of_numbers_times_and_truth_stay_text(load, text):
    assert load(f"a: {text}") == {"a": text}
    assert load(f"{{{text}: 1}}") == {text: 1}


@pytest.mark.parametrize("number", [0, 5, -5, 10**30, int("9" * 400)])
def test_plain_decimal_integers_are_numbers(load, number):
    assert load(f"[{number}]") == load(f"- {number}") == [number]


def test_a_number_of_thousands_of_digits_is_refused_with_its_line(written):
    path = written(f"\ncpu_shares: {'9' * 5000}")
    assert f"{path}, line 2: cpu_shares: " in refused(options.read_allocation, of_file(path))


@pytest.mark.parametrize("text", ["1e2", "100.0", "NaN", "-Infinity"])
def test_numbers_of_json_that_are_no_integers_stay_text(load, text):
    assert load(f'{{"a":\n\t{text}}}') == {"a": text}


# All that the schemas of YAML 1.1 and 1.2 take for something else than text.
_sign = st.sampled_from(["", "+", "-"])
_digits = st.text("0123456789_", min_size=1, max_size=6)
_number = st.one_of(
    st.tuples(_sign, st.sampled_from(["", "0", "0o", "0x", "0b"]), _digits).map("".join),
    st.tuples(_sign, _digits, st.sampled_from([".", "e", "E+", ".e-", ":"]), _digits).map("".join),
    st.from_regex(r"[-+]?[0-9]{1,3}(:[0-5]?[0-9]){1,3}(\.[0-9]*)?", fullmatch=True),
    st.from_regex(
        r"[0-9]{4}-[0-9]?[0-9]-[0-9]{2}([Tt ][0-9]{2}(:[0-9]{2}){2}Z?)?", fullmatch=True
    ),
    st.sampled_from([".inf", "-.Inf", "+.INF", ".nan", ".NaN"]),
)
_word = st.sampled_from(["y", "n", "yes", "no", "on", "off", "true", "false", "null"]).flatmap(
    lambda word: st.sampled_from(
        [word, word.title(), word.upper(), word.swapcase()[:1] + word[1:]]
    )
)
_scalar = st.one_of(_number, _word)


def as_typed(text, value):
    """Return whether a text without quotes means this value in both YAML 1.2 and YAML 1.1."""
    if isinstance(value, bool | None):
        return text.lower() == json.dumps(value)
    return value == text if isinstance(value, str) else str(value) == text


@given(_scalar)
@example("010")
@example("-0")
def test_a_scalar_is_kept_as_it_was_typed(text):
    for document in (f"- {text}", f"[{text}]", f"# \n- {text} # 5"):
        (value,) = core_schema.read(document).value
        assert as_typed(text, value) or (text, value) == ("-0", 0)


@given(_scalar, st.sampled_from(["{{{}: 1}}", "{}: 1", "? {}\n: 1"]))
def test_a_name_is_kept_as_it_was_typed(text, form):
    assert core_schema.read(form.format(text)).value == {text: 1}


@given(_scalar, st.sampled_from(["cpu_shares", "vcpu_pinning", "emulator_pinning", "vcpu_quota"]))
def test_an_allocation_is_kept_as_it_was_typed_or_refused(tmp_path_factory, text, key):
    path = tmp_path_factory.getbasetemp() / "property.yaml"
    path.write_text(f"numa_nodes: '0'\n{key}: {text}\n")
    try:
        kept = options.read_allocation(of_file(str(path))).to_json()[key]
    except exception.RequestInvalid as error:
        assert str(error).startswith(f"{path}, line 2: {key}: ")
    else:
        assert ids(kept) == ids(text)


def ids(written):
    """The ids of a pinning, which may have zeros in front, in its order."""
    if isinstance(written, dict):
        written = ":".join(*written.items())
    return [part.lstrip("0") for part in str(written).split(":")]


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('ab0:[]{}#&*!"\\ \t,-\u00fc', max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("a0:<", max_size=3), inner)
    ),
    max_leaves=8,
)


@given(_json)
def test_json_has_the_same_meaning_read_as_yaml(value):
    text = json.dumps(value)
    assert files._value(text) == core_schema.read(text).value == value


def of_file(path):
    given = dict.fromkeys(key.replace("-", "_") for key in options._OPTIONS)
    return argparse.Namespace(file=path, **given)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cpu_shares: 0100", "line 1: cpu_shares: '0100'"),
        ("numa_nodes: '0'\nvcpu_pinning:\n  0: 17:04", "line 3: vcpu_pinning"),
        (
            "cpu_shares: 5\nwindows:\n- name: a\n  start: 0 22 * * *\n  duration_s: 8:00",
            "line 5: windows[0].duration_s: '8:00'",
        ),
        ('{"cpu_shares":\n\t1e2}', "line 2: cpu_shares: '1e2'"),
        ("windows: []\nvcpu_quota: {quota_us: 9999,\n period_us: 1000}", "line 2: vcpu_quota: "),
        ("5", "the allocation: 5"),
    ],
)
def test_a_value_that_is_refused_is_named_with_its_line(written, text, expected):
    path = written(text)
    assert refused(options.read_allocation, of_file(path)).startswith(
        f"{path}{', ' if 'line' in expected else ': '}{expected}"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            f"allocations:\n  {UUID}:\n    cpu_shares: 010",
            f", line 3: allocations.{UUID}: cpu_shares: '010'",
        ),
        (f"{UUID}: {{cpu_shares: 5}}\n0x1F: {{}}", ", line 2: '0x1F' is not an instance UUID"),
        (f"{UUID}: {{cpu_shares: 5}}\nyes: {{}}", ", line 2: 'yes' is not an instance UUID"),
        (
            "allocations: {}\ngeneration: 5",
            ", line 2: unknown field 'generation' beside allocations",
        ),
        ("\nallocations: no", ", line 2: allocations is not an object"),
        ("no", ": the map is not an object"),
        (f"a: &a {{cpu_shares: 017}}\n{UUID}: *a", ", line 1: 'a' is not an instance UUID"),
        (f"{UUID}: &a\n  cpu_shares: 5\n  windows: [{{name: 1}}]", ", line 3: "),
    ],
)
def test_an_entry_of_a_map_that_is_refused_is_named_with_its_line(written, text, expected):
    path = written(text)
    assert refused(map_file.read, path).startswith(f"{path}{expected}")


def test_a_value_that_an_alias_repeats_is_refused_with_the_line_of_the_alias(written):
    other = UUID.replace("5", "6")
    path = written(
        f"{UUID}: {{vcpu_pinning: &a '5'}}\n{other}: {{numa_nodes: '0',\n cpu_shares: *a}}"
    )
    assert refused(map_file.read, path).startswith(f"{path}, line 3: {other}: cpu_shares")


def test_a_fault_in_an_alias_is_reported_with_the_line_of_the_alias(written):
    document = files.load(written("a: &x {b: 1}\nc: *x"))
    for steps, line in ((("a", "b"), 1), (("c", "b"), 2), (("c",), 2)):
        assert str(document.refusal(steps, "why")) == f"{document.path}, line {line}: why"


def test_a_dash_is_the_standard_input_in_utf_8_whatever_the_locale(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO("a: \u00fc".encode()), encoding="latin-1")
    monkeypatch.setattr("sys.stdin", stream)
    assert files.load("-").value == {"a": "\u00fc"}


def test_a_closed_standard_input_is_reported(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    assert "the standard input is closed" in refused(files.load, "-")


def test_a_missing_file_is_reported_with_the_message_of_the_system():
    assert refused(files.load, "/absent") == "/absent can't be read: No such file or directory"


def test_a_folder_is_no_file(tmp_path):
    assert refused(files.load, str(tmp_path)) == f"{tmp_path} can't be read: Is a directory"
