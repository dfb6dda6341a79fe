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

"""How the documentation is built."""

from kongming import version as kongming_version

project = "Kongming"
author = "The Kongming developers"
project_copyright = "The Kongming developers"
version = release = kongming_version.release()

extensions = [
    "openstackdocstheme",
    "oslo_config.sphinxext",
    "oslo_policy.sphinxext",
    "sphinx.ext.autodoc",
]
# The fields of resources have no readable value.
autodoc_default_options = {"members": True, "member-order": "bysource", "no-value": True}
autodoc_typehints = "none"
exclude_patterns = ["**/*.inc"]
pygments_style = "native"

# Translations: tools/translations.py makes a .po file of each document. Without locations, an
# edit of a document changes only the messages that it changed.
locale_dirs = ["locale/"]
gettext_compact = False
gettext_uuid = False
gettext_location = False

html_theme = "openstackdocs"
# The theme's default tells a server of each page that is read.
html_theme_options = {"analytics_tracking_code": ""}
# Nothing is to be taken from a git repository: releases are built without one.
openstackdocs_auto_name = False
openstackdocs_auto_version = False
openstackdocs_repo_name = ""
openstackdocs_use_storyboard = False

man_pages = [
    (
        "cli/kongming-conductor",
        "kongming-conductor",
        "deliver desired allocations to compute hosts",
        [author],
        1,
    ),
    (
        "cli/kongming-executor",
        "kongming-executor",
        "place the guests of this host as requested through Kongming's API",
        [author],
        1,
    ),
    (
        "cli/kongming-manage",
        "kongming-manage",
        "inspect and change the placement of guests on a compute host",
        [author],
        1,
    ),
    (
        "cli/kongming-notification-handler",
        "kongming-notification-handler",
        "place the guests of this host as their Nova metadata requests",
        [author],
        1,
    ),
    (
        "cli/kongming-status",
        "kongming-status",
        "check the installation on a compute host",
        [author],
        1,
    ),
    (
        "cli/openstack-kongming",
        "openstack-kongming",
        "request the placement of guests through Kongming's API",
        [author],
        1,
    ),
]
