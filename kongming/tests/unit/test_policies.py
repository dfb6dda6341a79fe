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

"""The permissions of the three roles; no other role has any."""

import os
from pathlib import Path
import time

from oslo_config import cfg
from oslo_context.context import RequestContext
from oslo_policy import policy
import pytest

import kongming
from kongming import exception, policies
from kongming.api.identity import UNKNOWN_PROJECT
from kongming.api.resources import RESOURCES

ROOT = Path(kongming.__file__).parents[1]
MINE, OTHERS = "mine", "others"
RULES = {rule.name: rule for rule in policies.list_rules()}
OPERATIONS = [name for name, rule in RULES.items() if hasattr(rule, "operations")]
FOR_READERS = [
    "kongming:allocation:list",
    "kongming:allocation:get",
    "kongming:allocation:history",
]
ROLES = ("reader", "member", "manager", "Admins", "administrator", "services", "operator", "")


def options(folder):
    conf = cfg.ConfigOpts()
    conf([], default_config_files=[], default_config_dirs=[str(folder)], project="kongming")
    return conf


@pytest.fixture
def conf(tmp_path):
    return options(tmp_path)


@pytest.fixture(scope="module")
def may(tmp_path_factory):
    enforcer = policies.make_enforcer(options(tmp_path_factory.mktemp("without-policy")))
    # No file is looked for again.
    enforcer.use_conf = False

    def may(rule, project_id, *roles, of=MINE, **who):
        user = RequestContext(user_id="somebody", roles=list(roles), project_id=of, **who)
        return enforcer.authorize(rule, {"project_id": project_id}, user, do_raise=False)

    return may


@pytest.mark.parametrize("rule", OPERATIONS)
@pytest.mark.parametrize("role", ["admin", "service"])
@pytest.mark.parametrize("project_id", [MINE, OTHERS, UNKNOWN_PROJECT])
def test_administrators_and_services_have_all_rights(may, rule, role, project_id):
    assert may(rule, project_id, role)
    assert may(rule, project_id, role.upper(), "reader")


@pytest.mark.parametrize("rule", OPERATIONS)
def test_readers_see_their_project(may, rule):
    assert may(rule, MINE, "reader") == (rule in FOR_READERS)
    assert not may(rule, OTHERS, "reader")


@pytest.mark.parametrize("rule", OPERATIONS)
@pytest.mark.parametrize("project_id", [MINE, OTHERS, UNKNOWN_PROJECT])
def test_other_roles_have_no_rights(may, rule, project_id):
    for role in ROLES[1:]:
        assert not may(rule, project_id, role)
    assert not may(rule, project_id, *ROLES[1:])
    assert not may(rule, project_id)


@pytest.mark.parametrize("rule", OPERATIONS)
@pytest.mark.parametrize("of", [None, "", MINE, OTHERS])
def test_an_instance_of_no_known_project_is_hidden_from_readers(may, rule, of):
    assert not may(rule, UNKNOWN_PROJECT, "reader", of=of)


@pytest.mark.parametrize("rule", OPERATIONS)
@pytest.mark.parametrize("project_id", [MINE, OTHERS, UNKNOWN_PROJECT, "*", "%(project_id)s"])
@pytest.mark.parametrize("of", [None, ""])
def test_a_token_without_a_project_sees_no_instance(may, rule, project_id, of):
    assert not may(rule, project_id, "reader", "member", of=of)


@pytest.mark.parametrize("rule", OPERATIONS)
@pytest.mark.parametrize("scope", [{"system_scope": "all"}, {"domain_id": "default"}])
def test_tokens_of_the_system_and_of_domains_have_no_rights(may, rule, scope):
    assert not may(rule, UNKNOWN_PROJECT, "admin", "reader", of=None, **scope)


def test_an_unknown_rule_is_an_error(may):
    with pytest.raises(policy.PolicyNotRegistered):
        may("kongming:host:set", MINE, "admin")


def test_each_rule_is_documented():
    for name, rule in RULES.items():
        assert rule.description.endswith("."), name
        assert rule.description[0].isupper(), name
    for name in OPERATIONS:
        assert RULES[name].scope_types == ["project"]
        assert RULES[name].operations


def test_each_operation_has_its_rule():
    there = {
        (method, kind.path)
        for kind in RESOURCES
        for method, each in kind.operations.items()
        if not each.public
    }
    ruled = {
        (operation["method"], operation["path"].partition("?")[0])
        for name in OPERATIONS
        for operation in RULES[name].operations
    }
    assert ruled == there


def test_an_operator_changes_a_rule(conf, tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text('"kongming:admin_or_service": "role:mano"\n')
    policies.make_enforcer(conf)
    conf.set_override("policy_file", str(path), group="oslo_policy")
    enforcer = policies.make_enforcer(conf)
    target = {"project_id": UNKNOWN_PROJECT}
    for role, allowed in (("mano", True), ("admin", False), ("reader", False)):
        user = RequestContext(user_id="x", roles=[role], project_id=MINE)
        for rule in OPERATIONS:
            assert enforcer.authorize(rule, target, user, do_raise=False) is allowed
    # Also while the API runs.
    path.write_text('"kongming:admin_or_service": "role:admin"\n')
    os.utime(path, (later := time.time() + 10, later))
    user = RequestContext(user_id="x", roles=["mano"], project_id=MINE)
    assert not enforcer.authorize("kongming:map:set", target, user, do_raise=False)


@pytest.mark.parametrize("text", ["- a\n", '"a: b\n', "\t", '"kongming:host:get": "role:"\n: :'])
def test_a_file_that_is_no_policy_ends_the_start(conf, tmp_path, text):
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    policies.make_enforcer(conf)
    conf.set_override("policy_file", str(path), group="oslo_policy")
    with pytest.raises(exception.ConfigInvalid, match="policy_file"):
        policies.make_enforcer(conf)


@pytest.mark.parametrize(
    "written",
    [
        *("no", "off", "No", "FALSE", "null", "~", "", "0", "010", "1:20", "2026-01-01", "{}"),
        *("[no]", "[[role:admin], off]", '"!"\n"kongming:map:set": "@"'),
    ],
)
def test_a_rule_that_would_be_another_than_was_typed_is_refused(conf, tmp_path, written):
    path = tmp_path / "policy.yaml"
    path.write_text(f'"kongming:host:get": "role:a"\n"kongming:map:set": {written}\n')
    policies.make_enforcer(conf)
    conf.set_override("policy_file", str(path), group="oslo_policy")
    with pytest.raises(
        exception.ConfigInvalid, match=r"line [23]: 'kongming:map:set' (has no|is)"
    ):
        policies.make_enforcer(conf)


@pytest.mark.parametrize("written", ['""', '"@"', "role:admin", "[]", "[[role:admin], rule:x]"])
def test_a_rule_with_the_intended_meaning_is_accepted(conf, tmp_path, written):
    path = tmp_path / "policy.yaml"
    path.write_text(f'"kongming:map:set": {written}\n"x": "@"\n')
    policies.make_enforcer(conf)
    conf.set_override("policy_file", str(path), group="oslo_policy")
    admin = RequestContext(user_id="x", roles=["admin"], project_id=MINE)
    assert policies.make_enforcer(conf).authorize("kongming:map:set", {}, admin, do_raise=False)


@pytest.mark.parametrize("folder", [False, True])
def test_the_former_rules_stay_where_a_file_becomes_invalid(conf, tmp_path, caplog, folder):
    path = tmp_path / "policy.d" / "policy.yaml"
    path.parent.mkdir()
    path.write_text('"kongming:map:set": "role:mano"\n')
    policies.make_enforcer(conf)
    name, value = ("policy_dirs", [str(path.parent)]) if folder else ("policy_file", str(path))
    conf.set_override(name, value, group="oslo_policy")
    enforcer = policies.make_enforcer(conf)

    def allowed():
        roles = ("mano", "stranger")
        users = [RequestContext(user_id="x", roles=[role], project_id=MINE) for role in roles]
        return [enforcer.authorize("kongming:map:set", {}, u, do_raise=False) for u in users]

    for number, text in enumerate(("no", '"role:stranger"'), 1):
        assert allowed() == allowed() == [True, False]
        path.write_text(f'"kongming:map:set": {text}\n')
        for changed in (path, path.parent):
            os.utime(changed, (later := time.time() + 10 * number, later))
    assert allowed() == [False, True]
    (refused,) = [each.getMessage() for each in caplog.records if "refused" in each.getMessage()]
    assert refused.startswith(f"Policy refused: {path}, line 1: 'kongming:map:set' has no")
