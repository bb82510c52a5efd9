"""Which instructions torch, oneDNN and MKL use here: `python -m tests.instructions`.

    ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 …

Each library has its own variable and ignores what it does not know, so what was asked for is
compared with what each of them reports. torch and oneDNN must obey, or the exit status is 1; MKL
does so on Intel's processors only, which is printed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

import torch

ONEDNN = "import torch; x = torch.zeros(4, 16, 32, 32); "
ONEDNN += "torch.nn.functional.conv2d(x, torch.zeros(8, 16, 3, 3))"
MKL = "import torch; x = torch.zeros(400, 160); x @ x.t()"


def report(program: str, variable: str) -> str:
    """What a library prints about itself in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, variable: "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout + done.stderr


def main() -> int:
    """Prints one line a library; 1 where torch or oneDNN does not do as it was told."""
    obeyed = True
    capability = torch.backends.cpu.get_cpu_capability()
    onednn = re.search(r"isa:(.*)", report(ONEDNN, "ONEDNN_VERBOSE"))
    isa = onednn[1] if onednn else "unknown"
    for library, variable, used in (
        ("torch", "ATEN_CPU_CAPABILITY", capability),
        ("oneDNN", "ONEDNN_MAX_CPU_ISA", isa),
    ):
        asked_for = os.environ.get(variable, "")
        same = used.upper().endswith(asked_for.upper())
        obeyed &= same
        print(f"{library}: {used}{'' if same else f', not {asked_for} as {variable} says'}")
    intel = "Intel(R) Architecture processors" not in report(MKL, "MKL_VERBOSE")
    effect = "as the variable says" if intel else "MKL_ENABLE_INSTRUCTIONS has no effect here"
    print(f"MKL: {effect if os.environ.get('MKL_ENABLE_INSTRUCTIONS') else 'its own choice'}")
    return 0 if obeyed else 1


if __name__ == "__main__":
    sys.exit(main())
