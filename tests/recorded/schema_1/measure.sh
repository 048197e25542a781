#!/bin/sh
# Measures the other half of the corpus: real runs of the version that writes schema 1, from statuses.yaml, pairs.yaml and
# late.yaml, with recorded_models.py. Statuses, warnings and verdicts are those of the machine that ran it.
#
#     OLD=<folder of commit 22628e0> PYTHON=<its python> sh measure.sh EMPTY_FOLDER
set -u
here=$(cd "$(dirname "$0")" && pwd)
cd "$1" || exit 1
export PYTHONPATH="$OLD:$OLD/tests:$here"
imgbench="$PYTHON -m benches.cli"
measured="--plugin recorded_models --threads 1"
few='model=recorded_spin|planted_attention|planted_judged|planted_class_map|planted_error'

$imgbench run "$here/statuses.yaml" $measured --out statuses --no-report
for number in 1 2 3 4; do
  $imgbench run "$here/statuses.yaml" $measured --only "$few" --out "session-$number" --no-report
done
RECORDED_SPIN_S=0.004 $imgbench run "$here/statuses.yaml" $measured --only "$few" --out slowed --no-report
timeout --signal=TERM 60 $imgbench run "$here/statuses.yaml" $measured --out interrupted --no-report

ab="$imgbench ab $measured --project $OLD"
spin=recorded_spin-eager-fp32-b1-48e83eaa
$ab "$here/pairs.yaml" --budget 60s --out ab-measured-equal
$ab "$here/pairs.yaml" --budget 60s --head "inject:busy=0.5@$spin" --out ab-measured-slowed
$ab "$here/late.yaml" --budget 40s --head "env:RECORDED_MARK=$PWD/mark" --out ab-measured-late
timeout --signal=TERM 35 $ab "$here/pairs.yaml" --budget 300s --out ab-measured-interrupted

# Beside a neighbour that never sleeps.
while :; do :; done &
neighbour=$!
$imgbench run "$here/statuses.yaml" --plugin recorded_models --threads 4 --replicates 1 --out busy --no-report
$ab "$here/pairs.yaml" --budget 30s --out ab-measured-busy
kill "$neighbour"
