"""`.alt` descriptors: bytes in four formats and several dialects become one Plan, or all that is wrong with them."""

from runner.core.alt.decoder import Decoded, decode
from runner.core.alt.limits import DescriptorLimits
from runner.core.alt.parameters import LATER, Kinds, ParameterCheck, ParameterProblem

__all__ = ["LATER", "Decoded", "DescriptorLimits", "Kinds", "ParameterCheck", "ParameterProblem", "decode"]
