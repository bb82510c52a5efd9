#!/usr/bin/env bash
# After DistributedDataParallel, destroy_process_group() leaves gloo's threads running: ten default arguments hold the group
#
# Packages: torch 2.13.0 (Python 3.11, x86-64 Linux); 2.14.1 does the same.
# Date: 2026-11-28
#
# Expected: once the model and its DistributedDataParallel are gone, torch.distributed.destroy_process_group() ends the process
#   group, its sockets and its threads, as it does in a program that only calls all_reduce.
# Happens: the first DistributedDataParallel imports torch.distributed.nn.functional, whose ten functions are written
#   `def all_reduce(tensor, op=ReduceOp.SUM, group=group.WORLD)`. Python evaluates a default where the function is defined: if
#   that happens after init_process_group (always, as the import is DistributedDataParallel's), the defaults are the
#   live group, and it lives as long as the module. After destroy_process_group() two pt_gloo_runloop threads and gloo_tcp_loop
#   are still there. With `import torch.distributed.nn` before init_process_group the defaults are None, and the threads end.
# Why it matters: a program that does all that the documentation asks for still ends with threads that hold its last tensors.
#   On a busy machine a worker that had done all its work aborted now and then while Python ended ("terminate called
#   without an active exception"; github.com/pytorch/pytorch issue 190489 tells of the same message without
#   destroy_process_group, pull request 179291 of the race), and torchrun calls the whole training failed.
set -euo pipefail
export OMP_NUM_THREADS=1 GLOO_SOCKET_IFNAME=lo
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/env"
"$tmp/env/bin/pip" install -qq numpy==2.4.6 torch==2.13.0
cat > "$tmp/check.py" <<'P'
import gc, os, sys
from pathlib import Path
import torch
import torch.distributed as dist

when = sys.argv[1]
if when == "before":
    import torch.distributed.nn
dist.init_process_group("gloo")
if when != "without":
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(3, 1))
    model(torch.ones(2, 3)).sum().backward()
    del model
else:
    dist.all_reduce(torch.ones(3))
gc.collect()
dist.destroy_process_group()
gc.collect()
left = sorted(name for each in Path("/proc/self/task").iterdir() if "gloo" in (name := (each / "comm").read_text().strip()))
functions = vars(sys.modules["torch.distributed.nn.functional"]).values() if "torch.distributed.nn.functional" in sys.modules else []
holding = [each.__name__ for each in functions if any(isinstance(value, dist.ProcessGroup) for value in getattr(each, "__defaults__", None) or ())]
print(f"torch {torch.__version__.split('+')[0]}, {when}: threads left: {left}; default arguments that are the group: {holding}")
if when == "after":
    assert left == ["gloo_tcp_loop", "pt_gloo_runloop", "pt_gloo_runloop"] and len(holding) == 10
else:
    assert not left and not holding
P
for when in without after before; do
  "$tmp/env/bin/python" -m torch.distributed.run --standalone --nproc_per_node=1 "$tmp/check.py" $when
done
