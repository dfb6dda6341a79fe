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

"""How much is tried: all that there is, which takes long, or what shows the most."""

from __future__ import annotations

from collections.abc import Iterable
import itertools
import os
from typing import Any, TypeVar

import pytest

T = TypeVar("T")
U = TypeVar("U")

THOROUGH = "KONGMING_THOROUGH" in os.environ


def examples(thorough: int) -> int:
    """Return how many examples a property is tried with, of those of a thorough run."""
    return thorough if THOROUGH else max(thorough // 8, 5)


def pairs(ones: Iterable[T], others: Iterable[U]) -> list[tuple[T, U]]:
    """Return all pairs in a thorough run, else each of the others with one of the ones."""
    turns = list(ones)
    if THOROUGH:
        return list(itertools.product(turns, others))
    return list(zip(itertools.cycle(turns), others))


def stories(
    names: str | tuple[str, ...],
    values: Iterable[Any],
    *,
    usual: int = 1,
    **options: Any,
) -> pytest.MarkDecorator:
    """Parametrize a test that has the same story with each value.

    :param usual: how many of the values are not left to ``tools/test slow``.
    """
    given = []
    for number, value in enumerate(values):
        slow = pytest.mark.slow if number >= usual else ()
        given.append(pytest.param(*(value if isinstance(names, tuple) else (value,)), marks=slow))
    return pytest.mark.parametrize(names, given, **options)
