"""A network in the format of ONNX with smaller numbers: half precision, or 8-bit integers."""

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx

# Whose inputs and outputs are numbers of 8 bits; what lies between others, such as softmax, attention and votes, stays as it is.
QUANTISED = ("Conv", "Gemm", "MatMul", "Add", "Mul", "Relu", "Clip", "Sigmoid", "MaxPool", "AveragePool", "GlobalAveragePool", "ReduceMean")


def half(content: bytes) -> bytes:
    """The network with weights and sums in fp16; images go in and answers come out as before."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with warnings.catch_warnings():
        # Of numbers that fp16 has no room for, which it clips: they are some orders of magnitude below what decides.
        warnings.simplefilter("ignore")
        found = convert_float_to_float16(onnx.load_from_string(content), keep_io_types=True)
    return found.SerializeToString()


def integers(content: bytes, calibration: Mapping[str, np.ndarray]) -> bytes:
    """The network with weights and activations in int8, statically quantised: scales of weights for each channel, and of activations by the
    least and the greatest number that some images make.

    Args:
        calibration: images by input, (n, height, width, channels) uint8, as many of each.
    Source: Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, CVPR 2018.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            self.left: Iterator[dict[str, np.ndarray]] = iter(
                [{name: pixels[place : place + 1] for name, pixels in calibration.items()} for place in range(len(first))]
            )

        # pyrefly: ignore[bad-override]  its end is None, whatever the annotation says
        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.left, None)

    first = next(iter(calibration.values()))
    metadata = {one.key: one.value for one in onnx.load_from_string(content).metadata_props}
    with TemporaryDirectory() as scratch:
        plain, folded, quantised = (Path(scratch) / name for name in ("plain.onnx", "folded.onnx", "quantised.onnx"))
        plain.write_bytes(content)
        quant_pre_process(str(plain), str(folded), skip_symbolic_shape=True)
        nodes = _in_single_precision(onnx.load(folded))
        quantize_static(
            str(folded),
            str(quantised),
            Images(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTISED),
            nodes_to_quantize=nodes,
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
        )
        found = onnx.load(quantised)
    onnx.helper.set_model_props(found, metadata)
    return found.SerializeToString()


def _in_single_precision(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that may be quantised: votes compute in double precision, which cannot be."""
    known = {one.name: one.type.tensor_type.elem_type for one in (*model.graph.value_info, *model.graph.input, *model.graph.output)}
    known |= {one.name: one.data_type for one in model.graph.initializer}
    single = onnx.TensorProto.FLOAT
    return [
        node.name
        for node in model.graph.node
        if node.op_type in QUANTISED and all(known.get(name, single) == single for name in (*node.input[:2], *node.output) if name)
    ]
