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

"""Check whether kongming.conf exists, each service accepts it, and all of it is used."""

from __future__ import annotations

from collections.abc import Iterator

from oslo_config import cfg
from oslo_upgradecheck.upgradecheck import Result

from kongming.configuration import check as configuration
from kongming.status.finding import bad, doubtful, good


def check(conf: cfg.ConfigOpts) -> Iterator[Result]:
    """Read the files as the services do."""
    named = [*conf.config_file, *conf.config_dir]
    if named:
        yield good(f"read: {', '.join(named)}")
    else:
        yield doubtful(
            "no kongming.conf was found, all options have their defaults: create "
            "/etc/kongming/kongming.conf, or name a file with --config-file"
        )
    candidate = configuration.read(
        [
            *(f"--config-file={path}" for path in conf.config_file),
            *(f"--config-dir={path}" for path in conf.config_dir),
        ]
    )
    problems = [*candidate.problems()]
    for problem in problems:
        yield bad(f"{problem}; correct it: the service does not start with it")
    for each in candidate.unread():
        yield doubtful(f"unknown option, ignored: {each}")
    if not problems:
        yield good("[guard] is valid")
