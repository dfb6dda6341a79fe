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

"""Options of oslo.messaging's clients, which register them on the global configuration only."""

from __future__ import annotations

from collections.abc import Iterator
import importlib
from typing import Any


def client_options() -> Iterator[tuple[str, list[Any]]]:
    """Yield these options by group."""
    for group in ("metrics", "tracing"):
        name = f"oslo_messaging_{group}"
        try:
            module = importlib.import_module(f"oslo_messaging._{group}.client")
        except ModuleNotFoundError:
            # Older versions have no such client.
            continue
        yield name, getattr(module, name)
