#!/bin/sh
# Make the environment $VENV and install the lock $REQ and this package into it. Running it again is cheap and harmless.
#
#   PYTHON  an interpreter, 3.11 or newer    UV  path of uv, or empty: uses it when given, else venv and pip
#
# Everything is pinned by hash. What builds the package is in the locks too, hence --no-build-isolation.
set -eu
: "${REQ:?the lock to install}" "${VENV:=.venv}" "${PYTHON:=}" "${UV:=}"
tool=${UV:+uv}
tool=${tool:-pip}

stop() {
    printf '%s\n' "$@" >&2
    exit 1
}

in_container() {
    [ -n "${CI:-}" ] || [ -e /.dockerenv ] || [ -e /run/.containerenv ] || grep -qa '^container=' /proc/1/environ 2>/dev/null
}

# Debian splits ensurepip off python3; without it an environment has no pip.
need_ensurepip() {
    "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null && return
    package=$("$PYTHON" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    install="apt-get install -y $package"
    command -v apt-get >/dev/null 2>&1 || stop "This $PYTHON has no venv and ensurepip: install them, or uv, and try again."
    if [ "$(id -u)" -eq 0 ] && in_container; then
        echo "This $PYTHON has no ensurepip. Running: $install"
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive $install -qq; } >/dev/null ||
            stop "That failed. Run it by hand, or install uv."
    else
        stop "This $PYTHON has no ensurepip. Run this and try again (or install uv):" "  sudo $install"
    fi
}

make_environment() {
    if [ -n "$UV" ]; then
        "$UV" venv --quiet --clear --no-project --python "${PYTHON:->=3.11}" "$VENV"
    else
        [ -n "$PYTHON" ] || stop "Derecho needs Python 3.11 or newer, or uv, and found neither."
        need_ensurepip
        "$PYTHON" -m venv --clear "$VENV"
    fi
}

install() {
    if [ -n "$UV" ]; then
        "$UV" pip install --quiet --python "$VENV/bin/python" "$@"
    else
        # An environment that uv made has no pip yet.
        "$VENV/bin/python" -m pip --version >/dev/null 2>&1 || "$VENV/bin/python" -m ensurepip >/dev/null
        PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 "$VENV/bin/python" -m pip install -qq "$@"
    fi
}

# Also true for an environment whose Python was removed, or whose folder was copied from elsewhere.
"$VENV/bin/python" -c 'import os, sys; sys.exit(not os.path.samefile(sys.prefix, sys.argv[1]))' "$VENV" 2>/dev/null || make_environment
echo "Setting up $VENV from $REQ ($("$VENV/bin/python" -V), $tool)"
install --require-hashes -r "$REQ"
install --no-deps --no-build-isolation -e .
