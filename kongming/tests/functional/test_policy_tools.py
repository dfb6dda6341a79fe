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
"""oslo.policy's own tools find Kongming's rules."""

from pathlib import Path
import subprocess
import sys

from kongming.policies import list_rules

BIN = Path(sys.executable).parent


def tool(name, *arguments):
    """Run one of oslo.policy's own tools; return what it writes."""
    done = subprocess.run(
        [str(BIN / name), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_tools_of_oslo_policy_know_the_rules(tmp_path):
    (rule,) = [each for each in list_rules() if each.name == "kongming:host:list"]
    (tmp_path / "policy.yaml").write_text(f'"{rule.name}": "{rule.check_str}"\n')
    config = tmp_path / "kongming.conf"
    config.write_text(f"[oslo_policy]\npolicy_file = {tmp_path}/policy.yaml\n")
    named = ("--namespace", "kongming", "--config-file", str(config))
    assert rule.name in tool("oslopolicy-list-redundant", *named)
    assert rule.name in tool("oslopolicy-policy-generator", *named)
