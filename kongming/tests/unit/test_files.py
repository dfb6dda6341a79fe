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
"""Files that an operator wrote, in JSON or YAML."""

import io

import pytest

from kongming import exception
from kongming.manage import files


@pytest.fixture
def load(tmp_path):
    def load(text):
        path = tmp_path / "asked"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return files.load(str(path))

    return load


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a":\t{"0": "5"}}', {"a": {"0": "5"}}),
        ("a: {0: '5'}", {"a": {"0": "5"}}),
        ("a: &a {x: 1, y: 1}\nb: {<<: *a, y: 2}", {"a": {"x": 1, "y": 1}, "b": {"x": 1, "y": 2}}),
        ("", None),
    ],
)
def test_both_forms_are_read(load, text, value):
    assert load(text) == value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: {c: 1,\n c: 2}", "line 2: 'c' is there twice"),
        ('{"a": 1, "a": 2}', "'a' is there twice"),
        ("{0: 1, '0': 2}", "'0' is there twice"),
        ("{[1]: 2}", "is not a name"),
        ("{yes: 2}", "'True' is not a name"),
        ("a: [", "is neither JSON nor YAML: "),
        ("[" * 9999, "is neither JSON nor YAML: "),
        ("x: !!python/name:os.system", "is neither JSON nor YAML: "),
        (b"\xff\xfe\xff", "can't be read: "),
    ],
)
def test_what_can_not_be_meant_is_refused(load, text, says):
    with pytest.raises(exception.RequestInvalid) as refused:
        load(text)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_dash_is_the_standard_input(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("a: 1"))
    assert files.load("-") == {"a": 1}


def test_a_file_that_is_not_there():
    with pytest.raises(exception.RequestInvalid, match="/absent can't be read"):
        files.load("/absent")
