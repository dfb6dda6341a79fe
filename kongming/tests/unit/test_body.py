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


"""The body of a request: what is read, and what is refused, to the byte."""

import io

from falcon import testing
import pytest

from kongming import exception
from kongming.api import errors
from kongming.api.body import MAX_DEPTH, BodyReader
from kongming.api.operation import GENERATION_MAX

SIZE = 100_000
JSON = "application/json"


def read(data, content_type=JSON, size=SIZE, **environ):
    """Read a request with a body; headers are given as WSGI has them."""
    request = testing.create_req(method="PUT", body=data, headers={"Content-Type": content_type})
    request.env.update(environ)
    return BodyReader(size).read(request, "it", lambda value: value)


def refused(data, kind=exception.RequestInvalid, **options):
    with pytest.raises(kind) as refusal:
        read(data, **options)
    return str(refusal.value)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        ('{"it": 1}', (1, None)),
        ('\ufeff{"it": null, "generation": null}', (None, None)),
        ('{"it": [1e3, -2.0, 1.5], "generation": 0}', ([1000, -2, 1.5], 0)),
        (f'{{"it": true, "generation": {GENERATION_MAX}}}', (True, GENERATION_MAX)),
        ('{"it": {"a": {"a": 1}, "b": [{"a": 1}]}}', ({"a": {"a": 1}, "b": [{"a": 1}]}, None)),
    ],
)
def test_a_body_is_its_field_and_the_expected_generation(data, value):
    found = read(data)
    assert found == value
    assert repr(found) == repr(value)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("", "the body is not JSON: "),
        ("{} {}", "the body is not JSON: Extra data"),
        (b'{"it": "\xff"}', "byte 9 is not valid UTF-8"),
        ('{"it": NaN}', "NaN is not a JSON number"),
        ('{"it": ' + "9" * 5000 + "}", "the body is not JSON: Exceeds the limit"),
        ('{"it": 1, "it": 1}', "the body has the field 'it' twice"),
        ('{"it": {"a": 1, "a": 1}}', "the body has the field 'a' twice"),
        ("[]", "not a JSON object with the field it"),
        ("{}", "the body lacks the field it"),
        ('{"generation": 1}', "the body lacks the field it"),
        ('{"it": 1, "b": 1, "a": 1}', "unknown field 'a'; known fields: it, generation"),
        ('{"it": 1, "generation": -1}', "a whole number from 0 to"),
        ('{"it": 1, "generation": true}', "a whole number from 0 to"),
        ('{"it": 1, "generation": "1"}', "a whole number from 0 to"),
        (f'{{"it": 1, "generation": {GENERATION_MAX + 1}}}', f"from 0 to {GENERATION_MAX}"),
        ('{"it":' * 20_000 + "1" + "}" * 20_000, "nested too deeply"),
    ],
)
def test_an_invalid_body_is_refused_with_its_fault(data, expected):
    assert expected in refused(data, size=1_000_000)


def test_all_problems_of_a_body_are_named():
    with pytest.raises(errors.BodyInvalid) as refusal:
        read('{"b": 1, "a": 1, "generation": -1}')
    words = ("field 'a'", "field 'b'", "generation is not", "lacks the field it")
    for detail, expected in zip(refusal.value.details, words, strict=True):
        assert expected in detail


@pytest.mark.parametrize(("open_", "close"), [("[", "]"), ('{"a":', "}")])
def test_a_body_may_be_as_deep_as_the_limit_and_no_deeper(open_, close):
    def body(levels):
        inner = levels - 1
        return '{"it":' + open_ * inner + "1" + close * inner + "}"

    read(body(MAX_DEPTH - 1))
    assert f"deeper than {MAX_DEPTH} levels" in refused(body(MAX_DEPTH))


@pytest.mark.parametrize(
    ("kind", "environ", "refusal"),
    [
        (JSON, {}, None),
        ("Application/JSON ; charset=UTF-8", {}, None),
        ('application/json; version="1"; charset="utf8"', {}, None),
        (JSON, {"HTTP_CONTENT_ENCODING": " Identity "}, None),
        ("", {}, errors.ContentTypeUnsupported),
        ("text/plain", {}, errors.ContentTypeUnsupported),
        ("application/json; CHARSET=latin-1; a=b", {}, errors.ContentTypeUnsupported),
        (JSON, {"HTTP_CONTENT_ENCODING": "gzip"}, errors.BodyEncoded),
    ],
)
def test_a_body_is_json_in_utf_8_that_is_not_compressed(kind, environ, refusal):
    if refusal is None:
        assert read('{"it": 1}', kind, **environ) == (1, None)
    else:
        refused('{"it": 1}', refusal, content_type=kind, **environ)


def test_a_body_may_be_as_long_as_the_limit_and_no_longer():
    data = b'{"it": 1}'
    unknown = {"CONTENT_LENGTH": "", "HTTP_TRANSFER_ENCODING": "chunked"}
    ended = {**unknown, "wsgi.input_terminated": True}
    for environ in ({}, ended):
        assert read(data.ljust(64), size=64, **environ) == (1, None)
        assert "longer than 64 bytes" in refused(
            data.ljust(65), errors.BodyTooLarge, size=64, **environ
        )
    assert "Content-Length" in refused(data, errors.LengthRequired, **unknown)
    assert "not JSON" in refused(data, CONTENT_LENGTH="")


@pytest.mark.parametrize(("sent", "taken"), [(65, 65), (64 * 4, 64 * 4), (64 * 9, 64 * 4)])
def test_a_body_that_is_too_long_is_read_only_up_to_a_bound(sent, taken):
    stream = io.BytesIO(bytes(1000))
    environ = {"wsgi.input": stream, "CONTENT_LENGTH": str(sent)}
    refused(b"", errors.BodyTooLarge, size=64, **environ)
    assert stream.tell() == taken
