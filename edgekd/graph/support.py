"""What TensorRT's ONNX parser takes, by version: a table to lint against.

The rows say which operators the parser refuses and from which version on it takes a newer one,
read from the support matrices that NVIDIA publishes with the parser (8.6, 10.0 and 10.1, which
10.3 of JetPack 6.2 shares, 10.9, 10.13, 10.15). What a row says is a claim of that document; the
builder on the board has the last word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Version = tuple[int, ...]

NEVER = (999,)

OPSETS: tuple[tuple[Version, int], ...] = (
    ((8, 6), 17),
    ((9, 0), 19),
    ((10, 0), 20),
    ((10, 9), 22),
    ((10, 13), 24),
)
"""Newest opset from a version on."""
OLDEST_OPSET = 9

_REFUSED = """
    AffineGrid Bernoulli BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor BlackmanWindow
    CenterCropPad Col2Im Compress ConcatFromSequence ConvInteger DFT Det DynamicQuantizeLinear
    HammingWindow HannWindow ImageDecoder MatMulInteger MaxRoiPool MaxUnpool MelWeightMatrix
    Multinomial NegativeLogLikelihoodLoss Optional OptionalGetElement OptionalHasElement
    QLinearConv QLinearMatMul RegexFullMatch STFT SequenceAt SequenceConstruct SequenceEmpty
    SequenceErase SequenceInsert SequenceLength SequenceMap SoftmaxCrossEntropyLoss
    SplitToSequence StringConcat StringNormalizer StringSplit TfIdfVectorizer Unique
"""
REFUSED = frozenset(_REFUSED.split())
"""Operators that no version takes."""

_TAKEN = """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast
    CastLike Ceil Celu Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum
    DeformConv DepthToSpace DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand EyeLike
    Flatten Floor GRU Gather GatherElements GatherND Gemm GlobalAveragePool GlobalLpPool
    GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization HardSigmoid HardSwish
    Hardmax Identity If InstanceNormalization IsInf IsNaN LRN LSTM LayerNormalization LeakyRelu
    Less LessOrEqual Log LogSoftmax Loop LpNormalization LpPool MatMul Max MaxPool Mean
    MeanVarianceNormalization Min Mish Mod Mul Neg NonMaxSuppression NonZero Not OneHot Or PRelu
    Pad ParametricSoftplus Pow QuantizeLinear RNN RandomNormal RandomNormalLike RandomUniform
    RandomUniformLike Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax
    ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence
    RoiAlign Round ScaledTanh Scan Scatter ScatterElements ScatterND Selu Shape Shrink Sigmoid
    Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan
    Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor
"""
TAKEN = frozenset(_TAKEN.split())
"""Operators that are taken, from the first version of `SINCE` where they have one."""

SINCE: Mapping[str, Version] = {
    "Gelu": (10, 0),
    "Attention": (10, 14),
    "RMSNormalization": (10, 15),
    "RotaryEmbedding": (10, 15),
    "Swish": (11, 0),
    "DeformConv": (10, 0),
}
"""Operators that came with a version."""

REMEDIES: Mapping[str, str] = {
    "QLinearConv": "quantise with QuantizeLinear/DequantizeLinear pairs (QDQ), not operators",
    "QLinearMatMul": "quantise with QuantizeLinear/DequantizeLinear pairs (QDQ), not operators",
    "ConvInteger": "quantise statically with QuantizeLinear/DequantizeLinear pairs",
    "MatMulInteger": "quantise statically with QuantizeLinear/DequantizeLinear pairs",
    "DynamicQuantizeLinear": "quantise statically: the ranges must be constants",
    "Attention": "export at opset 18, which writes MatMul, Softmax, MatMul",
    "Swish": "export at opset 18, which writes Sigmoid and Mul",
    "Gelu": "export at opset 18, which writes Erf, Add and Mul",
}


@dataclass(frozen=True)
class TensorRT:
    """One version of TensorRT, as a parser of ONNX.

    Attributes:
        version: Such as (10, 3).
        opset: Newest opset that may be used; the parser's own, or less where a target says so.
    """

    version: Version
    opset: int

    @property
    def name(self) -> str:
        """For messages: ``TensorRT 10.3``."""
        return f"TensorRT {'.'.join(map(str, self.version))}"

    def takes(self, operator: str) -> bool:
        """Tell whether the parser takes an operator of the domain ``ai.onnx``."""
        if operator in SINCE:
            return self.version >= SINCE[operator]
        return operator in TAKEN

    def why_not(self, operator: str) -> str:
        """Return why an operator is refused."""
        if operator in SINCE:
            first = ".".join(map(str, SINCE[operator]))
            return f"{operator} came with TensorRT {first}; {self.name} refuses it"
        if operator in REFUSED:
            return f"{operator} is taken by no version of TensorRT"
        return f"{operator} is not in the support matrix of {self.name}"


def tensorrt(version: str, opset: int | None = None) -> TensorRT:
    """Return the parser of a version.

    Args:
        version: Such as ``10.3`` or ``10.3.0.30``.
        opset: Newest opset that a target allows; None leaves it to the parser.
    """
    numbers = tuple(int(part) for part in version.split(".")[:2])
    newest = max((o for v, o in OPSETS if v <= numbers), default=OPSETS[0][1])
    return TensorRT(numbers, newest if opset is None else min(newest, opset))
