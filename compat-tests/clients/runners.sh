# How clients are installed and run, by their language. What `run` beside a client sources: it then
# is in the client's folder. Each takes the name of a folder for what is installed, and how many
# seconds the client may take.
set -euo pipefail
shared=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/triglot-originals
cd "$(dirname "$0")"

# python NAME SECONDS: runs client.py, with what requirements.txt names.
python() {
    local venv=$cache/$1
    [[ -x "$venv/bin/pip" ]] || python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r requirements.txt
    PYTHONPATH=$shared PYTHONDONTWRITEBYTECODE=1 exec timeout "$2" "$venv/bin/python" client.py
}

# java_class NAME SECONDS CLASS: runs a class below src, with what pom.xml names.
java_class() {
    local target=$cache/$1
    mkdir -p "$target"
    cp -r pom.xml src "$target"
    cp "$shared/Jobs.java" "$target/src/main/java"
    cd "$target"
    mvn --batch-mode --quiet compile dependency:build-classpath -Dmdep.outputFile=classpath > maven.log 2>&1 ||
        { cat maven.log && exit 1; }
    exec timeout "$2" java -cp "target/classes:$(cat classpath)" "$3"
}

# node_js NAME SECONDS: runs client.js, with what package.json names.
node_js() {
    local modules=$cache/$1
    mkdir -p "$modules"
    cp package.json client.js "$modules"
    cd "$modules"
    npm install --silent --no-audit --no-fund
    exec timeout "$2" node client.js
}

# rust NAME SECONDS: runs the program `clients`.
rust() {
    local target=$cache/$1
    cargo build --quiet --locked --target-dir "$target"
    exec timeout "$2" "$target/debug/clients"
}

# go NAME SECONDS: runs the program of this folder.
go() {
    GOFLAGS=-mod=readonly command go build -o "$cache/$1" .
    exec timeout "$2" "$cache/$1"
}

# go_tool NAME: builds the program of others that go.mod names as its tool.
go_tool() { GOFLAGS=-mod=readonly command go build -o "$cache/$1" tool; }
