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

"""Conditional requests, which change only the generation that the client knows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import re

import falcon

from kongming import exception
from kongming.allocation.cpuset import shown
from kongming.api import errors
from kongming.api.operation import GENERATION_MAX

IF_MATCH, IF_NONE_MATCH = "If-Match", "If-None-Match"
#: Unsupported conditions; ignoring one could make a change that the client does not want.
_OTHERS = ("If-Unmodified-Since", "If-Modified-Since", "If-Range", "Range", "Content-Range")
_GENERATION = re.compile(r'("?)([0-9]{1,10})\1', re.ASCII)


def check_none(req: falcon.Request) -> None:
    """Check that a request has no conditions.

    :raises RequestInvalid: naming the header.
    """
    for name in (IF_MATCH, IF_NONE_MATCH, *_OTHERS):
        if req.get_header(name) is not None:
            raise exception.RequestInvalid(
                f"the header {name} does not apply to this request: remove it"
            )


@contextmanager
def holds(req: falcon.Request, known: int | None) -> Iterator[int | None]:
    """Yield the generation that the request requires; None for any.

    :param known: the generation in the body or the query.
    :raises RequestInvalid: naming a header that is invalid, or contradicts ``known``.
    :raises PreconditionFailed: instead of GenerationConflict, if a header has the generation.
    """
    by_header = _by_header(req)
    if by_header is None:
        yield known
        return
    if known not in (None, by_header):
        raise exception.RequestInvalid(
            f"the header has generation {by_header}, and generation is {known}: send only one of "
            "them"
        )
    try:
        yield by_header
    except exception.GenerationConflict as error:
        raise errors.PreconditionFailed(str(error)) from error


def _by_header(req: falcon.Request) -> int | None:
    match, none_match = req.get_header(IF_MATCH), req.get_header(IF_NONE_MATCH)
    for name in _OTHERS:
        if req.get_header(name) is not None:
            raise exception.RequestInvalid(
                f"the header {name} is not supported: send {IF_MATCH} with the generation"
            )
    if none_match is not None:
        if none_match.strip() != "*" or match is not None:
            raise exception.RequestInvalid(
                f"{IF_NONE_MATCH} must be *, which means «must not exist yet», and must be sent "
                f"without {IF_MATCH}"
            )
        return 0
    if match is None:
        return None
    found = _GENERATION.fullmatch(match.strip())
    if found is None or int(found[2]) > GENERATION_MAX:
        raise exception.RequestInvalid(
            f'{IF_MATCH} {shown(match)} is not one generation, for example "3"'
        )
    return int(found[2])
