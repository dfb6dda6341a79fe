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

"""A service's metrics, as Prometheus would read them."""

from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from kongming.tests.testbed.process import patience, wait_until


def scrape(port):
    """Return the values of all samples without labels, and those of the guests by status."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30 * patience()) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return {
        sample.labels.get("status", sample.name): sample.value
        for family in families
        for sample in family.samples
        if not sample.labels or sample.name == "kongming_guests"
    }


def wait_value(port, name, value):
    wait_until(lambda: scrape(port)[name] == value, 60, f"{name} is {value}")


def enabled(port):
    return f"[metrics]\nenabled = true\nlisten_port = {port}\n"
