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

"""The decision about an instance: the table of architecture.rst, over all that can be."""

import itertools
from pathlib import Path
import re

import pytest

import kongming
from kongming.executor.store.residence import (
    Action,
    Decision,
    Hint,
    LocalState,
    Place,
    Presence,
    decide,
)

ARCHITECTURE = Path(kongming.__file__).parents[1] / "doc/source/contributor/architecture.rst"
HINTS = {
    "nothing": None,
    "here": Hint(Place.HERE),
    "here?": Hint(Place.HERE, uncertain=True),
    "elsewhere": Hint(Place.ELSEWHERE, "compute-2"),
    "elsewhere!": Hint(Place.ELSEWHERE, "compute-2", from_api=True),
    "elsewhere?": Hint(Place.ELSEWHERE, "compute-2", uncertain=True),
    "nowhere": Hint(Place.NOWHERE),
    "nowhere!": Hint(Place.NOWHERE, from_api=True),
    "nowhere?": Hint(Place.NOWHERE, uncertain=True),
}
PRESENCES = {
    "runs": Presence.RUNS,
    "off": Presence.OFF,
    "gone": Presence.ABSENT,
    "migrated": Presence.MIGRATED,
}
DECISIONS = {
    "kept": Decision(Action.KEEP),
    "kept, ask": Decision(Action.KEEP, lookup=True),
    "claimed": Decision(Action.CLAIM),
    "claimed, ask": Decision(Action.CLAIM, lookup=True),
    "forgotten": Decision(Action.FORGET),
    "forgotten, ask": Decision(Action.FORGET, lookup=True),
    "released": Decision(Action.RELEASE),
    "released, ask": Decision(Action.RELEASE, lookup=True),
    "left": Decision(Action.IGNORE),
    "left, ask": Decision(Action.IGNORE, lookup=True),
}


def written():
    """Read the table of the documentation: the decision by presence and hint."""
    lines = ARCHITECTURE.read_text().partition("\nNova says ")[2].splitlines()
    heads = lines[0].split()
    rows = [re.split(r"\s{2,}", line.strip()) for line in lines[2 : lines.index(lines[1], 2)]]
    return {
        (presence, row[0]): cell
        for row in rows
        for presence, cell in zip(heads, row[1:], strict=True)
    }


REQUEST = written()
# A guest that is being released returns to its baseline, whatever Nova reports.
RETURNING = {
    which: "kept" if fate.startswith("claimed") else fate for which, fate in REQUEST.items()
}
OWN_BASELINE = {
    (presence, hint): "left"
    if presence != "runs"
    else "released"
    if hint in ("here", "here?")
    else "released, ask"
    for presence, hint in REQUEST
}
FOREIGN_BASELINE = {
    which: "left, ask" if fate == "released, ask" else fate for which, fate in OWN_BASELINE.items()
}
TABLES = {
    LocalState.REQUEST: REQUEST,
    LocalState.RETURNING: RETURNING,
    LocalState.OWN_BASELINE: OWN_BASELINE,
    LocalState.FOREIGN_BASELINE: FOREIGN_BASELINE,
    LocalState.NOTHING: dict.fromkeys(REQUEST, "left"),
}


def test_the_tables_are_complete():
    assert set(TABLES) == set(LocalState)
    assert set(PRESENCES.values()) == set(Presence)
    for each in TABLES.values():
        assert set(each) == set(itertools.product(PRESENCES, HINTS))


@pytest.mark.parametrize("kept", LocalState)
@pytest.mark.parametrize("hint", HINTS)
@pytest.mark.parametrize("presence", PRESENCES)
def test_each_sequence_of_hints_leads_to_a_decision(presence, hint, kept):
    expected = DECISIONS[TABLES[kept][presence, hint]]
    assert decide(PRESENCES[presence], HINTS[hint], kept) == expected


def test_a_running_guest_is_never_given_up():
    for hint, kept in itertools.product(
        HINTS.values(), (LocalState.REQUEST, LocalState.RETURNING)
    ):
        assert decide(Presence.RUNS, hint, kept).action in (Action.KEEP, Action.CLAIM)


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (Hint(Place.HERE), "it is here"),
        (Hint(Place.ELSEWHERE, "compute-2"), "it is on compute-2"),
        (Hint(Place.ELSEWHERE), "it has left this host"),
        (Hint(Place.NOWHERE), "it is on no host"),
        (Hint(Place.NOWHERE, reported_by="Nova's API"), "it is on no host (Nova's API)"),
    ],
)
def test_a_hint_can_be_read(hint, expected):
    assert str(hint) == expected


def test_hints_are_compared_by_their_content():
    hint = Hint(Place.ELSEWHERE, "compute-2", "an event", 1.0)
    assert hint.agrees_with(Hint(Place.ELSEWHERE, "compute-2", "Nova's API", 2.0, from_api=True))
    assert not hint.agrees_with(None)
    assert not hint.agrees_with(Hint(Place.ELSEWHERE, "compute-3", "an event", 1.0))
    assert not hint.agrees_with(Hint(Place.NOWHERE, "compute-2", "an event", 1.0))
    uncertain = Hint(Place.ELSEWHERE, "compute-2", "an event", 1.0, uncertain=True)
    assert not hint.agrees_with(uncertain)
