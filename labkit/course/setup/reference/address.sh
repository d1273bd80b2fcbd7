#!/bin/sh
# Starts JupyterLab as a service of the user, if it does not run, and prints its address as seen from outside, at PORT.
#   sh address.sh PORT
set -eu
exec "$HOME/labkit/lab" service --reached-at "$1"
