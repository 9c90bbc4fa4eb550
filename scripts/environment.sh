# Sourced by the other scripts: makes .venv with this project in it, or brings it up to date. A script that is interrupted
# leaves nothing running behind it.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
unset PYTHONDONTWRITEBYTECODE  # without bytecode, every process compiles the library, and pytest all tests, again

# end_tree PID: ends a process and what it began.
end_tree() {
    local child children
    children=$(pgrep -P "$1") || true
    kill "$1" 2>/dev/null || true
    for child in $children; do
        end_tree "$child"
    done
}

end_background() {
    local child
    for child in $(jobs -pr); do
        end_tree "$child"
    done
    wait
}
trap end_background EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Prints the first Python that is new enough and can make virtual environments.
find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11 python; do
        if [ -n "$candidate" ] && "$candidate" -c \
            'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "Python 3.11 or later with its venv module is needed. Name one: PYTHON=/path/to/python3 $0" >&2
    return 1
}

# install EXTRAS: `install` alone is the package, `install '[dev]'` adds what checks need.
install() {
    local extras="${1:-}" python wanted
    if ! [ -x .venv/bin/python ]; then
        python=$(find_python) || exit 1
        echo "Making .venv with $("$python" --version) …"
        "$python" -m venv .venv || exit 1
    fi
    wanted="$extras $(cksum pyproject.toml src/chatkit_sessions/_version.py)"
    if [ "$(cat ".venv/installed$extras" 2>/dev/null)" != "$wanted" ]; then
        echo "Installing chatkit_sessions$extras …"
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --editable ".$extras" || exit 1
        echo "$wanted" >".venv/installed$extras"
    fi
}
