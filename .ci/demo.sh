#!/usr/bin/env bash
# `make demo`: pictures by the shipped weights, then a training, then pictures by what it learned.
#
#   .ci/demo.sh PYTHON OUT [FLAG…]    FLAGs go to train.py
#
# Ctrl-C while it trains stops the training; the last pictures are drawn all the same. A terminal
# sends it to make and to this script too: both wait for train.py, and bash goes on, since train.py
# ends by itself.
set -euo pipefail

python=$1 out=$2
shift 2

say() { printf 'minivit: %s\n' "$*"; }

draw() { "$python" visualize.py "$@" --overwrite; } # of an earlier demo
run=$out/run

say "pictures by the weights that come with minivit, into $out/shipped:"
draw attention --out "$out/shipped"
draw positions --out "$out/shipped"
draw caption --out "$out/shipped/caption"

say "now a training from scratch, into $run: scenes are drawn, and after the first steps"
say "it says how long it takes here. Ctrl-C stops it early, and what it has learned is drawn."
rm -f "$run/report.md" # of an earlier demo; train.py writes one however it ends, if it has learned
status=0
"$python" train.py --out "$run" --overwrite "$@" || status=$?
if [ "$status" -ne 0 ] && { [ "$status" -ne 130 ] || [ ! -f "$run/report.md" ]; }; then
    exit "$status"
fi

draw attention --weights "$run/best.safetensors" --out "$out"
draw positions --weights "$run/best.safetensors" --out "$out"
say "done. By the weights trained here: $out/scene.png and positions.png, and in $run attention.png,"
say "curves.png and report.md; by those that come with minivit: the same pictures in $out/shipped."
