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

"""The parameters of a path: each accepts the values that it documents, and no others."""

from falcon import testing
import jsonschema
import pytest

from kongming import exception
from kongming.allocation.statuses import LISTED
from kongming.api import operation
from kongming.api.operation import Operation, Resource

UUID = "5a6e9b1e-0000-4000-8000-000000000001"
MOST = 2**63 - 1
QUERY = (operation.LIMIT, operation.OF_HOST, operation.DRY_RUN)


@pytest.mark.parametrize(
    ("parameter", "taken", "refused"),
    [
        (operation.INSTANCE_UUID, [UUID], [UUID.upper(), UUID[:-1], f"{UUID}0", f"{UUID}\n", ""]),
        (operation.NAME, ["a", "0_.-", "a" * 255], ["", "-a", ".a", "a" * 256, "a\n", "ä", "a:"]),
        (
            operation.HOST,
            ["a", "_:b.c-d_e", ":" + "a" * 254],
            ["", "-a", "a" * 256, "a\n", "a b", "ä"],
        ),
        (operation.OF_PROJECT, ["-_a0", "a" * 64], ["", "a" * 65, "a.b", "a\n"]),
        (operation.OF_STATUS, list(LISTED), ["", "Pending", "pending\n", "gone", "released"]),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_text_is_accepted_as_its_pattern_requires(parameter, taken, refused):
    schema = jsonschema.Draft202012Validator(parameter.schema)
    for text in taken:
        assert parameter.value(text) == text
        assert schema.is_valid(text)
    for text in refused:
        with pytest.raises(exception.RequestInvalid, match=f"^{parameter.name} .* is not "):
            parameter.value(text)
        assert not schema.is_valid(text)


@pytest.mark.parametrize(
    ("parameter", "least", "most"),
    [
        (operation.GENERATION, 0, 2**31 - 1),
        (operation.LIMIT, 1, MOST),
        (operation.AFTER_CHANGE, 0, MOST),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_number_is_whole_and_within_its_bounds(parameter, least, most):
    for number in (least, most):
        assert parameter.value(str(number)) == number
    expected = f"^{parameter.name} .* is not a whole number from {least} to {most}"
    for text in (str(least - 1), str(most + 1), "", "1.0", "+1", " 1", "1\n", "٣", "1" * 20):
        with pytest.raises(exception.RequestInvalid, match=expected):
            parameter.value(text)
    assert (parameter.schema["minimum"], parameter.schema["maximum"]) == (least, most)


def test_a_boolean_is_one_of_two_words():
    assert [operation.DRY_RUN.value(text) for text in ("true", "false")] == [True, False]
    for text in ("True", "1", "", "yes"):
        with pytest.raises(exception.RequestInvalid, match="is not true or false"):
            operation.DRY_RUN.value(text)


def test_a_query_has_known_parameters_each_at_most_once():
    def read(query, known=QUERY):
        return Operation("", {}, known).read_query(testing.create_req(query_string=query))

    assert read("") == {}
    assert read("limit=5&dry_run=false") == {"limit": 5, "dry_run": False}
    for query, known, expected in (
        ("x=1", QUERY, "unknown parameter 'x'; known: dry_run, host, limit"),
        ("x=1", (), "known: none"),
        ("limit=1&limit=1", QUERY, "limit is given more than once"),
        ("limit=0", QUERY, "limit '0' is not a whole number"),
    ):
        with pytest.raises(exception.RequestInvalid) as refusal:
            read(query, known)
        assert expected in str(refusal.value)


def test_head_is_answered_where_get_is():
    class Readable(Resource):
        def on_get(self):
            return "got"

    class Writable(Resource):
        def on_put(self):
            return "put"

    assert Readable().on_head() == "got"
    assert not hasattr(Writable, "on_head")
