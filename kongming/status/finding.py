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

"""The findings of a check, and their combination to one result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import threading

from oslo_config import cfg
from oslo_upgradecheck.upgradecheck import Code, Result

from kongming import exception
from kongming.runtime.cleaning import without_credentials
from kongming.runtime.escaping import escape

Check = Callable[[cfg.ConfigOpts], Iterator[Result]]

#: Seconds that a check may take.
TIMEOUT_S = 10.0


def good(details: str) -> Result:
    """Return a finding without anything to do."""
    return Result(Code.SUCCESS, details)


def doubtful(details: str) -> Result:
    """Return a finding that may need action, or concerns only some."""
    return Result(Code.WARNING, details)


def bad(details: str) -> Result:
    """Return a finding that needs action."""
    return Result(Code.FAILURE, details)


def run(check: Check, conf: cfg.ConfigOpts, timeout: float = TIMEOUT_S) -> Result:
    """Run a check with a time limit, and return its findings as one result.

    The text has no credentials, and is escaped, whatever the libraries report.
    """
    findings: list[Result] = []
    # A library that hangs can't be interrupted; its thread ends with the process.
    thread = threading.Thread(target=_collect, args=(check, conf, findings), daemon=True)
    thread.start()
    thread.join(timeout)
    results = list(findings)
    if thread.is_alive():
        results.append(bad(f"the check did not finish within {timeout:g} s: find out what hangs"))
    return _one(results)


def _collect(check: Check, conf: cfg.ConfigOpts, findings: list[Result]) -> None:
    try:
        # One by one, to report the findings before a hang, too.
        for finding in check(conf):
            findings.append(finding)
    except cfg.Error:
        findings.append(bad("not checked: an option that this check needs is invalid, see above"))
    except exception.KongmingError as error:
        findings.append(bad(str(error)))
    except Exception as error:  # noqa: BLE001
        # Its text may contain a password.
        findings.append(bad(f"a fault of Kongming: please report this {type(error).__name__}"))


def _one(results: list[Result]) -> Result:
    """Combine findings to one result, the worst first."""
    results = sorted(results, key=lambda result: -result.code)
    worst = results[0].code if results else Code.SUCCESS
    text = "; ".join(result.details or "" for result in results)
    return Result(worst, escape(without_credentials(text)) or None)
