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

"""The check of each value, by its option's rule."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
import os
from typing import Any

from oslo_config import cfg

from kongming.allocation.host_name import RULE, HostName
from kongming.configuration.files import DEFAULT
from kongming.runtime.cleaning import clean

_SHOWN = 60
_MOST = 2**31 - 1

# Bounds of options whose bad values the libraries accept, and fail with later.
_BOUNDS: dict[tuple[str, str], tuple[int, int]] = {
    (DEFAULT, "executor_thread_pool_size"): (1, 10_000),
    (DEFAULT, "graceful_shutdown_timeout"): (0, 86_400),
    ("oslo_messaging_rabbit", "heartbeat_rate"): (1, 1_000),
    ("oslo_messaging_rabbit", "heartbeat_timeout_threshold"): (0, 65_535),
    ("oslo_messaging_rabbit", "rabbit_qos_prefetch_count"): (0, 65_535),
}
_NUMBERS_OF = "oslo_messaging_rabbit"


def problems(conf: cfg.ConfigOpts, section: str, options: Iterable[Any]) -> Iterator[str]:
    """Yield the problems of option values, without showing secrets."""
    for option in options:
        if _written(conf, section, option) is None and "$" not in str(option.default):
            # A default is right unless it refers to another option.
            continue
        values = conf if section == DEFAULT else conf[section]
        try:
            value = values[option.dest]
        except (cfg.Error, ValueError, TypeError, RecursionError) as error:
            # A default may refer to an invalid option.
            named = f"[{section}] {option.dest}"
            if (written := _written(conf, section, option)) is not None:
                yield _problem(named, option, written, error)
            elif type(error) is ValueError:
                yield f"{named}: its default {option.default} can't be used here; {_rule(option)}"
        else:
            if value is None and option.default is not None:
                # oslo.config reads an empty number as None.
                yield _problem(f"[{section}] {option.dest}", option, "", ValueError())
            if (bounds := _beyond(section, option, value)) is not None:
                yield (
                    f"[{section}] {option.dest}: {value} can't be used; it must be a number from "
                    f"{bounds[0]} to {bounds[1]}"
                )


def _problem(named: str, option: Any, written: str, error: Exception) -> str:
    if isinstance(error, cfg.TemplateSubstitutionError | cfg.NoSuchOptError | RecursionError):
        # The name may be a part of a password.
        return (
            f"{named}: its value refers with $ to itself or to an option that does not exist; "
            "write a literal $ as $$"
        )
    if option.secret or "://" in written or "@" in written:
        return f"{named}: {_rule(option)}"
    return f"{named}: {clean(written, _SHOWN)!r} can't be used; {_rule(option)}"


def _written(conf: cfg.ConfigOpts, section: str, option: Any) -> str | None:
    """Return the value of an option as written; None if it has its default."""
    try:
        found = option._get_from_namespace(
            conf._namespace, None if section == DEFAULT else section
        )[0]
    except KeyError:
        return os.environ.get(f"OS_{section}__{option.dest}".upper())
    return str(found[-1] if isinstance(found, list) else found)


def _beyond(section: str, option: Any, value: object) -> tuple[int, int] | None:
    """Return the bounds of a number that is outside them, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    bounds = _BOUNDS.get((section, option.dest))
    if bounds is None and section == _NUMBERS_OF:
        bounds = (0, _MOST)
    return bounds if bounds is not None and not bounds[0] <= value <= bounds[1] else None


def _rule(option: Any) -> str:
    """Return the rule for values of an option."""
    kind = option.type
    if isinstance(kind, HostName):
        return RULE
    choices = getattr(kind, "choices", None)
    low, high = getattr(kind, "min", None), getattr(kind, "max", None)
    what = _WORDS.get(type(kind).__name__, "a value of another type")
    if choices:
        what = f"one of {', '.join(str(each) or 'nothing' for each in choices)}"
    elif low is not None and high is not None:
        what += f" from {low} to {high}"
    elif low is not None:
        what += f" of at least {low}"
    elif high is not None:
        what += f" of at most {high}"
    elif most := getattr(kind, "max_length", None):
        what = f"a string of {'1 to' if kind.regex else 'at most'} {most} characters"
    elif getattr(kind, "regex", None):
        what = "a string that is not empty"
    return f"it must be {what}"


_WORDS = {
    "Boolean": "true or false",
    "Integer": "an integer",
    "Float": "a number",
    "Port": "a port number",
    "HostAddress": "a host name or an IP address",
    "HostDomain": "a host name or an IP address",
    "Hostname": "a host name",
    "IPAddress": "an IP address",
    "List": "a list of values, separated by commas",
    "Dict": "pairs such as name:value, separated by commas",
    "URI": "a URI",
    "String": "a string of another form",
}
