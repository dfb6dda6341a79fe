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

The configuration is read from the files that OS_KONGMING_CONFIG_FILES names,
separated by ``;``, or from kongming.conf and kongming-api.conf where the other
commands look for theirs.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from oslo_config import cfg

from kongming import exception
from kongming.api.application import make_application
from kongming.bus.driver_log import DriverLog
from kongming.cmd import launch
from kongming.runtime.escaping import escape

# By this gunicorn ends, instead of starting the worker again and again; uWSGI does by need-app.
_NO_START = 3

FILES = "OS_KONGMING_CONFIG_FILES"


def make() -> Any:
    """Give the application.

    :raises ConfigInvalid: naming the option and the file of the first that can't be used.
    """
    named = [path for path in os.environ.get(FILES, "").split(";") if path]
    # The name of the command would be that of the WSGI server.
    named = named or cfg.find_config_files(project="kongming", prog="kongming-api")
    conf = launch.configure([f"--config-file={path}" for path in named], of_the_api=True)
    launch.set_up_log(conf)
    # Whoever calls a conductor is told what goes wrong; the driver's log is of no use here.
    DriverLog().install()
    return make_application(conf)


def _make_or_end() -> Any:
    """Return the application, or end the process with one line that says why it can't be made."""
    try:
        return make()
    except (exception.ConfigInvalid, cfg.Error) as error:
        print(f"kongming-api: {escape(str(error))}", file=sys.stderr)  # noqa: T201
        sys.exit(_NO_START)


application = _make_or_end()
