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

"""What is logged: text of others is escaped, for each logger and each formatter."""

import importlib
from importlib.metadata import entry_points
import io
import logging

from oslo_config import cfg
from oslo_log import formatters, log
import pytest

from kongming import exception
from kongming.runtime import log_record
from kongming.runtime.escaping import escape, escape_all

ESC, RTL, NEL, LS, LONE = "\x1b[31m", "\u202e", "\x85", "\u2028", "\udc80"
FORGED = "\n2026-01-01 00:00:00.000 1 CRITICAL kongming [-] forged"
EVIL = [FORGED, ESC, RTL, NEL, LS, LONE, "\r", "\x00", "\x7f", "\u2029", "\u2066", "\ufeff"]


@pytest.fixture(params=["python", "oslo"])
def logged(request):
    """What a logger writes, as a list of lines, by Python's own formatter and by oslo.log's."""
    conf = cfg.ConfigOpts()
    log.register_options(conf)
    conf([], project="test", default_config_files=[], default_config_dirs=[])
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    if request.param == "oslo":
        handler.setFormatter(formatters.ContextFormatter(config=conf))
    else:
        handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger = logging.getLogger("kongming.test")
    logger.addHandler(handler)
    logger.propagate = False
    before = logging.getLogRecordFactory()
    log_record.install()
    yield logger, lambda: stream.getvalue().rstrip("\n").split("\n")
    logging.setLogRecordFactory(before)
    logger.removeHandler(handler)
    logger.propagate = True


@pytest.mark.parametrize("evil", EVIL)
def test_an_argument_of_a_message_can_not_forge_a_line(logged, evil):
    logger, lines = logged
    logger.error("%s failed", f"a{evil}b")
    (line,) = lines()
    assert line.isprintable()
    assert f"a{escape(evil)}b failed" in line


def test_a_message_without_arguments_is_escaped_too(logged):
    logger, lines = logged
    logger.warning(f"100 %{FORGED}")  # noqa: G004
    (line,) = lines()
    assert "100 %\\n2026" in line


def _raise(text):
    try:
        raise LookupError("the first" + text)
    except LookupError as error:
        raise RuntimeError(f"a{text}b") from error


@pytest.mark.parametrize("evil", EVIL)
def test_the_texts_of_exceptions_in_a_traceback_are_escaped(logged, evil):
    logger, lines = logged
    try:
        _raise(evil)
    except RuntimeError:
        logger.exception("A fault")
    written = lines()
    assert all(line.isprintable() for line in written)
    assert sum(f"RuntimeError: a{escape(evil)}b" in line for line in written) >= 1
    assert sum(f"LookupError: the first{escape(evil)}" in line for line in written) == 1
    assert not [line for line in written if line.startswith(("2026-01-01", "forged"))]


def test_the_lines_of_a_traceback_stay_lines(logged):
    logger, lines = logged
    try:
        _raise("")
    except RuntimeError:
        logger.exception("A fault")
    written = lines()
    assert len(written) > 8
    assert any("The above exception was the direct cause" in line for line in written)
    assert any(line.endswith("in _raise") for line in written)


def test_an_exception_that_can_not_be_printed_is_still_logged(logged):
    class Unprintable(Exception):
        def __str__(self):
            raise ValueError("no")

    logger, lines = logged
    try:
        raise Unprintable from KeyError("x\n")
    except Unprintable:
        logger.exception("A fault")
    assert any("KeyError: 'x\\n'" in line for line in lines())


def test_exceptions_that_are_plain_are_handed_on_as_they_are():
    error = ValueError("plain")
    error.__context__ = error.__cause__ = KeyError("x")
    record = log_record.EscapedRecord(
        "x", 40, "f", 1, "m", (), (ValueError, error, None), None, None
    )
    assert record.exc_info == (ValueError, error, None)


def test_the_requester_is_escaped_where_a_format_shows_it():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(user_identity)s|%(color)s|%(message)s"))
    record = log_record.EscapedRecord("x", 40, "f", 1, "m", (), None, None, None)
    record.user_identity = "a" + FORGED
    record.color = ESC
    handler.emit(record)
    assert stream.getvalue() == f"a{escape(FORGED)}|{ESC}|m\n"


def test_printable_text_of_any_language_is_unchanged():
    assert escape("实例 5-7 → Zürich ¼ 🙂") == "实例 5-7 → Zürich ¼ 🙂"


def test_marked_text_is_kept():
    assert escape("a\nb\tc", keep="\n") == "a\nb\\tc"


def test_only_the_texts_of_data_are_escaped():
    data = {"a\n": ["b\x1b", 1, None, 2.5, True, {"c": "d"}]}
    assert escape_all(data) == {"a\\n": ["b\\x1b", 1, None, 2.5, True, {"c": "d"}]}


def test_every_program_logs_escaped_text():
    programs = entry_points(group="console_scripts")
    modules = {each.module for each in programs if each.module.startswith("kongming.")}
    assert len(modules) == 5
    assert all(each.startswith("kongming.cmd.") for each in modules)
    importlib.import_module("kongming.cmd")
    assert logging.getLogRecordFactory() is log_record.EscapedRecord


def test_an_exception_that_is_being_handled_is_logged_once(logged):
    logger, lines = logged
    try:
        raise exception.StepFailed("libvirt error 38")
    except exception.StepFailed as error:
        logger.error("Instance a: failed: %s", error)
        logger.warning("Instance a: looked at again")
    failed, again = lines()
    assert failed.count("libvirt error 38") == 1
    assert "StepFailed" not in failed
    assert again.endswith("Instance a: looked at again")


def test_a_fault_is_logged_with_its_traceback(logged):
    logger, lines = logged
    try:
        raise exception.StepFailed("libvirt error 38")
    except exception.StepFailed:
        logger.exception("A fault of Kongming")
    assert "A fault of Kongming" in lines()[0]
    assert any(line.endswith("StepFailed: libvirt error 38") for line in lines()[1:])
