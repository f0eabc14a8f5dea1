#!/bin/sh
# Installs Debian's packages of what benchmarks/scale.py runs, where they are missing.
set -eu
missing=
for one in initdb:postgresql redis-server:redis-server ip:iproute2 faketime:faketime; do
  program=${one%%:*} package=${one#*:}
  if [ ! -x "$(command -v "$program" || ls /usr/lib/postgresql/*/bin/"$program" 2> /dev/null | tail -1)" ]; then
    missing="$missing $package"
  fi
done
if [ -n "$missing" ]; then
  apt-get update
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing
fi
