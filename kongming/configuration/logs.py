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

"""The check of the log options: oslo.log finds problems only when it applies them."""

from __future__ import annotations

from collections.abc import Iterator
import configparser
import importlib.util
import logging
import os
from pathlib import Path
import re
import subprocess
import sys
from typing import Any

from oslo_config import cfg
from oslo_context.context import RequestContext
from oslo_log import log
from oslo_log.formatters import ContextFormatter

from kongming.runtime.users import user

_PARTS = ("loggers", "handlers", "formatters")
_TRY_S = 20.0
# In another process: here it would change the current log.
_TRY = """
import logging.config, sys
try:
    logging.config.fileConfig(sys.argv[1], disable_existing_loggers=False)
except BaseException as error:
    sys.exit(f"\\n{type(error).__name__}")
"""


def problems(conf: cfg.ConfigOpts) -> Iterator[str]:
    """Yield the problems of the log options of ``[DEFAULT]`` for this user."""
    if conf.log_config_append:
        problem = _of_file(conf.log_config_append)
        if problem:
            yield f"[DEFAULT] log_config_append: {conf.log_config_append} {problem}"
        return
    yield from _of_target(conf)
    yield from _of_levels(conf.default_log_levels)
    if not conf.use_json:
        yield from _of_formats(conf)


def _of_file(path: str) -> str | None:
    """Return the problem of a file of Python's logging configuration, without quoting it."""
    parser = configparser.RawConfigParser()
    try:
        with Path(path).open() as file:
            parser.read_file(file)
        missing = [part for part in _PARTS if not parser.has_option(part, "keys")]
    except OSError as error:
        return f"can't be read by user {user()}: {error.strerror}"
    except (configparser.Error, ValueError) as error:
        line = getattr(error, "lineno", None) or next(iter(getattr(error, "errors", [])), [0])[0]
        return f"is not a logging configuration: see line {line or 'with a byte not in UTF-8'}"
    if missing:
        return f"is not a logging configuration: it has no section [{missing[0]}] with keys"
    return _refused(path)


def _refused(path: str) -> str | None:
    try:
        tried = subprocess.run(  # noqa: S603
            [sys.executable, "-c", _TRY, path],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TRY_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"can't be loaded within {_TRY_S:g} s: check what its handlers wait for"
    if tried.returncode == 0:
        return None
    kind = tried.stderr.decode(errors="replace").split()[-1:]
    return (
        f"is rejected by Python's logging ({''.join(kind)}): check its handlers (class, args, "
        "level) and formatters"
    )


def _of_target(conf: cfg.ConfigOpts) -> Iterator[str]:
    path = log._get_log_file_path(conf)
    if path:
        option = "log_file" if conf.log_file else "log_dir"
        problem = _unwritable(Path(path))
        if problem:
            yield f"[DEFAULT] {option}: {path} {problem}"
        yield from _of_rotation(conf)
    if conf.use_syslog or conf.use_journal:
        try:
            log._find_facility(conf.syslog_log_facility)
        except TypeError:
            yield (
                f"[DEFAULT] syslog_log_facility: {conf.syslog_log_facility!r} can't be used, it "
                "must be a facility of syslog(3), such as LOG_USER, LOG_DAEMON or LOG_LOCAL0"
            )
    if conf.use_journal and importlib.util.find_spec("systemd") is None:
        yield (
            "[DEFAULT] use_journal: the systemd binding for Python is not installed; install "
            "python3-systemd or kongming[journal], or unset the option: the journal also gets the "
            "standard output of services"
        )


def _of_rotation(conf: cfg.ConfigOpts) -> Iterator[str]:
    if conf.log_rotation_type.lower() != "interval":
        return
    weekly = conf.log_rotate_interval_type.lower() == "weekday"
    low, high = (0, 6) if weekly else (1, 2**31 - 1)
    if not low <= conf.log_rotate_interval <= high:
        yield (
            f"[DEFAULT] log_rotate_interval: {conf.log_rotate_interval} can't be used, it must be "
            f"an integer from {low} to {high} with log_rotate_interval_type = "
            f"{conf.log_rotate_interval_type}"
        )


def _unwritable(path: Path) -> str | None:
    """Return the problem that keeps this process from writing a log, without creating it."""
    try:
        if path.exists():
            denied = not os.access(path, os.W_OK, effective_ids=True)
            if path.is_dir():
                return "is a directory"
        elif not path.parent.is_dir():
            return f"can't be created by user {user()}: there is no directory {path.parent}"
        else:
            denied = not os.access(path.parent, os.W_OK | os.X_OK, effective_ids=True)
    except OSError as error:
        return f"can't be written by user {user()}: {error.strerror}"
    except ValueError:
        return "is not a path"
    return f"is not writable for user {user()}" if denied else None


def _of_levels(pairs: list[str]) -> Iterator[str]:
    for pair in pairs:
        name, _, level = pair.partition("=")
        known = level in logging.getLevelNamesMapping() or re.fullmatch(r"-?[0-9]+", level)
        if not name or not known:
            yield (
                "[DEFAULT] default_log_levels: it must be pairs such as amqp=WARN, separated by "
                f"commas, with one of {', '.join(logging.getLevelNamesMapping())}"
            )
            return


def _of_formats(conf: cfg.ConfigOpts) -> Iterator[str]:
    """Format a line of each kind: a format that fails would fail for each line."""
    context = _Context()
    try:
        conf.logging_user_identity_format % dict(context.get_logging_values())
    except (TypeError, ValueError, KeyError):
        yield _of_format("logging_user_identity_format")
        return
    error = (ValueError, ValueError("tried"), None)
    for option, level, exc_info, request in (
        ("logging_default_format_string", logging.INFO, None, None),
        ("logging_debug_format_suffix", logging.DEBUG, None, None),
        ("logging_exception_prefix", logging.INFO, error, None),
        ("logging_context_format_string", logging.INFO, None, context),
    ):
        record = logging.LogRecord("kongming", level, __file__, 1, "tried", (), exc_info, "f")
        # Not the context of this thread.
        record.__dict__["context"] = request
        if not _can_format(conf, record):
            yield _of_format(option)
            return


class _Context(RequestContext):
    def update_store(self) -> None:
        """Do nothing: the context of this thread stays."""


def _can_format(conf: cfg.ConfigOpts, record: Any) -> bool:
    formatter = ContextFormatter(config=conf, datefmt=conf.log_date_format)
    try:
        formatter.format(record)
    except (TypeError, ValueError, KeyError):
        return False
    return True


def _of_format(option: str) -> str:
    return (
        f"[DEFAULT] {option}: a %(…) names an unknown field of log lines, or lacks its type, such "
        "as s"
    )
