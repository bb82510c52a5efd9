"""python -m tests.explorer.make_kernel: kernel.wat becomes kernel.wasm, by wasmtime 50.0.1."""

import wasmtime

from tests.explorer.test_kernel import PAGE

if __name__ == "__main__":
    source = (PAGE / "kernel.wat").read_text(encoding="utf-8")
    (PAGE / "kernel.wasm").write_bytes(wasmtime.wat2wasm(source))
