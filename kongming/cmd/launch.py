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

"""The life of a service: configuration, log, start, end, and one line if it can't start."""

from __future__ import annotations

from collections.abc import Callable
import gc
import os
import sys
import threading
import traceback

from oslo_log import log as logging

from kongming import exception
from kongming.cmd import backend  # noqa: F401
from kongming.configuration.configuration import Configuration
from kongming.runtime import extras
from kongming.runtime.escaping import escape
from kongming.runtime.service import Service
from kongming.runtime.signals import Signals
from kongming.runtime.threads import Faults

LOG = logging.getLogger("kongming")

_SWITCH_S = 0.0005
_ENDED, _FAILED, _CONFIGURATION = 0, 1, 2


def configure(argv: list[str], *, of_the_api: bool = False) -> Configuration:
    """Read and check the command line and kongming.conf.

    :param of_the_api: whether this is the REST API.
    :raises ConfigInvalid: naming option and file of the first problem.
    """
    return Configuration(argv, of_the_api=of_the_api)


def set_up_log(conf: Configuration) -> None:
    """Set up the log, and log the settings that no service reads.

    :raises ConfigInvalid: if the log can't be set up.
    """
    try:
        logging.setup(conf, "kongming")
    except Exception as error:  # noqa: BLE001
        # All known problems were checked before. The error's text may quote a password.
        raise exception.ConfigInvalid(
            conf.located(
                f"[DEFAULT]: logging can't be set up ({type(error).__name__}): check the options "
                "whose names begin with log or use"
            )
        ) from None
    conf.warn_unread()


def run(name: str, build: Callable[[Configuration], Service], signals: Signals) -> int:
    """Run a service; returns only if it could not start, or was stopped before."""
    try:
        conf = configure(sys.argv[1:])
        set_up_log(conf)
    except exception.ConfigInvalid as error:
        print(f"{name}: {escape(str(error))}", file=sys.stderr)  # noqa: T201
        return _CONFIGURATION
    if signals.end_requested():
        return _ENDED
    try:
        built = build(conf)
    except exception.ConfigInvalid as error:
        LOG.critical("Can't start: %s", conf.located(str(error)))
        return _CONFIGURATION
    except exception.KongmingError as error:
        LOG.critical("Can't start: %s", error)
        return _FAILED
    except ModuleNotFoundError as error:
        LOG.critical("Can't start: %s", extras.missing(error))
        return _FAILED
    except Exception as error:  # noqa: BLE001
        LOG.critical("Can't start: %s", _fault(error))
        return _FAILED
    if signals.end_requested():
        LOG.info("Stopped before it was ready")
        return _ENDED
    # All objects of now live as long as the process: garbage collections, of which each decoded
    # event causes some, can skip them.
    gc.collect()
    gc.freeze()
    # Most threads wait for libvirt or the disk. They must not wait long for a thread that
    # computes, as the listener does while it connects.
    sys.setswitchinterval(_SWITCH_S)
    os._exit(_serve(built, signals, conf.graceful_shutdown_timeout))


def _serve(built: Service, signals: Signals, patience_s: float) -> int:
    """Serve until a signal, or an error in a thread, ends the service; return the status."""
    faults = Faults(signals.wake)
    faults.install()
    built.start()
    built.wait(signals)
    if patience_s:
        # A library that hangs can't be interrupted, not even by a signal.
        giving_up = threading.Timer(patience_s, _give_up, [patience_s])
        giving_up.daemon = True
        giving_up.start()
    built.stop()
    return _FAILED if faults.count else _ENDED


def _give_up(patience_s: float) -> None:
    LOG.warning(
        "Shutdown took longer than graceful_shutdown_timeout (%g s): unfinished work is done "
        "after the next start",
        patience_s,
    )
    os._exit(_FAILED)


def _fault(error: Exception) -> str:
    """Describe an unexpected error without its text, which may quote a password."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"a fault of Kongming, please report this {type(error).__name__} at "
        f"{frame.filename}:{frame.lineno}"
    )
