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

"""A guru meditation report: the stacks of all threads, the process and the options in force."""

from __future__ import annotations

import logging
from pathlib import Path
import sys
import time

from oslo_config import cfg

from kongming import version

LOG = logging.getLogger(__name__)


class _Version:
    """The version, as oslo.reports reads it."""

    def vendor_string(self) -> str:
        return "The Kongming developers"

    def product_string(self) -> str:
        return "Kongming"

    def version_string_with_package(self) -> str:
        return version.release()


def write(conf: cfg.ConfigOpts, name: str) -> None:
    """Write a report to ``[oslo_reports] log_dir``, or else to the standard error.

    Options that are secret are masked. An error is logged: the service goes on.

    :param name: the service's name, for the file's.
    """
    try:
        # Imported here, as it costs memory that services without reports do not need.
        from oslo_reports import opts, report
        from oslo_reports.generators import conf as options
        from oslo_reports.generators import process, threading
        from oslo_reports.generators import version as package
    except ModuleNotFoundError as error:
        LOG.error("No report: the Python module %s is not installed", error.name)
        return
    opts.set_defaults(conf)
    # Not its TextGuruMeditation, which includes the global configuration of the libraries.
    made = report.TextReport("Guru Meditation")
    made.add_section("Package", package.PackageReportGenerator(_Version()))
    made.add_section("Threads", threading.ThreadReportGenerator())
    made.add_section("Processes", process.ProcessReportGenerator())
    made.add_section("Options", options.ConfigReportGenerator(conf))
    try:
        text = made.run()
        if conf.oslo_reports.log_dir:
            moment = time.strftime("%Y%m%d%H%M%S", time.gmtime())
            path = Path(conf.oslo_reports.log_dir, f"{name}_gurumeditation_{moment}")
            path.write_text(text)
        else:
            print(text, file=sys.stderr, flush=True)  # noqa: T201
    except Exception as error:  # noqa: BLE001
        # The text of some errors quotes a value.
        LOG.error("The report can't be written (%s)", type(error).__name__)
        return
    LOG.info("A report was written to %s", conf.oslo_reports.log_dir or "the standard error")
