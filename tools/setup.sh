# Sets up what Kongming's tools need: Debian packages and a virtual environment.
# Sourced by tools/demo, tools/test and tools/bench. May be run again at any time, also after
# a run that was interrupted, and beside another one.
#
# Licensed under the Apache License, Version 2.0; see the file LICENSE.

# Else the first file that is opened would take the place of a stdin or stdout that is closed.
: 3>&2 || exec 2>/dev/null
{ : 3<&0; } 2>/dev/null || exec </dev/null
{ : 3>&1; } 2>/dev/null || exec >/dev/null

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
VENV=${KONGMING_VENV:-$TOP/.venv}
SETUP_LOG=/dev/null
# dpkg needs what is there, and `su` leaves it out.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
OFFLINE='resolv|Could not connect|unreachable|onnection (refused|timed out|failed)|NewConnection'

say() {
    if [ -t 1 ]; then printf '\033[1m== %s\033[0m\n' "$*"; else printf '== %s\n' "$*"; fi
}

# fail REASON: one line, with what apt or pip said last. Without a network they blame others.
fail() {
    local said= more=
    if grep -qE "$OFFLINE" "$SETUP_LOG" 2>/dev/null; then
        said="the network can't be reached"
    else
        said=$(grep -hE '^(E|ERROR|fatal|sudo):' "$SETUP_LOG" 2>/dev/null | tail -n 1) || true
    fi
    [ ! -s "$SETUP_LOG" ] || more=" (more in $SETUP_LOG)"
    printf 'ERROR: %s%s%s\n' "$1" "${said:+: $said}" "$more" >&2
    exit 1
}

as_root() {
    # A service that a package starts is not to hold the lock.
    if [ "$(id -u)" = 0 ]; then "$@" 9<&-; else sudo "$@" 9<&-; fi </dev/null >>"$SETUP_LOG" 2>&1
}

apt() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -y -q -o DPkg::Lock::Timeout=600 \
        -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@"
}

install_packages() {
    command -v apt-get >/dev/null ||
        fail "this is not Debian: install what bindep.txt lists ($*), then run this again"
    [ "$(id -u)" = 0 ] || command -v sudo >/dev/null ||
        fail "packages are missing: run 'apt-get install $*' as root, then this again"
    open_log
    say "Debian packages: $*"
    # What an interrupted run has left; and a failed update is told by the install.
    as_root dpkg --configure -a || true
    [ -n "${apt_updated:-}" ] || apt update || true
    apt_updated=yes
    # policy-rc.d is not ours to set: a service that the package starts is left alone.
    apt install --no-install-recommends "$@" || fail "apt-get can't install $*"
}

open_log() {
    [ "$SETUP_LOG" = /dev/null ] || return 0
    mkdir -p "$VENV/tmp" 2>/dev/null && [ -w "$VENV" ] && [ -w "$TOP" ] ||
        fail "$(id -un) can't write in $VENV and $TOP: run this as their owner, or in a copy"
    SETUP_LOG=$VENV/setup.log
    : >"$SETUP_LOG"
}

# Sets PYTHON. Where a virtual environment is active it is the Python that this was made with:
# the environment may be the one that is to be made again.
find_python() {
    local candidate found
    for candidate in "${PYTHON:-python3}" python3.14 python3.13 python3.12 python3.11 \
        /usr/bin/python3; do
        found=$("$candidate" -c '
import ensurepip, sys, venv
print(getattr(sys, "_base_executable", sys.executable))
sys.exit(sys.version_info < (3, 11))' 2>/dev/null) || continue
        PYTHON=$found
        return 0
    done
    return 1
}

# set_up WHAT PROFILE...: WHAT is "run", for what Kongming itself needs, or "test", for all.
# The profiles are those of bindep.txt. Leaves $VENV ready, and first in PATH.
set_up() {
    local what=$1 python missing want stamp
    shift
    exec 9<"$TOP"
    flock -n 9 || { say "another run is setting up; waiting for it"; flock 9; }
    find_python || install_packages python3 python3-venv python3-dev
    find_python || fail "no Python of version 3.11 or newer was found (set PYTHON to one)"
    # A virtual environment works in its place, with its Python, and nowhere else.
    python="$VENV $("$PYTHON" -c 'import sys; print(sys.version)')"
    if [ "$python" != "$(cat "$VENV/.kongming-python" 2>/dev/null)" ]; then
        if [ "$VENV" = "$TOP/.venv" ] || [ -e "$VENV/.kongming-python" ]; then
            rm -rf "$VENV" 2>/dev/null || true
            SETUP_LOG=/dev/null
        fi
        open_log
        say "virtual environment $VENV"
        logged "$PYTHON" -m venv "$VENV" || fail "$PYTHON -m venv failed"
        pip_install bindep
        echo "$python" >"$VENV/.kongming-python"
    fi
    missing=$("$VENV/bin/bindep" -b -f "$TOP/bindep.txt" compile "$@" 2>>"$SETUP_LOG") || true
    # shellcheck disable=SC2086
    [ -z "$missing" ] || install_packages $missing
    want=$(cd "$TOP" && cat constraints.txt requirements.txt test-requirements.txt \
        doc/requirements.txt setup.cfg | sha256sum)
    for stamp in "$what" test; do
        [ "$want" != "$(cat "$VENV/.kongming-$stamp" 2>/dev/null)" ] || want=
    done
    if [ -n "$want" ]; then
        open_log
        say "Python packages, as pinned in constraints.txt (half a minute to two)"
        local files=()
        [ "$what" = run ] ||
            files+=(-r "$TOP/test-requirements.txt" -r "$TOP/doc/requirements.txt")
        pip_install setuptools pbr
        install_tree "${files[@]}"
        echo "$want" >"$VENV/.kongming-$what"
    fi
    exec 9<&-
    PATH=$VENV/bin:$PATH
}

# install_tree ARGUMENTS: the tree with what all of its services need, and these besides.
# The tree's version comes from git, also in a clone of another user's; a tarball has none.
install_tree() {
    (
        export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0=$TOP
        [ "$(git -C "$TOP" rev-parse --show-toplevel 2>/dev/null)" = "$TOP" ] ||
            export PBR_VERSION=${PBR_VERSION:-0.0.1}
        # Else libvirt-python would be built with the newest setuptools, not the pinned one.
        pip_install --no-build-isolation "$@" -e "$TOP[compute,controller]"
    ) || exit 1
}

pip_install() {
    logged "$VENV/bin/python" -m pip --disable-pip-version-check install -q --no-compile \
        -c "$TOP/constraints.txt" "$@" || fail "pip install failed"
}

# /tmp may be small, or mounted noexec.
logged() { TMPDIR=$VENV/tmp "$@" </dev/null >>"$SETUP_LOG" 2>&1; }

# reaping COMMAND...: see the module.
reaping() { python -m kongming.tests.testbed.reaper "$@"; }
