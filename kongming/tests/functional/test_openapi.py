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

"""The OpenAPI document, and whether the API keeps to it: schemathesis sends whatever it allows."""

import time

import hypothesis
from openapi_spec_validator import OpenAPIV31SpecValidator
import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig

from kongming.api import openapi
from kongming.api.resources import RESOURCES
from kongming.db.values import Location
from kongming.tests.api import Api
from kongming.tests.databases import BY, asking, instance, report

PLAN = {
    "host": "compute-1",
    "outcome": "planned",
    "reason": "",
    "message": "",
    "warnings": [],
    "steps": [{"target": "vCPU 0", "from": "0-7", "to": "5", "grant": "0-7"}],
}
CONFIG = {
    "generation": {
        "deterministic": True,
        "database": "none",
        # There is no authentication here.
        "with-security-parameters": False,
    },
    "phases": {"stateful": {"enabled": False}},
    "checks": {
        "ignored_auth": {"enabled": False},
        # A schema can't distinguish CPU sets, cron expressions and time zones from other text.
        "positive_data_acceptance": {"enabled": False},
    },
}


class Local:
    """The application, as soon as there is one, for requests from this machine."""

    application = None

    def __call__(self, environ, start_response):
        return self.application({**environ, "REMOTE_ADDR": "127.0.0.1"}, start_response)


SCHEMA = schemathesis.openapi.from_dict(
    openapi.build(RESOURCES), config=SchemathesisConfig.from_dict(CONFIG)
)
SCHEMA.app = Local()


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    """The API; its database has what the document's examples may meet."""
    api = Api(tmp_path_factory.mktemp("api"))
    api.conductor.answer = PLAN
    uuids = [instance(number) for number in range(4)]
    for uuid in uuids:
        api.allocations.put(uuid, asking(1), generation=None, **BY)
    api.allocations.locate({uuid: Location("project", "compute-1") for uuid in uuids})
    now = time.time()
    api.hosts.heartbeat("compute-1", started_at=now, version="1", interval_s=10, now=now)
    api.hosts.keep_snapshot("compute-1", {"guests": [], "violations": []}, "digest", now)
    api.allocations.report("compute-1", [report(uuids[0], status="drifted", drift="x")], now)
    requested = {instance(number): asking(2) for number in range(10, 14)}
    api.allocations.put_map("blue", requested, generation=None, **BY)
    return api


@pytest.fixture(scope="module")
def served(api):
    SCHEMA.app.application = api.application


@SCHEMA.parametrize()
@hypothesis.settings(max_examples=25, derandomize=True, database=None)
def test_the_api_conforms_to_the_document(served, case):
    case.call_and_validate()


def test_the_document_is_valid():
    OpenAPIV31SpecValidator(openapi.build(RESOURCES)).validate()


def test_all_errors_have_one_form(api):
    document = api.get("/openapi.json")
    for path in document["paths"].values():
        for name, operation in path.items():
            if name == "parameters":
                continue
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    content = answer["content"]["application/json"]
                    assert content == {"schema": {"$ref": "#/components/schemas/Errors"}}
