#!/bin/sh
# Stands in for python3 in tests. Writes its arguments to `calls` beside itself, then fails, hangs, or copies the wheel
# named after the requirement to where `pip download` was told to.
here=$(dirname "$0")
echo "$*" >>"$here/calls"
if [ -f "$here/fail" ]; then
  cat "$here/fail" >&2
  exit 1
fi
if [ -f "$here/hang" ]; then
  exec sleep 600
fi
while [ $# -gt 0 ]; do
  case $1 in
  --dest) dest=$2 && shift ;;
  *==*) requirement=$1 ;;
  esac
  shift
done
exec cp "$here/$requirement.whl" "$dest/package-1.0-py3-none-any.whl"
