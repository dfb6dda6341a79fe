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

"""All options, for oslo.config's sample generator and the documentation."""

from typing import Any

from kongming import conf
from kongming.conf import api, nova


def own_opts() -> list[tuple[str | None, list[Any]]]:
    """Return all of Kongming's own options as (group, options)."""
    return [(group.GROUP, list(group.OPTS)) for group in conf._GROUPS]


def list_opts() -> list[tuple[str | None, list[Any]]]:
    """Return all options of kongming.conf, except those of oslo's libraries."""
    return [
        *(
            (name, [*options, *(nova.auth_opts() if name == nova.GROUP else ())])
            for name, options in own_opts()
        ),
        (api.HEALTHCHECK, list(api.HEALTHCHECK_OPTS)),
    ]
