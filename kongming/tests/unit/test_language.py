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

"""What users, operators and developers read is in the field's terms."""

import ast
from collections.abc import Iterator
import functools
import io
from pathlib import Path
import re
import tokenize

import kongming
from kongming.tests import sources

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

#: Parts of names that are out.
NAMES = set(
    re.findall(
        r"\w+",
        "ask asks asked asker asking want wants wanted tell tells told say says said hear hears "
        "heard unheard silent silence stranger strangers homeless anew inquirer inquiry inquiries "
        "lookalike lookalikes whereabouts hearsay nobody somebody came comes mind",
    )
)

CODE = sorted(path for path in PRODUCT.rglob("*.py") if "tests" not in path.parts)
CODE += sorted((TOP / "doc/examples").glob("*.py"))
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


@functools.cache
def nodes(source: str) -> list[ast.AST]:
    return list(sources.walk(ast.parse(source)))


def texts(source: str) -> Iterator[tuple[int, str]]:
    """Yield the messages, docstrings and suspect comments of a module, with their lines."""
    for node in nodes(source):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and " " in node.value
            and not _SQL.match(node.value)
        ):
            yield node.lineno, node.value
    # It takes long to tell comments from what only looks like one.
    if not any(_OUT.search(line, line.find("#")) for line in source.splitlines() if "#" in line):
        return
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def names(source: str) -> Iterator[str]:
    """Yield the names that a module defines: of classes, functions, parameters, variables."""
    for node in nodes(source):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def parts(name: str) -> set[str]:
    return {part.lower() for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)}


def found(place: Path, texts: Iterator[tuple[int, str]]) -> list[str]:
    return [
        f"{place}:{line}: «{match[0]}» in {text.strip()[:100]!r}"
        for line, text in texts
        for match in _OUT.finditer(text)
    ]


def test_a_module_has_no_forbidden_word():
    wrong = [
        each for path in CODE for each in found(path.relative_to(TOP), texts(path.read_text()))
    ]
    assert not wrong, "\n".join(wrong)


def test_a_name_in_a_module_has_no_forbidden_word():
    wrong = [
        f"{path.relative_to(TOP)}: {name}"
        for path in CODE
        for name in sorted(set(names(path.read_text())))
        if parts(name) & NAMES
    ]
    assert not wrong, "\n".join(wrong)


def test_a_document_has_no_forbidden_word():
    wrong = [
        each
        for path in TEXTS
        for each in found(path.relative_to(TOP), enumerate(path.read_text().splitlines(), 1))
    ]
    assert not wrong, "\n".join(wrong)


def test_a_forbidden_word_is_found():
    text = 'raise Problem(f"{a} tells of what is wanted")  # nobody asks'
    assert len(found(Path("x"), texts(text))) == 3


def test_a_forbidden_name_is_found():
    text = "class SilentHost:\n    def f(self, asked_by): self._told = x = 1"
    assert [name for name in names(text) if parts(name) & NAMES] == [
        "SilentHost",
        "asked_by",
        "_told",
    ]
