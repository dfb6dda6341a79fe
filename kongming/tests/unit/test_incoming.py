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

"""Messages as they come: oslo.messaging's are read, and none costs more than its length."""

import bz2
import json
import lzma
import tracemalloc
import zlib

import amqp
from kombu import compression, serialization
from kombu.transport import pyamqp
import pytest

from kongming.bus import incoming
from kongming.bus.incoming import LENGTH_MAX, Incoming, Unreadable

JSON = "application/json"
GZIP, BZ2 = "application/x-gzip", "application/x-bz2"


def message(body, content_type=JSON, encoding="utf-8", **headers):
    options = {"content_type": content_type, "content_encoding": encoding}
    return Incoming(delivered(body, application_headers=headers, **options))


def delivered(body, **properties):
    came = amqp.Message(body, **properties)
    came.delivery_info = {"delivery_tag": 1}
    return came


@pytest.mark.parametrize("compressed", [None, "gzip", "bzip2"])
def test_a_message_of_oslo_messaging_is_read(compressed):
    payload = {"oslo.version": "2.0", "oslo.message": '{"a": "ä"}'}
    content_type, encoding, body = serialization.dumps(payload, serializer="json")
    headers = {}
    if compressed:
        body, headers["compression"] = compression.compress(body, compressed)
    assert message(body, content_type, encoding, **headers).payload == payload


@pytest.mark.parametrize(("compress", "kind"), [(zlib.compress, GZIP), (bz2.compress, BZ2)])
def test_a_body_that_expands_too_much_is_not_unpacked(compress, kind, monkeypatch):
    # It takes long to pack what is packed for the usual limit.
    limit = LENGTH_MAX // 8
    monkeypatch.setattr(incoming, "LENGTH_MAX", limit)
    packed = compress(b'"' + bytes(6 * limit) + b'"')
    assert len(packed) < limit
    tracemalloc.start()
    with pytest.raises(Unreadable, match="longer than"):
        _ = message(packed, compression=kind).payload
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * limit


@pytest.mark.parametrize("more", [0, 1])
@pytest.mark.parametrize("packed", [False, True])
def test_length_is_bounded(more, packed):
    body = json.dumps("x" * (LENGTH_MAX - 2 + more)).encode()
    assert len(body) == LENGTH_MAX + more
    headers = {"compression": GZIP} if packed else {}
    came = message(zlib.compress(body) if packed else body, **headers)
    if more:
        with pytest.raises(Unreadable, match="longer than"):
            _ = came.payload
    else:
        assert len(came.payload) == LENGTH_MAX - 2


@pytest.mark.parametrize(
    ("content_type", "encoding"),
    [
        # Quadratic, and one that unpacks.
        ("text/plain", "punycode"),
        ("text/plain", "zlib_codec"),
        ("application/text", "utf-8"),
        ("application/x-yaml", "utf-8"),
        (None, "utf-8"),
    ],
)
def test_a_body_that_is_not_json_is_not_decoded(content_type, encoding):
    with pytest.raises(Unreadable, match="not JSON"):
        _ = message(b"{}", content_type, encoding).payload


@pytest.mark.parametrize("encoding", ["punycode", "zlib_codec", "none at all"])
def test_json_has_one_encoding_only(encoding):
    assert message(b'"\xc3\xa4"', JSON, encoding).payload == "ä"


@pytest.mark.parametrize("kind", ["application/x-lzma", "application/zstd", "x", 1])
def test_a_body_of_another_compression_is_not_unpacked(kind):
    with pytest.raises(Unreadable, match="compression is unknown"):
        _ = message(lzma.compress(b"{}"), compression=kind).payload


def test_all_messages_of_a_process_are_read_with_these_checks(monkeypatch):
    monkeypatch.setattr(pyamqp.Channel, "Message", pyamqp.Message)
    incoming.read_bounded()
    channel = pyamqp.Channel.__new__(pyamqp.Channel)
    assert isinstance(channel.message_to_python(delivered(b"{}")), Incoming)
