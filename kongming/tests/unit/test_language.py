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

"""What users and operators read is in the field's terms."""

import ast
from collections.abc import Iterator
from pathlib import Path
import re

import kongming

PRODUCT = Path(kongming.__file__).parent
TOP = PRODUCT.parent

#: Words that are out, with what says it.
OUT = {
    r"what is wanted|(is|are|was|were) wanted|wanted by|if wanted": "desired, requested",
    r"who(ever)? asks?|what(ever)? (is|was) asked|(is|are|was|were) asked for": "source, request",
    r"(came|comes|come|becomes|became|become) of": "outcome, status",
    r"anew|tried again|tries? (it )?again": "again, retried",
    r"(let|lets|letting) go|(take|takes|took|taken|taking|give|gives|gave|given|giving) back": (
        "release, withdraw, restore"
    ),
    r"strangers?": "unknown guest",
    r"homeless": "unassigned",
    r"silent|silence": "unresponsive",
    r"(is|are|was|were|went|goes) away|who answers|does not answer|do not answer": "unavailable",
    r"somebody|nobody|everybody|anybody|whoever|whosever|whomever": "name who it is",
    r"so many|as many as there|as long as it lives": "a number of",
    r"but for|all but": "except",
    r"by now|just now": "already, now",
    r"in our words|ours|of ours|ourselves|our own": "Kongming's",
    r"(tells?|told|tell|says?|said|heard|hears?) of": "report, describe",
    r"(is|are|was|were|be|been) told": "is logged, is reported",
    r"looks? at|a look": "check, resync, reads",
    r"given away": "overlap",
    r"gets? on|getting on": "makes progress",
    r"for good": "permanently",
    r"of one mind|last word|turns up|turn up|comes? about|bring about|brings about": "plainly",
    r"whereabouts|look-?alikes?|inquir(y|ies|er)|hearsay": "the field's term",
}
_OUT = re.compile("|".join(rf"\b(?:{each})\b" for each in OUT), re.IGNORECASE)
_SQL = re.compile(r"^\s*(SELECT|INSERT|UPDATE|DELETE|CREATE|ALTER|DROP|PRAGMA|BEGIN)\b")

CODE = sorted(path for path in PRODUCT.rglob("*.py") if "tests" not in path.parts)
TEXTS = sorted(
    [
        *TOP.glob("README*.rst"),
        *(TOP / "doc/source").rglob("*.rst"),
        TOP / "etc/kongming/policy.yaml.sample",
        *(TOP / "etc").rglob("*.yml"),
        *(TOP / "etc/systemd").glob("*"),
        *(TOP / "etc/grafana").glob("*"),
    ]
)


def messages(source: str) -> Iterator[tuple[int, str]]:
    """Yield the texts of a module that are no documentation, with their lines."""
    tree = ast.parse(source)
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in documentation
            and " " in node.value
            and not _SQL.match(node.value)
        ):
            yield node.lineno, node.value


def found(place: Path, texts: Iterator[tuple[int, str]]) -> list[str]:
    return [
        f"{place}:{line}: «{match[0]}» in {text.strip()[:100]!r}"
        for line, text in texts
        for match in _OUT.finditer(text)
    ]


def test_a_message_has_no_word_that_is_out():
    wrong = [
        each for path in CODE for each in found(path.relative_to(TOP), messages(path.read_text()))
    ]
    assert not wrong, "\n".join(wrong)


def test_a_document_has_no_word_that_is_out():
    wrong = [
        each
        for path in TEXTS
        for each in found(path.relative_to(TOP), enumerate(path.read_text().splitlines(), 1))
    ]
    assert not wrong, "\n".join(wrong)


def test_a_word_that_is_out_is_found():
    text = 'raise Problem(f"{a} tells of what is wanted")'
    assert len(found(Path("x"), messages(text))) == 2
