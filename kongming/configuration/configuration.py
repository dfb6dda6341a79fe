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

"""The configuration in force: only checked values get into it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import logging
from typing import Any

from oslo_log import log
from oslo_service import opts

from kongming import conf as kongming_conf
from kongming import exception, version
from kongming.configuration import libraries
from kongming.configuration.check import PROJECT, Candidate, check
from kongming.runtime.service import ReloadableOpts

LOG = logging.getLogger(__name__)

_UNREAD_MAX = 20


class Configuration(ReloadableOpts):
    """Options of oslo.config whose reload is all or nothing."""

    def __init__(self, argv: Sequence[str], *, of_the_api: bool = False) -> None:
        """Read a command line and the files that it names.

        :param of_the_api: whether this is the REST API.
        :raises ConfigInvalid: naming option and file of the first problem.
        """
        super().__init__()
        self._of_the_api = of_the_api
        self._argv = [*argv]
        self._take(self.candidate())
        kongming_conf.register_opts(self)
        opts.register_service_opts(self)
        log.register_options(self)
        self(self._argv, project=PROJECT, version=version.release())
        libraries.hand_over(self._checked.conf)

    def candidate(self) -> Candidate:
        """Read the files and check them; the options in force stay.

        :raises ConfigInvalid: naming option and file of the first problem.
        """
        return check(self._argv, of_the_api=self._of_the_api)

    def put_in_force(self, checked: Candidate, then: Callable[[], None]) -> None:
        """Put the mutable options of a candidate in force.

        :param then: reads settings from the options; may raise ConfigInvalid.
        :raises ConfigInvalid: if a file that the options name has changed meanwhile; the previous
            options stay in force then.
        """
        former, mutable = self._checked, self._mutable_ns
        self._take(checked)
        try:
            self._mutate()
            then()
        except Exception:
            self._take(former)
            self._mutable_ns = mutable
            raise
        finally:
            # Another thread may have read a previous value, which oslo.config caches.
            self.clear_override("config_file")

    def warn_unread(self) -> None:
        """Log the settings that no service reads."""
        unread = [*self._checked.unread()]
        if unread:
            more = f"; and {len(unread) - _UNREAD_MAX} more" if len(unread) > _UNREAD_MAX else ""
            LOG.warning("Settings without effect: %s%s", "; ".join(unread[:_UNREAD_MAX]), more)

    def located(self, problem: str) -> str:
        """Add file and line to a text that begins with an option."""
        return self._checked.located(problem)

    def _mutate(self) -> None:
        try:
            self.mutate_config_files()
        except (OSError, log.LogConfigError) as error:
            raise exception.ConfigInvalid(
                f"[DEFAULT] log_config_append: {type(error).__name__}; was it changed in the "
                "meantime?"
            ) from None

    def _take(self, checked: Candidate) -> None:
        self._checked = checked

    def _parse_config_files(self) -> Any:
        """Return the values that were checked: the files may have changed since."""
        return self._checked.conf._namespace
