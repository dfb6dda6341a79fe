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

"""The configuration that is in force: it takes what was checked, and nothing else."""

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

_TOLD = 20


class Configuration(ReloadableOpts):
    """oslo.config's, of which a reload puts all in force, or nothing.

    :ivar unread: what its files set and nobody reads.
    """

    def __init__(self, argv: Sequence[str], *, of_the_api: bool = False) -> None:
        """Read a command line and the files that it names.

        :param of_the_api: whether this is the REST API.
        :raises ConfigInvalid: naming the option and the file of the first thing that is wrong.
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
        """Read the files as they are now, and check them; what is in force stays.

        :raises ConfigInvalid: naming the option and the file of the first thing that is wrong.
        """
        return check(self._argv, of_the_api=self._of_the_api)

    def put_in_force(self, checked: Candidate, then: Callable[[], None]) -> None:
        """Take the mutable options of what was checked.

        :param then: reads what is not read at each use; may raise ConfigInvalid.
        :raises ConfigInvalid: if a file that the options name was changed just now; nothing is
            taken then.
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
            # Another thread may have read a former value, and oslo.config have kept it.
            self.clear_override("config_file")

    def tell_unread(self) -> None:
        """Log what the files set and nobody reads."""
        unread = [*self._checked.unread()]
        if unread:
            more = f"; and {len(unread) - _TOLD} more" if len(unread) > _TOLD else ""
            LOG.warning("Settings without effect: %s%s", "; ".join(unread[:_TOLD]), more)

    def located(self, problem: str) -> str:
        """Add to a text that begins with an option where that is set."""
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
        """Return what was read and checked: the files may be others by now."""
        return self._checked.conf._namespace
