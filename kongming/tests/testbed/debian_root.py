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

"""Debian roots: any command on a fresh Debian, as on a machine or as in a plain container.

    tools/debian-root run trixie tools/demo --services

A root is made by debootstrap once and kept. Each command runs on a layer above it, in
namespaces of its own, and the layer goes away with the command, unless it has a name.

A *machine* has all rights of the caller's root, /sys with the control groups, and an init that
reaps; with --systemd that is Debian's own systemd, which starts the services of packages that are
installed in it. A *container* (--container) is what `docker run` makes of the same image by
default: fourteen capabilities, a seccomp filter that refuses mount, unshare, setns, keyctl and
their like, /sys and /proc/sys read-only, the command as the first process. All have a minimal
/dev without /dev/kvm, and share the machine's kernel and network; a container's AppArmor profile,
its limits and its own network are not emulated.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
import contextlib
from dataclasses import asdict, dataclass
import fcntl
import json
import os
from pathlib import Path
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from kongming.tests.testbed import booted_root, namespace
from kongming.tests.testbed.debian_package import cache_folder, output
from kongming.tests.testbed.process import find_program
from kongming.tests.testbed.root_init import Place

TOP = Path(__file__).resolve().parents[3]
TREE = "root/kongming"
SUITES = ("bookworm", "trixie")
INTERRUPTED = 128 + signal.SIGINT
SYSTEMD_PACKAGES = ("systemd", "systemd-sysv", "dbus", "procps", "iproute2")
DEMOS = ((), ("--services",), ("--standalone",))
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What apt and pip need to know of the way to their registries, and nothing else.
APT_SETTING = re.compile(r"Acquire::(http|https|Check-|Retries|ForceIPv)", re.IGNORECASE)
PIP_SETTING = re.compile(
    r"[^.]+\.\.?(cert|client-cert|default-timeout|extra-index-url|index-url|no-index|proxy|"
    r"retries|timeout|trusted-host)="
)
VARIABLE = re.compile(r"\w+_proxy|SSL_CERT_FILE|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE", re.IGNORECASE)
# Where the files are that the settings name: no package of the root renews them.
HANDED_OVER = "etc/handed-over"


class Roots:
    """The kept roots, and the layers above them, in one folder."""

    def __init__(self, folder: Path, mirror: str | None = None) -> None:
        self._folder = folder
        self._mirror = mirror

    def base(self, suite: str, *, systemd: bool = False) -> Path:
        """Return the root of a suite; made by debootstrap if it isn't there yet.

        :param systemd: whether systemd is in it
        """
        name = f"{suite}-systemd" if systemd else suite
        base = self._folder / name
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not base.exists():
                self._make(suite, base, SYSTEMD_PACKAGES if systemd else ())
        return base

    @contextlib.contextmanager
    def layer(self, name: str | None) -> Iterator[Path]:
        """Give the folder of a layer; one without a name is removed at the end."""
        layers = self._folder / "layers"
        layers.mkdir(parents=True, exist_ok=True)
        if name is not None:
            (layers / name).mkdir(exist_ok=True)
            yield layers / name
            return
        layer = Path(tempfile.mkdtemp(dir=layers, prefix="once-"))
        try:
            yield layer
        finally:
            shutil.rmtree(layer, ignore_errors=True)

    def clean(self) -> None:
        """Remove all roots and layers."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _make(self, suite: str, base: Path, packages: Sequence[str]) -> None:
        mirror = self._mirror or machines_mirror()
        print(f"== Debian {suite} from {mirror}: about half a minute", flush=True)
        making = base.with_suffix(".making")
        shutil.rmtree(making, ignore_errors=True)
        debootstrap = find_program("debootstrap", "debootstrap")
        log = base.with_suffix(".log")
        with log.open("wb") as written:
            done = subprocess.run(
                [
                    *(debootstrap, "--variant=minbase"),
                    *([f"--include={','.join(packages)}"] if packages else []),
                    *(suite, str(making), mirror),
                ],
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if done.returncode:
            raise RuntimeError(f"debootstrap failed, see {log}")
        making.rename(base)


def machines_mirror() -> str:
    """Return the address of the Debian archive in the machine's own apt sources.

    :raises RuntimeError: there is none
    """
    targets = output("apt-get", "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)")
    for line in targets.splitlines():
        origin, label, address = line.split("|", 2)
        if origin == label == "Debian":
            return address.rstrip("/")
    raise RuntimeError("apt knows no Debian archive: run apt-get update, or give --mirror")


@dataclass(frozen=True)
class HandedOver:
    """What a command in the root gets of the machine's settings.

    :param environment: variables
    :param files: what they name: path in the root → file of the machine
    :param apt: lines of an apt.conf
    """

    environment: Mapping[str, str]
    files: Mapping[str, Path]
    apt: tuple[str, ...]


def handed_over(environment: Mapping[str, str], apt: str, pip: str) -> HandedOver:
    """Choose from the machine's settings those that lead to the registries.

    :param apt: what `apt-config dump` prints
    :param pip: what `pip config list` prints
    """
    chosen = {name: value for name, value in environment.items() if VARIABLE.fullmatch(name)}
    for line in pip.splitlines():
        if PIP_SETTING.match(line):
            name, _, value = line.partition("=")
            chosen["PIP_" + name.rpartition(".")[2].upper().replace("-", "_")] = (
                _without_local_addresses(ast.literal_eval(value))
            )
    files = {}
    for name, value in chosen.items():
        if value.startswith("/") and Path(value).is_file():
            files[f"{HANDED_OVER}/{name}"] = Path(value)
            chosen[name] = f"/{HANDED_OVER}/{name}"
    lines = tuple(line for line in apt.splitlines() if APT_SETTING.match(line))
    return HandedOver({name: value for name, value in chosen.items() if value}, files, lines)


def _without_local_addresses(value: str) -> str:
    return " ".join(item for item in value.split() if not item.startswith("file:"))


def machines_settings() -> HandedOver:
    """Return what a command in a root gets of this machine's settings."""
    pip = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        capture_output=True,
        text=True,
        check=False,
    )
    return handed_over(os.environ, output("apt-config", "dump"), pip.stdout)


def lay_settings(root: Path, settings: HandedOver, *, systemd: bool = False) -> None:
    """Write what a root gets of the machine: settings, names of hosts.

    :param systemd: whether packages start their services
    """
    for path, source in settings.files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, root / path)
    apt = root / "etc/apt/apt.conf.d"
    apt.mkdir(parents=True, exist_ok=True)
    (apt / "99handed-over").write_text("".join(f"{line}\n" for line in settings.apt))
    for file in ("resolv.conf", "hosts"):
        shutil.copyfile(Path("/etc", file), root / "etc" / file)
    with (root / "etc/hosts").open("a") as hosts:
        hosts.write("127.0.0.1 debian\n")
    # As Debian's images for containers have it: no service is started, and dpkg doesn't sync.
    if systemd:
        (root / "etc/hostname").write_text("debian\n")
    else:
        policy = root / "usr/sbin/policy-rc.d"
        policy.parent.mkdir(parents=True, exist_ok=True)
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    dpkg = root / "etc/dpkg/dpkg.cfg.d"
    dpkg.mkdir(parents=True, exist_ok=True)
    (dpkg / "unsafe-io").write_text("force-unsafe-io\n")


def lay_tree(tree: Path) -> None:
    """Clone this source tree, with what is changed in it and not committed yet."""
    # The clone may belong to another user than root.
    git = [find_program("git", "git"), "-c", "safe.directory=*", "-C"]
    if tree.exists():
        # That of a kept layer, of another day.
        subprocess.run([*git, str(tree), "fetch", "--quiet", str(TOP), "HEAD"], check=True)
        subprocess.run([*git, str(tree), "reset", "--quiet", "--hard", "FETCH_HEAD"], check=True)
        subprocess.run([*git, str(tree), "clean", "--quiet", "-d", "--force"], check=True)
    else:
        tree.parent.mkdir(parents=True, exist_ok=True)
        tree.parent.chmod(0o700)
        subprocess.run([*git, str(TOP), "clone", "--quiet", ".", str(tree)], check=True)
    listing = [*git, str(TOP), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (TOP / name).exists():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TOP / name, tree / name)
        else:
            (tree / name).unlink(missing_ok=True)


def run(
    roots: Roots,
    suite: str,
    layer: Path,
    command: Sequence[str],
    *,
    confined: bool = False,
    systemd: bool = False,
) -> int:
    """Run a command on a layer above a suite's root, in this source tree; give its status.

    :raises RuntimeError: this machine allows no mounts
    """
    if refusal := namespace.refusal():
        raise RuntimeError(f"this machine can't mount file systems: {refusal}")
    base = roots.base(suite, systemd=systemd)
    root, layers = _laid_over(base, layer)
    changes = layer / "changes" if layers else root
    settings = machines_settings()
    lay_settings(changes, settings, systemd=systemd)
    lay_tree(changes / TREE)
    environment = {"PATH": PATH, "HOME": "/root", **settings.environment}
    if "TERM" in os.environ:
        environment["TERM"] = os.environ["TERM"]
    group = f"kongming-{layer.name}" if systemd else None
    place = Place(str(root), layers, confined, f"/{TREE}", environment, tuple(command), group)
    namespaces = ["--mount", "--pid", "--ipc", "--uts", *(["--cgroup"] if confined else [])]
    inside = [
        find_program("unshare", "util-linux"),
        *(*namespaces, "--propagation", "private", "--fork", "--kill-child=KILL"),
        *(sys.executable, "-m", "kongming.tests.testbed.root_init", json.dumps(asdict(place))),
    ]
    surroundings = {**os.environ, "PYTHONPATH": str(TOP)}
    # The command has the same terminal, and ends in its own way.
    former = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        if group is not None:
            return booted_root.run(inside, surroundings, place, layer / "boot.log")
        return subprocess.run(inside, env=surroundings, check=False).returncode
    finally:
        signal.signal(signal.SIGINT, former)


def _laid_over(base: Path, layer: Path) -> tuple[Path, str | None]:
    """Prepare a layer; give its root directory and the options for overlayfs.

    Where overlayfs can't be, as on another overlayfs, the layer gets a copy of the root.
    """
    root, changes, work = (layer / name for name in ("root", "changes", "work"))
    for folder in (root, changes, work):
        folder.mkdir(exist_ok=True)
    options = f"lowerdir={base},upperdir={changes},workdir={work}"
    trial = ["unshare", "--mount", "mount", "-t", "overlay", "-o", options, "overlay", str(root)]
    if subprocess.run(trial, capture_output=True, check=False).returncode == 0:
        return root, options
    if not (root / "etc").exists():
        subprocess.run(["cp", "-a", "--reflink=auto", f"{base}/.", str(root)], check=True)
    return root, None


def demos(roots: Roots, suites: Iterable[str]) -> int:
    """Run the three demonstrations in each suite, as a machine and as a container."""
    rows = []
    for suite in suites:
        for confined in (False, True):
            with roots.layer(None) as layer:
                for options in DEMOS:
                    kind = "container" if confined else "machine"
                    command = ["tools/demo", *options]
                    print(f"== {suite}, as a {kind}: {' '.join(command)}", flush=True)
                    began = time.monotonic()
                    status = run(roots, suite, layer, command, confined=confined)
                    rows.append((suite, kind, command, status, time.monotonic() - began))
                    if status == INTERRUPTED:
                        raise KeyboardInterrupt
    for suite, kind, command, status, seconds in rows:
        print(f"{suite:<9} {kind:<10} {' '.join(command):<24} exit {status}  {seconds:4.0f} s")
    return int(any(row[3] for row in rows))


def main(arguments: Sequence[str]) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        "tools/debian-root",
        description=(__doc__ or "").replace("``", ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--directory",
        type=Path,
        default=cache_folder() / "debian-roots",
        help="where roots and layers are kept (%(default)s)",
    )
    parser.add_argument("--mirror", help="a Debian archive (that of this machine's apt)")
    actions = parser.add_subparsers(dest="action", required=True)
    one = actions.add_parser("run", help="run a command, or a shell, in this tree in a root")
    one.add_argument("--container", action="store_true", help="as in a plain container")
    one.add_argument("--systemd", action="store_true", help="systemd is its init")
    one.add_argument("--layer", help="the name of a layer, which is kept")
    one.add_argument("suite", help="bookworm, trixie, ...")
    one.add_argument("command", nargs=argparse.REMAINDER, help="bash if there is none")
    all_demos = actions.add_parser("demo", help="run tools/demo, --services and --standalone")
    all_demos.add_argument("suites", nargs="*", default=SUITES, help="bookworm and trixie")
    actions.add_parser("clean", help="remove all roots and layers")
    chosen = parser.parse_args(arguments)
    roots = Roots(chosen.directory, chosen.mirror)
    if os.geteuid() != 0:
        print("tools/debian-root changes roots and mounts: run it as root", file=sys.stderr)
        return 2
    try:
        if chosen.action == "run":
            with roots.layer(chosen.layer) as layer:
                command = chosen.command or ["bash"]
                return run(
                    roots,
                    chosen.suite,
                    layer,
                    command,
                    confined=chosen.container,
                    systemd=chosen.systemd,
                )
        if chosen.action == "demo":
            return demos(roots, chosen.suites)
        roots.clean()
    except KeyboardInterrupt:
        return INTERRUPTED
    except (RuntimeError, FileNotFoundError, TimeoutError, subprocess.CalledProcessError) as error:
        print(f"tools/debian-root: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
