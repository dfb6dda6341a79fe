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

"""``[database]``: connection to the database: oslo.db's options with Kongming's defaults."""

from __future__ import annotations

from typing import Any

from oslo_config import cfg

try:
    from oslo_db.options import database_opts
except ModuleNotFoundError:
    # Compute hosts have no database, and need not have oslo.db.
    database_opts = []

GROUP = "database"

OPTS: list[Any] = database_opts

_DEFAULTS = {
    "connection": "sqlite:///$state_path/kongming.sqlite",
    # Report an unavailable database at once; the next use connects again.
    "max_retries": 0,
}


def set_defaults() -> None:
    """Replace those defaults of oslo.db that do not suit Kongming."""
    if OPTS:
        cfg.set_defaults(OPTS, **_DEFAULTS)


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register oslo.db's options on ``conf``."""
    set_defaults()
    conf.register_opts(OPTS, group=GROUP)
