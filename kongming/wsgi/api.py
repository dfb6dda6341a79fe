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
"""``kongming.wsgi.api:application``: the REST API, for any WSGI server.

The configuration is read from the files in OS_KONGMING_CONFIG_FILES, separated by ``;``, or from
kongming.conf and kongming-api.conf in the usual directories.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from oslo_config import cfg

from kongming import exception
from kongming.runtime import extras
from kongming.runtime.escaping import escape

# With this exit status gunicorn ends instead of restarting the worker; uWSGI has need-app.
_NO_START = 3

FILES = "OS_KONGMING_CONFIG_FILES"


def make() -> Any:
    """Return the application.

    :raises ConfigInvalid: naming the first option that can't be used, and its file.
    """
    # Imported here: the packages of controllers may be missing.
    from kongming.api.application import make_application
    from kongming.bus.driver_log import DriverLog
    from kongming.cmd import launch

    named = [path for path in os.environ.get(FILES, "").split(";") if path]
    # oslo.config would use the name of the WSGI server.
    named = named or cfg.find_config_files(project="kongming", prog="kongming-api")
    conf = launch.configure([f"--config-file={path}" for path in named], of_the_api=True)
    launch.set_up_log(conf)
    # Errors reach the caller of the conductor; the log of the driver is of no use here.
    DriverLog().install()
    return make_application(conf)


def _make_or_end() -> Any:
    """Return the application, or print one line with the error and end the process."""
    try:
        return make()
    except (exception.ConfigInvalid, cfg.Error) as error:
        problem = str(error)
    except ModuleNotFoundError as error:
        problem = extras.missing(error)
    print(f"kongming-api: {escape(problem)}", file=sys.stderr)  # noqa: T201
    sys.exit(_NO_START)


application = _make_or_end()
