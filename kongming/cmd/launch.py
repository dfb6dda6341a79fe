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

"""How a service is started: its configuration, its log, and one line if it can't be."""

from __future__ import annotations

from collections.abc import Callable
import gc
import sys

from oslo_config import cfg
from oslo_log import log as logging
from oslo_service import service

from kongming import conf as kongming_conf
from kongming import version
from kongming.escaping import escape
from kongming.service import Service

_SWITCH_S = 0.0005


def configure(argv: list[str]) -> cfg.ConfigOpts:
    """Read the command line and kongming.conf.

    :raises cfg.Error: if an option is wrong.
    """
    conf = cfg.ConfigOpts()
    kongming_conf.set_library_defaults()
    kongming_conf.register_opts(conf)
    logging.register_options(conf)
    conf(argv, project="kongming", version=version.release())
    return conf


def run(name: str, build: Callable[[cfg.ConfigOpts], Service]) -> int:
    """Run a service; returns only if it could not start."""
    try:
        conf = configure(sys.argv[1:])
    except cfg.Error as error:
        print(f"{name}: {escape(str(error))}", file=sys.stderr)  # noqa: T201
        return 2
    logging.setup(conf, "kongming")
    built = _try_to(build, conf)
    if isinstance(built, Exception):
        logging.getLogger("kongming").critical("Can't start: %s", built)
        return 1
    # What is there now lives as long as the process: garbage collections, of
    # which each decoded event causes some, need not look at it again.
    gc.collect()
    gc.freeze()
    # Most threads wait for libvirt or the disk: one that goes on must not wait
    # long for one that computes, as the listener does while it connects.
    sys.setswitchinterval(_SWITCH_S)
    service.launch(conf, built, no_fork=True)
    return 0


def _try_to(
    build: Callable[[cfg.ConfigOpts], Service], conf: cfg.ConfigOpts
) -> Service | Exception:
    """Give back what is wrong: whatever it is, the operator gets one line."""
    try:
        return build(conf)
    except Exception as error:  # noqa: BLE001
        return error
