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

"""Texts in a database that can not be read, and the error of each."""

import json

NIGHT = {"name": "night", "start": "0 22 * * *", "duration_s": 3600, "vcpu_pinning": "2"}
DEEP = '{"vcpu_pinning":' * 3000 + '"1"' + "}" * 3000
#: Texts that are no request, and the reason as a pattern.
TEXTS = {
    # From Python 3.12 on more levels can be read.
    "nested 3000 deep": (DEEP, "nested too deeply|not the JSON|is not one of"),
    "a list nested 3000 deep": ("[" * 3000 + "]" * 3000, "nested too deeply|list in place"),
    "lists nested 20 deep": ('{"cpu_shares": ' + "[" * 20 + "]" * 20 + "}", "not the JSON"),
    "1e400": ('{"cpu_shares": 1e400}', "1e400.* is not a whole number"),
    "-1e400": ('{"cpu_shares": -1e400}', "is not a whole number"),
    "NaN": ('{"cpu_shares": NaN}', "NaN is not a JSON number"),
    "Infinity": ('{"cpu_shares": -Infinity}', "-Infinity is not a JSON number"),
    "a fraction": ('{"cpu_shares": 1.5}', "1.5' is not a whole number"),
    "5000 digits": (f'{{"cpu_shares": {"9" * 5000}}}', "not the JSON"),
    "cut": ('{"vcpu_pinn', "not JSON from character 2"),
    "empty": ("", "not JSON from character 1"),
    "a list": ("[]", "list in place of an object"),
    "a text": ('"1"', "str in place of an object"),
    "null": ("null", "NoneType in place of an object"),
    "a null": ('{"vcpu_pinning": null}', "vcpu_pinning is null"),
    "a truth": ('{"cpu_shares": true}', "cpu_shares is true"),
    "a number for a cpuset": ('{"vcpu_pinning": 5}', "not the JSON"),
    "a cpuset that is none": ('{"numa_nodes": "x"}', "item 'x'"),
    "a field of a newer version": ('{"vcpu_pinning": "1", "llc": "0"}', "know its field 'llc'"),
    "a field in a window": (json.dumps({"windows": [{**NIGHT, "llc": "0"}]}), "field 'llc'"),
    "a field in a quota": (
        '{"vcpu_quota": {"quota_us": 1, "period_us": 9, "burst_us": 1}}',
        "field 'burst_us'",
    ),
    "a window that is none": ('{"windows": [1]}', "int in place of an object"),
    "windows that are none": ('{"windows": {"a": 1}}', "windows is not a list"),
    "a duration of text": (json.dumps({"windows": [{**NIGHT, "duration_s": "x"}]}), "not the"),
}
