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

"""What a check found, and how many findings become one result."""

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
    """Nothing to do."""
    return Result(Code.SUCCESS, details)


def doubtful(details: str) -> Result:
    """It may work as it is, or not for everybody."""
    return Result(Code.WARNING, details)


def bad(details: str) -> Result:
    """It does not work so."""
    return Result(Code.FAILURE, details)


def run(check: Check, conf: cfg.ConfigOpts, timeout: float = TIMEOUT_S) -> Result:
    """Run a check to its end, or for so many seconds, and give its findings as one.

    What it shows holds no credentials, and is escaped, whatever the libraries say.
    """
    findings: list[Result] = []
    # What hangs in a library can't be interrupted; it ends with the process.
    thread = threading.Thread(target=_collect, args=(check, conf, findings), daemon=True)
    thread.start()
    thread.join(timeout)
    results = list(findings)
    if thread.is_alive():
        results.append(bad(f"the check did not finish within {timeout:g} s: find out what hangs"))
    return _one(results)


def _collect(check: Check, conf: cfg.ConfigOpts, findings: list[Result]) -> None:
    try:
        # One by one: those of before a hang are told, too.
        for finding in check(conf):
            findings.append(finding)
    except cfg.Error:
        findings.append(bad("not checked: an option that this check needs is invalid, see above"))
    except exception.KongmingError as error:
        findings.append(bad(str(error)))
    except Exception as error:  # noqa: BLE001
        # Its text may be anything, with a password in it.
        findings.append(bad(f"a fault of Kongming: please report this {type(error).__name__}"))


def _one(results: list[Result]) -> Result:
    """Make one result of all: the worst of them, told first."""
    results = sorted(results, key=lambda result: -result.code)
    worst = results[0].code if results else Code.SUCCESS
    text = "; ".join(result.details or "" for result in results)
    return Result(worst, escape(without_credentials(text)) or None)
