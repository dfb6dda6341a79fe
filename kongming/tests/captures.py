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

"""The captured notifications of a running Nova, as the tests read them."""

from collections.abc import Iterator
import json
from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).parent / "data" / "nova-34.0.0"

STEPS = sorted(path.name.removesuffix(".jsonl") for path in DIRECTORY.glob("*.jsonl"))


def bodies(step: str, topic: str = "versioned_notifications") -> Iterator[dict[str, Any]]:
    """Give the AMQP bodies of one step that were published at priority info."""
    for line in (DIRECTORY / f"{step}.jsonl").read_text().splitlines():
        captured = json.loads(line)
        if captured["routing_key"] == f"{topic}.info":
            yield captured["body"]


def messages(step: str, topic: str = "versioned_notifications") -> Iterator[dict[str, Any]]:
    """Give the notifications of one step, unpacked as oslo.messaging does."""
    for body in bodies(step, topic):
        yield json.loads(body["oslo.message"])


def message(step: str, event_type: str) -> dict[str, Any]:
    """Give the last notification of one step that has this event type."""
    return [m for m in messages(step) if m["event_type"] == event_type][-1]
