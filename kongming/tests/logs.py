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

"""What is logged, as oslo.log writes it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
import io
import logging

from oslo_config import cfg
from oslo_log import formatters


@contextmanager
def logged(conf: cfg.ConfigOpts) -> Iterator[Callable[[], str]]:
    """Take down what is logged meanwhile; yields what returns it."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatters.ContextFormatter(config=conf))
    logging.getLogger().addHandler(handler)
    yield stream.getvalue
    logging.getLogger().removeHandler(handler)
