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

"""What tests send to the API, and how they read its refusals."""

from collections import Counter

from kongming.db.values import Location
from kongming.tests.databases import instance

ALLOCATIONS = "/v1/allocations"
MAPS = "/v1/allocation-maps"
HOSTS = "/v1/hosts"
PROJECT = "0f2b9b9e3d1c4c4e8f3a7d5b6c1e2f30"
PIN = {"vcpu_pinning": "1"}


def place(api, host, *numbers, project_id=PROJECT):
    api.allocations.locate({instance(number): Location(project_id, host) for number in numbers})


def refused(answer, status, code):
    """Check that an answer is this error, in the common form; return its detail."""
    assert answer.status == status, answer
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.data.isascii()
    assert list(answer.body) == ["errors"]
    assert answer.error.keys() == {"status", "code", "title", "detail", "request_id"}
    assert (answer.error["status"], answer.error["code"]) == (status, code)
    assert answer.error["request_id"] == answer.headers["x-openstack-request-id"]
    assert answer.error["title"]
    assert answer.error["detail"]
    assert "\n" not in answer.error["detail"]
    assert len(answer.error["detail"]) < 500
    return answer.error["detail"]


def codes(answers):
    """Count the statuses, and the codes of errors."""
    return Counter(
        answer.status if answer.status < 400 else answer.body["errors"][0]["code"]
        for answer in answers
    )
