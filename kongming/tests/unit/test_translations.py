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

"""The check of the translated guides names what is incomplete; an update keeps the rest."""

from pathlib import Path
import runpy
from types import SimpleNamespace

from babel.messages.catalog import Catalog
import pytest

TOOL = Path(__file__).resolve().parents[3] / "tools" / "translations.py"
translations = SimpleNamespace(**runpy.run_path(str(TOOL)))


def catalog(**messages):
    result = Catalog()
    for source, translation in messages.items():
        result.add(source, translation)
    return result


def faults(template, translated):
    return list(translations.faults(template, translated))


def test_a_complete_translation_has_no_fault():
    assert faults(catalog(Host="", Guest=""), catalog(Host="主机", Guest="实例")) == []


def test_a_missing_an_empty_and_a_fuzzy_message_are_named():
    translated = catalog(Empty="", Fuzzy="模糊")
    translated.get("Fuzzy").flags.add("fuzzy")
    assert faults(catalog(Missing="", Empty="", Fuzzy=""), translated) == [
        "missing: Missing",
        "empty or fuzzy: Empty",
        "empty or fuzzy: Fuzzy",
    ]


def test_a_message_that_the_document_no_longer_has_is_named():
    translated = catalog(Host="主机", Gone="没有")
    translated.obsolete["Former"] = Catalog().add("Former", "以前")
    assert faults(catalog(Host=""), translated) == ["obsolete: Gone", "obsolete: Former"]


@pytest.mark.parametrize(
    ("source", "translation"),
    [
        ("set ``host``", "设置 ``host``。"),
        ("``a`` and ``b``", "``b``、``a``"),
        ("see :doc:`mano`", "见 :doc:`mano`。"),
        ("see :ref:`runs <metadata-runs>`", "见\\ :ref:`序列 <metadata-runs>`。"),
        ("1. Read *this*", "1. 阅读\\ *这里*"),
        ("--wait ends **soon**", "--wait **很快**\\ 结束"),
    ],
)
def test_equal_markup_passes_in_any_position(source, translation):
    assert faults(catalog(**{source: ""}), catalog(**{source: translation})) == []


@pytest.mark.parametrize(
    ("source", "translation"),
    [
        ("set ``host``", "设置主机"),
        ("set host", "设置 ``host``"),
        ("``a``, ``a``", "``a``"),
        ("set ``host``", "设置 ``hosts``"),
        ("set ``host``", "设置``host``"),
        ("``a`` (``b``)", "``a``即``b``"),
        ("see :doc:`mano`", "见 :doc:`nfv`"),
        ("see :doc:`mano`", "见 :ref:`mano`"),
        ("see :doc:`mano`", "见:doc:`mano`"),
        ("see `it <https://a/b>`__", "见 `它 <https://a/c>`__"),
        ("a **live** one", "热迁移"),
        ("a **live** one", "**热**迁移"),
    ],
)
def test_other_markup_is_a_fault(source, translation):
    (fault,) = faults(catalog(**{source: ""}), catalog(**{source: translation}))
    assert fault.startswith("markup ")
    assert fault.endswith(f": {source}")


def test_an_update_keeps_translations_adds_new_messages_and_drops_vanished_ones(tmp_path):
    file = tmp_path / "guide" / "page.po"
    translations.update(file, catalog(Host="", Gone="", Fuzzy=""))
    text = file.read_text().replace('msgid "Host"\nmsgstr ""', 'msgid "Host"\nmsgstr "主机"')
    file.write_text(text.replace('msgid "Fuzzy"', '#, fuzzy\nmsgid "Fuzzy"'))
    translations.update(file, catalog(New="", Fuzzy="", Host=""))
    result = [(each.id, each.string, each.fuzzy) for each in translations.read(file) if each.id]
    assert result == [("New", "", False), ("Fuzzy", "", True), ("Host", "主机", False)]


def test_a_message_is_one_line(tmp_path):
    file = tmp_path / "page.po"
    translations.update(file, catalog(**{"a " * 99 + "b": ""}))
    assert f'msgid "{"a " * 99}b"\n' in file.read_text()


def test_an_update_without_changes_writes_the_same_file(tmp_path):
    file = tmp_path / "page.po"
    template = {"Half of it: 50% of a CPU": "", "Host": ""}
    translations.update(file, catalog(**template))
    former = file.read_text()
    translations.update(file, catalog(**template))
    assert file.read_text() == former


def test_the_file_of_a_document_that_is_gone_is_removed(tmp_path):
    file = tmp_path / "page.po"
    translations.update(file, catalog(Host=""))
    translations.update(file, Catalog())
    assert not file.exists()
