#!/usr/bin/env bash
# Programs that the tests use and pip cannot bring: Chromium, which opens the report as a reader does.
# Never fails: what cannot be installed is named, and the tests that need it say so when they skip.
#
#   OGIVE_SYSTEM_PACKAGES=no make setup     installs nothing outside .venv
set -uo pipefail

skip() {
    echo "== system packages: $1; the tests that open the report in a browser will be skipped"
    exit 0
}

for name in chromium chromium-browser google-chrome; do
    command -v "$name" >/dev/null 2>&1 && exit 0
done
[ "${OGIVE_SYSTEM_PACKAGES:-yes}" != no ] || skip "left alone, as asked"
command -v apt-get >/dev/null 2>&1 || skip "no Chromium, and no apt-get to install it with"
[ "$(id -u)" = 0 ] || skip "no Chromium, and not root (sudo apt-get install chromium)"

echo "== system packages: chromium"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { apt-get update && apt-get install --yes --no-install-recommends chromium fonts-liberation; } >"$log" 2>&1 </dev/null; then
    tail -n 5 "$log"
    skip "apt-get could not install Chromium"
fi
