#!/bin/sh
# Installs what `make demo` and `make test` need: Debian packages (when some are missing) and npm packages.
set -eu
cd "$(dirname "$0")/.."

packages="crun git docker-registry skopeo umoci busybox-static mmdebstrap openssh-client ca-certificates"

missing=""
for package in $packages; do
  if command -v dpkg-query >/dev/null 2>&1; then
    state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing="$missing $package"
  else
    missing="$missing $package"
  fi
done

if [ -n "$missing" ]; then
  if ! command -v apt-get >/dev/null 2>&1; then
    cat >&2 <<TEXT
This machine isn't Debian (there is no apt-get), so these can't be installed for you:
 $missing
Install crun or runc, git, the "distribution" registry as docker-registry, skopeo, umoci, a static busybox
and mmdebstrap with your own package manager, then run the command again with KILN_SKIP_APT=1.
TEXT
    [ "${KILN_SKIP_APT:-}" = 1 ] || exit 1
  elif [ "$(id -u)" != 0 ]; then
    echo "Missing Debian packages:$missing" >&2
    echo "Run as root, or install them first: sudo apt-get install$missing" >&2
    exit 1
  else
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # shellcheck disable=SC2086
    apt-get install -y -qq --no-install-recommends $missing >/dev/null
  fi
fi

if [ "$(id -u)" != 0 ]; then
  echo "Builds run their steps in containers that need root here: run this as root (sudo make …)." >&2
  exit 1
fi

if ! command -v npm >/dev/null 2>&1; then
  echo "npm is missing: install Node.js 24 or newer with npm (https://nodejs.org)." >&2
  exit 1
fi
stamp=node_modules/.package-lock.json
if [ ! -f "$stamp" ] || [ package-lock.json -nt "$stamp" ]; then
  # not `npm ci`: it refuses the lock file where a registry lacks optional packages of other platforms
  npm install --no-save --no-audit --no-fund
  touch "$stamp"
fi
