"""Makes tests/references/foreign/: small files by programs whose files minivit does not convert.

    python -m tests.references.make_foreign NAME…

NAME is one of the functions below, each of which needs the packages that it imports, and these do
not all fit into one environment. The stored files were made with onnx 1.23.2, gguf 0.19.0, h5py
3.16.0, flax 0.12.8, mlx 0.32.4 (mlx-cpu), coremltools 9.0, openvino 2026.4.1, paddlepaddle 3.3.1
and tensorflow-cpu 2.21.0. Where a program stores random names or times, another run gives other
bytes; the tests ask only for what kind of file they are.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).with_name("foreign")
SQUARE = np.eye(2, dtype=np.float32)


def onnx() -> None:
    """A multiplication by a matrix, as torch's exporter names itself, and without a name."""
    import onnx
    from onnx import helper, numpy_helper

    x, y = (helper.make_tensor_value_info(name, 1, [1, 2]) for name in "xy")
    weights = numpy_helper.from_array(SQUARE, "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weights]
    )
    named = helper.make_model(graph, producer_name="pytorch", producer_version="2.14.1")
    onnx.save(named, FOLDER / "torch.onnx")
    onnx.save(helper.make_model(graph), FOLDER / "plain.onnx")


def gguf() -> None:
    """One tensor."""
    import gguf

    writer = gguf.GGUFWriter(FOLDER / "tensor.gguf", "clip")
    writer.add_tensor("w", SQUARE)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def h5py() -> None:
    """A matrix, in the first and in the last version of the format."""
    import h5py

    for version in ("earliest", "latest"):
        with h5py.File(FOLDER / f"{version}.h5", "w", libver=version) as file:
            file["w"] = SQUARE


def flax() -> None:
    """Parameters as Flax writes them, and a training state that begins with a number."""
    from flax import serialization

    parameters = {"Transformer": {"w": SQUARE}, "cls": SQUARE[:1]}
    state = {"count": 3, "done": False, "params": parameters, "step": np.int32(3)}
    for name, tree in (("params", {"params": parameters}), ("state", state)):
        (FOLDER / f"{name}.msgpack").write_bytes(serialization.msgpack_serialize(tree))


def mlx() -> None:
    """A patch embedding, written by the module, and with the statement that mlx-lm writes."""
    import mlx.core as mx
    from mlx import nn
    from mlx.utils import tree_flatten

    model = nn.Sequential(nn.Conv2d(3, 2, 4))
    model.save_weights(str(FOLDER / "module.mlx.safetensors"))
    mx.save_safetensors(
        str(FOLDER / "stated.mlx.safetensors"),
        dict(tree_flatten(nn.Linear(2, 2).parameters())),
        metadata={"format": "mlx"},
    )


def coremltools() -> None:
    """A network of the first kind in a file, a program in a package."""
    import coremltools
    from coremltools.converters.mil import Builder
    from coremltools.models import datatypes, neural_network

    builder = neural_network.NeuralNetworkBuilder(
        [("x", datatypes.Array(2))], [("y", datatypes.Array(2))]
    )
    builder.add_inner_product("l", SQUARE, None, 2, 2, False, "x", "y")
    coremltools.models.utils.save_spec(builder.spec, str(FOLDER / "network.mlmodel"))

    @Builder.program(input_specs=[Builder.TensorSpec((1, 2))])
    def program(x: Any) -> Any:
        return Builder.linear(x=x, weight=SQUARE)

    target = coremltools.target.iOS16
    model = coremltools.convert(program, minimum_deployment_target=target, skip_model_load=True)
    model.save(str(FOLDER / "program.mlpackage"))
    shutil.rmtree(FOLDER / "program.mlpackage/Data/com.apple.CoreML/weights", ignore_errors=True)


def openvino() -> None:
    """torch.onnx, converted; needs what `onnx` has made."""
    import openvino

    openvino.save_model(openvino.convert_model(FOLDER / "torch.onnx"), FOLDER / "openvino.xml")


def paddle() -> None:
    """The state of a layer, and a program with its parameter."""
    import paddle

    paddle.save(paddle.nn.Linear(2, 2).state_dict(), str(FOLDER / "layer.pdparams"))
    paddle.enable_static()
    x = paddle.static.data("x", [1, 2], "float32")
    y = x + paddle.create_parameter([2], "float32")
    executor = paddle.static.Executor(paddle.CPUPlace())
    executor.run(paddle.static.default_startup_program())
    paddle.static.save_inference_model(str(FOLDER / "paddle"), [x], [y], executor)


def tensorflow() -> None:
    """A SavedModel, a graph, a TensorFlow Lite model, and checkpoints of both versions."""
    import tensorflow

    v1 = tensorflow.compat.v1
    v1.disable_eager_execution()
    with v1.Graph().as_default() as graph, v1.Session() as session:
        x = v1.placeholder("float32", [1, 2], name="x")
        w = v1.get_variable("w", initializer=SQUARE)
        y = v1.identity(x, name="y")
        session.run(w.initializer)
        v1.train.write_graph(graph, str(FOLDER), "graph.pb", as_text=False)
        for version in (1, 2):
            folder = FOLDER / f"checkpoint_{version}"
            folder.mkdir(parents=True, exist_ok=True)
            saver = v1.train.Saver([w], write_version=version)
            saver.save(session, str(folder / "model.ckpt"), write_meta_graph=False)
            (folder / "checkpoint").unlink()  # has paths of this machine
        converter = v1.lite.TFLiteConverter.from_session(session, [x], [y])
        (FOLDER / "model.tflite").write_bytes(converter.convert())
    with v1.Graph().as_default(), v1.Session() as session:
        v1.placeholder("float32", [1, 2], name="x")
        builder = v1.saved_model.Builder(str(FOLDER / "saved_model"))
        builder.add_meta_graph_and_variables(session, ["serve"], strip_default_attrs=True)
        builder.save()


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in sys.argv[1:]:
        globals()[name]()
