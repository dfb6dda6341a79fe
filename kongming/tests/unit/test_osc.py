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
"""The plug-in of openstackclient, as far as it needs no API: files, what it imports."""

import argparse
import json

from osc_lib import exceptions
import pytest

from kongming import exception
from kongming.osc import columns, host, map_file, plugin

UUIDS = [f"5f0c3b52-6a0e-4c6e-9a5f-0d6a4f0b8c1{n}" for n in range(3)]


@pytest.fixture
def read(tmp_path):
    def read(text):
        path = tmp_path / "map"
        path.write_text(text)
        return map_file.read(str(path))

    return read


@pytest.mark.parametrize("form", ['{{"allocations": {}}}', "{}"])
def test_a_map_has_two_forms(read, form):
    requested = {uuid: {"vcpu_pinning": {"0": "5-6"}} for uuid in UUIDS}
    assert read(form.format(json.dumps(requested))) == requested


def test_a_map_may_be_yaml(read):
    assert read(f"{UUIDS[0]}:\n  vcpu_pinning: {{0: 5-6, 1: '7'}}\n  cpu_shares: 100\n") == {
        UUIDS[0]: {"vcpu_pinning": {"0": "5-6", "1": "7"}, "cpu_shares": 100}
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "the map is not an object"),
        ("allocations: 5", "allocations is not an object"),
        ("allocations: {}\ngeneration: 3", "unknown field 'generation' beside allocations"),
        ("vm1: {}", "'vm1' is not an instance UUID as Nova writes it"),
        (f"{UUIDS[0].upper()}: {{}}", "is not an instance UUID as Nova writes it"),
        (f"allocations: {{{UUIDS[0]}: 5}}", f"allocations.{UUIDS[0]}: the allocation: 5 is not"),
        (
            f"{UUIDS[0]}: {{cpu_shares: 100}}\n{UUIDS[1]}: {{vcpu_pinning: {{0: 6-5}}}}",
            f"{UUIDS[1]}: vcpu_pinning: item '6-5' at position 1 runs backwards",
        ),
        (f"{UUIDS[0]}: {{}}\n{UUIDS[0]}: {{}}", f"'{UUIDS[0]}' is repeated"),
    ],
)
def test_a_wrong_map_is_refused_with_the_place(read, text, expected):
    with pytest.raises(exception.RequestInvalid) as refused:
        read(text)
    assert expected in str(refused.value)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.9, "59 s"), (60, "1 min"), (7300, "2 h"), (1e6, "11 d")]
)
def test_ages(seconds, text):
    assert host.age(seconds) == text


def test_an_allocation_reads_well():
    assert columns.Desired({"cpu_shares": 5}).human_readable() == "cpu-shares=5"
    assert columns.Desired(None).human_readable() == "(its baseline)"


@pytest.mark.parametrize("version", ["1", "1.0", "1.17"])
def test_versions(version):
    assert plugin.check_api_version(version)


@pytest.mark.parametrize("version", ["2", "1.", "latest", "", "1.0\n"])
def test_no_versions(version):
    with pytest.raises(exceptions.CommandError, match="os-kongming-api-version"):
        plugin.check_api_version(version)


def test_the_endpoint_may_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("OS_KONGMING_ENDPOINT_OVERRIDE", "http://here")
    parser = plugin.build_option_parser(argparse.ArgumentParser())
    assert parser.parse_args([]).os_kongming_endpoint_override == "http://here"
