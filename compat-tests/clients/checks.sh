# What scripts of commands share: they compare what commands print. A script sources this, says what
# it expects, in words of its own where it has to, and ends with `verdict`.
set -euo pipefail
scratch=$(mktemp -d)
trap 'kill $(jobs -p) 2> /dev/null || true; rm -rf "$scratch"' EXIT
passed=0 failed=0

# judge NAME PATTERN OUTPUT: a line of the output must match the extended regular expression.
judge() {
    if grep -Eq -- "$2" <<< "$3"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        printf 'FAIL %s: wanted /%s/, got:\n%s\n' "$1" "$2" "$3"
    fi
}

# expect NAME PATTERN COMMAND...: what the command prints has a line that matches.
expect() { judge "$1" "$2" "$("${@:3}" 2>&1 || true)"; }

# until_true COMMAND...: awaits a condition.
until_true() {
    local tries
    for tries in $(seq 300); do
        "$@" > /dev/null 2>&1 && return
        sleep 0.1
    done
    echo "not so after $tries tries: $*"
    return 1
}

# verdict: how many passed, and whether all did.
verdict() {
    echo "$passed passed, $failed failed"
    ((failed == 0))
}
