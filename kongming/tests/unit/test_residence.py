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

"""What becomes of an instance: the table of architecture.rst, over all that can be."""

import itertools
from pathlib import Path
import re

import pytest

import kongming
from kongming.executor.store.residence import Decision, Fate, Hint, Kept, Place, Presence, decide

ARCHITECTURE = Path(kongming.__file__).parents[1] / "doc/source/contributor/architecture.rst"
HINTS = {
    "nothing": None,
    "here": Hint(Place.HERE),
    "here?": Hint(Place.HERE, doubtful=True),
    "elsewhere": Hint(Place.ELSEWHERE, "compute-2"),
    "elsewhere!": Hint(Place.ELSEWHERE, "compute-2", answered=True),
    "elsewhere?": Hint(Place.ELSEWHERE, "compute-2", doubtful=True),
    "nowhere": Hint(Place.NOWHERE),
    "nowhere!": Hint(Place.NOWHERE, answered=True),
    "nowhere?": Hint(Place.NOWHERE, doubtful=True),
}
PRESENCES = {
    "runs": Presence.RUNS,
    "off": Presence.OFF,
    "gone": Presence.GONE,
    "migrated": Presence.MIGRATED,
}
FATES = {
    "kept": Decision(Fate.KEPT),
    "kept, ask": Decision(Fate.KEPT, ask=True),
    "claimed": Decision(Fate.CLAIMED),
    "claimed, ask": Decision(Fate.CLAIMED, ask=True),
    "forgotten": Decision(Fate.FORGOTTEN),
    "forgotten, ask": Decision(Fate.FORGOTTEN, ask=True),
    "released": Decision(Fate.RELEASED),
    "released, ask": Decision(Fate.RELEASED, ask=True),
    "left": Decision(Fate.LEFT),
    "left, ask": Decision(Fate.LEFT, ask=True),
}


def written():
    """Read the table of the documentation: what becomes of it, by presence and hint."""
    lines = ARCHITECTURE.read_text().partition("\nNova says ")[2].splitlines()
    heads = lines[0].split()
    rows = [re.split(r"\s{2,}", line.strip()) for line in lines[2 : lines.index(lines[1], 2)]]
    return {
        (presence, row[0]): cell
        for row in rows
        for presence, cell in zip(heads, row[1:], strict=True)
    }


REQUEST = written()
# Whoever is on the way back to the baseline goes there, whatever Nova says.
RETURNING = {
    which: "kept" if fate.startswith("claimed") else fate for which, fate in REQUEST.items()
}
OWN_NOTE = {
    (presence, hint): "left"
    if presence != "runs"
    else "released"
    if hint in ("here", "here?")
    else "released, ask"
    for presence, hint in REQUEST
}
FOREIGN_NOTE = {
    which: "left, ask" if fate == "released, ask" else fate for which, fate in OWN_NOTE.items()
}
TABLES = {
    Kept.REQUEST: REQUEST,
    Kept.RETURNING: RETURNING,
    Kept.OWN_NOTE: OWN_NOTE,
    Kept.FOREIGN_NOTE: FOREIGN_NOTE,
    Kept.NOTHING: dict.fromkeys(REQUEST, "left"),
}


def test_the_tables_are_complete():
    assert set(TABLES) == set(Kept)
    assert set(PRESENCES.values()) == set(Presence)
    for each in TABLES.values():
        assert set(each) == set(itertools.product(PRESENCES, HINTS))


@pytest.mark.parametrize("kept", Kept)
@pytest.mark.parametrize("hint", HINTS)
@pytest.mark.parametrize("presence", PRESENCES)
def test_what_becomes_of_an_instance(presence, hint, kept):
    wanted = FATES[TABLES[kept][presence, hint]]
    assert decide(PRESENCES[presence], HINTS[hint], kept) == wanted


def test_a_guest_that_runs_is_never_given_up():
    for hint, kept in itertools.product(HINTS.values(), (Kept.REQUEST, Kept.RETURNING)):
        assert decide(Presence.RUNS, hint, kept).fate in (Fate.KEPT, Fate.CLAIMED)


@pytest.mark.parametrize(
    ("hint", "says"),
    [
        (Hint(Place.HERE), "it is here"),
        (Hint(Place.ELSEWHERE, "compute-2"), "it is on compute-2"),
        (Hint(Place.ELSEWHERE), "it has left this host"),
        (Hint(Place.NOWHERE), "it is on no host"),
        (Hint(Place.NOWHERE, said_by="Nova's API"), "it is on no host (Nova's API)"),
    ],
)
def test_a_hint_can_be_read(hint, says):
    assert str(hint) == says


def test_hints_are_compared_by_what_they_say():
    hint = Hint(Place.ELSEWHERE, "compute-2", "an event", 1.0)
    assert hint.says_the_same(Hint(Place.ELSEWHERE, "compute-2", "Nova's API", 2.0, answered=True))
    assert not hint.says_the_same(None)
    assert not hint.says_the_same(Hint(Place.ELSEWHERE, "compute-3", "an event", 1.0))
    assert not hint.says_the_same(Hint(Place.NOWHERE, "compute-2", "an event", 1.0))
    doubtful = Hint(Place.ELSEWHERE, "compute-2", "an event", 1.0, doubtful=True)
    assert not hint.says_the_same(doubtful)
