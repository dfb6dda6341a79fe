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

"""What commands show: the text of others is escaped, but in JSON and YAML, which escape it."""

from contextlib import closing, nullcontext
import csv
from importlib.metadata import entry_points
import io
import json
import subprocess
from types import SimpleNamespace

from cliff.display import DisplayCommandBase
import pytest
import yaml

from kongming.allocation.allocation import Allocation
from kongming.allocation.request import Request, Source
from kongming.client import progress, responses
from kongming.executor.store.store import Store
from kongming.manage import state
from kongming.manage.allocation import AllocationList
from kongming.osc import columns as osc_columns
from kongming.osc import waiting
from kongming.runtime.escaping import escape
from kongming.terminal import columns, host_snapshot
from kongming.terminal.output import EscapedOutput, Lister, ShowOne

EVIL = "a\n| forged |\r\x1b[2J\u202eb\u2028\x85\udc80"
SHOWN = r"a\n| forged |\r\x1b[2J\u202eb\u2028\x85\udc80"
UUID = "5a6e9b1e-0000-4000-8000-000000000001"
# What a shell would carry out if it read the output.
COMMANDS = 'x$(echo run)`echo run`"; echo run; "\\'


class Row(Lister):
    """A command whose row holds the text of others."""

    cell = EVIL

    def take_action(self, parsed_args):
        return ("name", "parts"), [(self.cell, osc_columns.Counts({self.cell: 1})), ("z", "")]


class Field(ShowOne):
    """A command whose field holds it."""

    cell = EVIL

    def take_action(self, parsed_args):
        return ("name", "parts"), (self.cell, osc_columns.Counts({self.cell: 1}))


def written(kind, *arguments):
    app = SimpleNamespace(stdout=io.StringIO())
    command = kind(app, None)
    assert command.run(command.get_parser("x").parse_args(arguments)) == 0
    return app.stdout.getvalue()


class Nothing(Lister):
    """A command that has found no rows."""

    empty = "no host is known"

    def take_action(self, parsed_args):
        return ("name",), iter(())


@pytest.mark.parametrize("stderr", [io.StringIO, lambda: None])
def test_an_empty_table_says_so_on_the_standard_error(stderr):
    app = SimpleNamespace(stdout=io.StringIO(), stderr=stderr())
    command = Nothing(app, None)
    assert command.run(command.get_parser("x").parse_args([])) == 0
    assert app.stdout.getvalue() == ""
    assert app.stderr is None or app.stderr.getvalue() == "no host is known\n"


@pytest.mark.parametrize(("form", "text"), [("json", "[]\n"), ("yaml", "[]\n"), ("value", "")])
def test_an_empty_list_for_programs_has_no_message(form, text):
    app = SimpleNamespace(stdout=io.StringIO(), stderr=io.StringIO())
    command = Nothing(app, None)
    assert command.run(command.get_parser("x").parse_args(["-f", form])) == 0
    assert (app.stdout.getvalue(), app.stderr.getvalue()) == (text, "")


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        *((kind, form) for kind in (Row, Field) for form in ("table", "value")),
        (Row, "csv"),
        (Field, "shell"),
    ],
)
def test_no_foreign_text_controls_a_terminal(kind, form):
    text = written(kind, "-f", form)
    lines = text.removesuffix("\n").split("\n")
    assert all(line.isprintable() for line in lines)
    assert not [line for line in lines if line.startswith(("| forged", "forged"))]
    # These two have a backslash of their own before each backslash.
    assert (SHOWN.replace("\\", "\\\\") if form in ("csv", "shell") else SHOWN) in text


def test_the_cells_of_csv_are_still_read_as_they_are_shown():
    rows = list(csv.reader(io.StringIO(written(Row, "-f", "csv")), escapechar="\\"))
    assert rows[1][0] == SHOWN
    assert len(rows) == 3


@pytest.mark.parametrize(("form", "load"), [("json", json.loads), ("yaml", yaml.safe_load)])
@pytest.mark.parametrize("kind", [Row, Field])
def test_data_for_programs_stays_exact(kind, form, load):
    found = load(written(kind, "-f", form, "-c", "name"))
    name = (found[0] if kind is Row else found)["name"]
    assert name.encode("utf-16", "surrogatepass") == EVIL.encode("utf-16", "surrogatepass")


class Unclaimed(AllocationList):
    """A host with one guest that nothing is known of."""

    def _touched(self):
        return [UUID]


@pytest.mark.parametrize(
    ("form", "shown"), [("table", "(nothing)"), ("value", "{}"), ("json", '"requested": {}')]
)
def test_an_unknown_guest_has_an_empty_request(tmp_path, monkeypatch, form, shown):
    with closing(Store(tmp_path)) as store:
        monkeypatch.setattr(state, "opened_store", lambda _command: nullcontext(store))
        listed = written(Unclaimed, "-f", form)
    assert UUID in listed
    assert shown in listed
    assert "can't be read" not in listed


@pytest.mark.parametrize(
    ("requested", "shown", "read"),
    [
        (None, "(can't be read)", None),
        (Allocation(), "(nothing)", {}),
        (Allocation.from_json({"cpu_shares": 5}), "cpu-shares=5", {"cpu_shares": 5}),
    ],
)
def test_a_request_is_distinguished_from_an_unreadable_one(requested, shown, read):
    column = columns.Requested(requested)
    assert column.human_readable() == shown
    assert column.machine_readable() == read


def test_a_shell_that_reads_the_output_executes_no_value(monkeypatch):
    monkeypatch.setattr(Field, "cell", COMMANDS)
    script = written(Field, "-f", "shell", "-c", "name") + 'printf %s "$name"'
    ended = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout == COMMANDS
    assert "run" not in written(Field, "-f", "shell").replace("echo run", "")


class Mixed(Lister):
    """A command whose columns hold all kinds of values."""

    def take_action(self, parsed_args):
        return ("name", "some part", "flag"), [
            ("b", 10, True),
            ("", osc_columns.Unknown(None), None),
            (osc_columns.Unknown(None), osc_columns.Counts({"a": 1}), False),
            ("a", 9, [1, "x"]),
            ("c", "text", {"k": None}),
        ]


@pytest.mark.parametrize(
    ("arguments", "places"),
    [
        (("--sort-column", "name"), [1, 3, 0, 4, 2]),
        (("--sort-column", "name", "--sort-descending"), [2, 4, 0, 3, 1]),
        (("--sort-column", "Some Part"), [3, 0, 4, 2, 1]),
        (("--sort-column", "some_part"), [3, 0, 4, 2, 1]),
        (("--sort-column", "flag", "--sort-column", "name"), [2, 0, 3, 4, 1]),
        (("--sort-column", "absent"), [0, 1, 2, 3, 4]),
    ],
    ids=str,
)
def test_rows_are_sorted_whatever_their_cells_contain(arguments, places, caplog):
    unsorted = json.loads(written(Mixed, "-f", "json"))
    assert json.loads(written(Mixed, "-f", "json", *arguments)) == [unsorted[n] for n in places]
    lines = written(Mixed, "-f", "value").splitlines()
    assert written(Mixed, "-f", "value", *arguments).splitlines() == [lines[n] for n in places]
    assert not [each for each in caplog.records if "sort" in each.getMessage()]


def test_cells_for_programs_hold_json():
    rows = list(csv.reader(io.StringIO(written(Mixed, "-f", "csv")), escapechar="\\"))
    assert rows[1:] == [
        ["b", "10", "true"],
        ["", "null", "null"],
        ["null", '{"a": 1}', "false"],
        ["a", "9", '[1, "x"]'],
        ["c", "text", '{"k": null}'],
    ]
    assert written(Mixed, "-f", "value").splitlines()[3] == 'a 9 [1, "x"]'


class Named(Lister):
    """A command with names as the API has them."""

    def take_action(self, parsed_args):
        return ("instance_uuid", "request_id", "age_s", "to"), [("a", "b", 4, "c")]


def headings(*arguments):
    line = written(Named, *arguments).splitlines()[1]
    return [each.strip() for each in line.strip("|").split("|")]


def test_a_table_has_headings_for_people():
    assert headings("-f", "table") == ["Instance UUID", "Request ID", "Age (s)", "To"]


@pytest.mark.parametrize("form", ["json", "yaml", "csv"])
def test_other_formats_have_names_for_programs(form):
    text = written(Named, "-f", form)
    assert all(name in text for name in ("instance_uuid", "request_id", "age_s"))
    assert "Instance UUID" not in text


@pytest.mark.parametrize("name", ["age_s", "AGE_S", "Age (s)"])
def test_a_column_is_selected_by_its_name_or_its_heading(name):
    assert headings("-f", "table", "-c", name, "-c", "instance_uuid") == [
        "Instance UUID",
        "Age (s)",
    ]


def test_a_field_keeps_its_name_in_a_table():
    assert "| name " in written(Field, "-f", "table")


@pytest.mark.parametrize("text", ["\u8bf8\u845b", EVIL.replace("\udc80", "")])
def test_json_in_a_cell_is_read_back(text):
    class One(ShowOne):
        def take_action(self, parsed_args):
            return ("parts",), (osc_columns.Counts({text: 1}),)

    cell = written(One, "-f", "value").removesuffix("\n")
    assert cell.isprintable()
    assert json.loads(cell) == {text: 1}


def test_every_command_uses_these_formatters():
    groups = ("kongming.manage", "openstack.kongming.v1")
    commands = [each.load() for group in groups for each in entry_points(group=group)]
    assert len(commands) > 25
    shown = [command for command in commands if issubclass(command, DisplayCommandBase)]
    assert all(issubclass(command, EscapedOutput) for command in shown)


def test_a_requester_forges_no_line_among_the_requests():
    request = Request(Source.METADATA, None, f"user {EVIL}", 0.0)
    (line,) = columns.Requests([request]).human_readable().split("\n")
    assert line == f"metadata: user {SHOWN}, 1970-01-01T00:00:00Z"
    assert columns.Requests([request]).machine_readable()[0]["requested_by"] == f"user {EVIL}"


GUEST = {
    "instance_uuid": "5f0c3b52-6a0e-4c6e-9a5f-0d6a4f0b8c11",
    "name": EVIL,
    "nova": False,
    "has_baseline": False,
    "vcpus": 1,
    "pins": {},
    "cpuset": None,
    "memory_nodes": None,
}
VIEW = {
    "cells": [],
    "unassigned_cpus": [],
    "guests": [GUEST],
    "rules": {"allowed_projects": [EVIL]},
    "violations": [{"kind": EVIL, "message": EVIL}],
}


@pytest.mark.parametrize("column", ["guests", "rules", "violations"])
def test_no_name_of_a_domain_forges_a_line_of_a_host(column):
    forging = [
        line
        for line in host_snapshot.columns(VIEW)[column].human_readable().split("\n")
        if "forged" in line
    ]
    assert len(forging) == 1
    assert forging[0].isprintable()
    assert not forging[0].startswith(("| forged", "forged"))


def test_no_message_of_a_host_forges_a_line_among_outcomes():
    outcome = {
        "instance_uuid": "x",
        "status": "failed",
        "reason": "r",
        "message": EVIL,
        "host": EVIL,
    }
    (line,) = osc_columns.Outcomes([outcome]).human_readable().split("\n")
    assert line == f"x on {SHOWN}: failed (r): {SHOWN}"
    (line,) = osc_columns.Missing([{**outcome, "reason": EVIL}]).human_readable().split("\n")
    assert line == f"x: failed ({SHOWN})"


def test_no_message_of_a_host_forges_a_line_while_waiting():
    stderr = io.StringIO()
    outcome = {"instance_uuid": "x", "status": "failed", "reason": "r", "message": EVIL}
    waiting.print_undone(waiting.Messages(stderr), progress.Progress([outcome], ""))
    assert stderr.getvalue() == f"x: failed (r): {SHOWN}\n"


class Answer:
    status_code = 503
    url = f"http://api/{EVIL}"
    headers = {"Retry-After": EVIL}  # noqa: RUF012

    def __init__(self, body):
        self._body = body

    def json(self):
        if self._body is None:
            raise ValueError
        return self._body


@pytest.mark.parametrize(
    "body", [None, {"errors": [{"code": "x", "detail": EVIL, "request_id": EVIL}]}]
)
def test_an_error_of_the_api_or_of_a_proxy_is_escaped(body):
    error = responses.of_answer(Answer(body))
    assert str(error).isprintable()
    assert SHOWN in str(error)
    assert error.retry_after == 0
    assert str(responses.Fault(EVIL)) == SHOWN


def test_escaped_text_is_not_escaped_twice():
    assert escape(SHOWN) == SHOWN
