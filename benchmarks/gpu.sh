#!/usr/bin/env bash
# What holds on a machine with a GPU: `benchmarks/gpu.sh [FOLDER]`, in a clone, with a build of PyTorch for the GPU.
#
# It runs doctor, the checks of devices, the four main commands with --device, and the fast tests, each with a time limit.
# Output goes to a file each in FOLDER (build/gpu), and a table of what passed to FOLDER/README.md and the terminal.
# PYTHON, DEVICE and WORKERS name the interpreter, the device and the number of processes of the tests.
set -uo pipefail
cd "$(dirname "$0")/.."
out=$(mkdir -p "${1:-build/gpu}" && cd "${1:-build/gpu}" && pwd)
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
device=${DEVICE:-cuda}
export OMP_NUM_THREADS=1 PYTHONPATH=$PWD/src:$PWD
failed=0

# NAME, the exit status that is right, the time limit in seconds, and the command.
step() {
	local name=$1 right=$2 limit=$3 start=$SECONDS status
	shift 3
	timeout "$limit" "$@" >"$out/$name.txt" 2>&1
	status=$?
	if [ "$status" = "$right" ]; then local told=passed; else local told="failed with status $status" failed_here=1; fi
	failed=$((failed + ${failed_here:-0}))
	printf '| %s | %s | %s s | `%s` |\n' "$name" "$told" $((SECONDS - start)) "$(grep -v '^$' "$out/$name.txt" | tail -1 | cut -c1-100)" |
		tee -a "$out/README.md"
}
foldproof() { step "$1" "$2" 120 "$python" -m foldproof "${@:3}" --device "$device"; }

{
	"$python" -c "import torch; m = torch.get_device_module('$device'); print('torch', torch.__version__, 'on', getattr(m, 'get_device_name', str)(0))"
	printf '\n| step | result | time | last line |\n|---|---|---|---|\n'
} | tee "$out/README.md"
spec=benchmarks/on_device.py
step doctor 0 120 "$python" -m foldproof doctor
step checks 0 240 "$python" -m tests.devices.checks "$device"
foldproof fuse 0 fuse $spec:network -o "$out/folded.pt2"
foldproof prove 0 prove $spec:attention $spec:attention_by_hand
foldproof prove_wrong 1 prove $spec:attention $spec:attention_without_scale
foldproof compare 0 compare $spec:network --against aot_eager
foldproof compare_inductor 0 compare $spec:network --against inductor
foldproof audit 0 audit $spec:network --compiler inductor
step fast_tests 0 3600 "$python" -m pytest -n "${WORKERS:-4}" --dist worksteal -q -m "not slow and not exhaustive"
exit $((failed > 0))
