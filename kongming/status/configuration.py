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

"""Is kongming.conf there, and is what it says valid?"""

from __future__ import annotations

from collections.abc import Iterator

from oslo_config import cfg
from oslo_upgradecheck.upgradecheck import Result

from kongming import exception
from kongming.conf import opts
from kongming.executor.rules import read_rules
from kongming.status.finding import bad, doubtful, good


def check(conf: cfg.ConfigOpts) -> Iterator[Result]:
    """Read all of our options, and the rules."""
    files = [*conf.config_file, *conf.config_dir]
    if files:
        yield good(f"read: {', '.join(files)}")
    else:
        yield doubtful(
            "no kongming.conf was found, all options have their defaults: make "
            "/etc/kongming/kongming.conf, or name another with --config-file"
        )
    wrong = list(_not_valid(conf))
    yield from wrong
    if not wrong:
        yield _rules(conf)


def _not_valid(conf: cfg.ConfigOpts) -> Iterator[Result]:
    for group, options in opts.own_opts():
        for option in options:
            try:
                getattr(conf if group is None else conf[group], option.dest)
            except (cfg.Error, ValueError) as error:
                said = "not valid" if option.secret else " ".join(str(error).split())
                yield bad(f"[{group or 'DEFAULT'}] {option.name}: {said}; correct it")


def _rules(conf: cfg.ConfigOpts) -> Result:
    try:
        read_rules(conf)
    except exception.ConfigInvalid as error:
        return bad(f"{error}; correct it: the service does not start so")
    return good("[guard] is valid")
