# What the jobs of zkCli.sh share, on top of what all scripts of commands do. A script sources this,
# and has the tool's command line in the array `cli`.
source "$(dirname "${BASH_SOURCE[0]}")/../../checks.sh"
output=

# session SERVERS: runs the commands on stdin in one session; what it prints is looked at below.
session() { output=$(timeout 60 "${cli[@]}" -server "$1" 2>&1 || true); }

# shows NAME PATTERN: the session's output has a line that matches the extended regular expression.
shows() { judge "$1" "$2" "$output"; }
