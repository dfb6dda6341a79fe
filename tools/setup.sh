# Sets up what Kongming's tools need: Debian packages and a virtual environment.
# Sourced by tools/demo, tools/test and tools/bench. May be run again at any time;
# what is there already is left alone.
#
# Licensed under the Apache License, Version 2.0; see the file LICENSE.

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=${KONGMING_VENV:-$TOP/.venv}
SETUP_LOG=$(mktemp -t kongming-setup.XXXXXX)

say() { printf '\033[1m== %s\033[0m\n' "$*"; }

fail() {
    printf 'ERROR: %s\n' "$*" >&2
    [ ! -s "$SETUP_LOG" ] || { echo "--- the end of $SETUP_LOG:" >&2; tail -n 25 "$SETUP_LOG" >&2; }
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "installing packages needs root: run '$*' as root, then this again"
    fi
}

install_packages() {
    command -v apt-get >/dev/null ||
        fail "this is no Debian: install yourself what bindep.txt lists ($*), then run this again"
    say "Debian packages: $*"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q >>"$SETUP_LOG" 2>&1 ||
        fail "apt-get update failed"
    # policy-rc.d is not ours to set: a service that the package starts is left alone.
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" \
        >>"$SETUP_LOG" 2>&1 || fail "apt-get install failed"
}

find_python() {
    local candidate
    for candidate in "${PYTHON:-python3}" python3.13 python3.12 python3.11 /usr/bin/python3; do
        if "$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' \
            2>/dev/null; then
            PYTHON=$candidate
            return 0
        fi
    done
    return 1
}

# set_up PROFILE...: profiles of bindep.txt. Leaves $VENV ready.
set_up() {
    find_python || install_packages python3 python3-venv python3-dev
    find_python || fail "no Python of version 3.11 or newer was found (set PYTHON to one)"
    local want have
    want=$(cd "$TOP" && cat constraints.txt requirements.txt test-requirements.txt \
        doc/requirements.txt setup.cfg | sha256sum)
    have=$(cat "$VENV/.kongming-setup" 2>/dev/null || true)
    if [ "$want" != "$have" ] && ! [ -x "$VENV/bin/bindep" ]; then
        say "virtual environment $VENV"
        "$PYTHON" -m venv "$VENV" >>"$SETUP_LOG" 2>&1 || fail "$PYTHON -m venv failed"
        pip_install bindep
    fi
    local missing
    missing=$("$VENV/bin/bindep" -b -f "$TOP/bindep.txt" compile "$@" 2>>"$SETUP_LOG") || true
    # shellcheck disable=SC2086
    [ -z "$missing" ] || install_packages $missing
    if [ "$want" != "$have" ]; then
        say "Python packages, as pinned in constraints.txt (a minute or two)"
        pip_install -r "$TOP/requirements.txt" -r "$TOP/test-requirements.txt" \
            -r "$TOP/doc/requirements.txt"
        pip_install --no-build-isolation --no-deps -e "$TOP"
        echo "$want" >"$VENV/.kongming-setup"
    fi
    rm -f "$SETUP_LOG"
    PATH=$VENV/bin:$PATH
}

# reaping COMMAND...: QEMU's parent is the machine's init, which in some containers takes
# a second or two to see that it has ended, and libvirt waits for that. tini does at once.
reaping() { tini -s -- "$@"; }

pip_install() {
    "$VENV/bin/python" -m pip --disable-pip-version-check install -q -c "$TOP/constraints.txt" \
        "$@" >>"$SETUP_LOG" 2>&1 || fail "pip install failed"
}
