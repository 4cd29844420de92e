"""Kernels for a CPU, where XLA's own operations are slow inside a loop; on other backends none of them is traced.

Training steps run inside a compiled loop, and there XLA's CPU backend computes the gradients of a convolution by plain
loops: 1 to 3 GFLOP/s where its matrix products reach 250 a core. The kernels are matrix products and elementwise
arithmetic, with gradients written out where those that JAX derives are slow: they can be differentiated backward only,
any number of times. Ratios in comments are of one core's processor time, forward and backward in a ``fori_loop``, on
two x86-64 cores (AVX-512).

``with_kernels`` gives them to any function, whatever library its layers come from. What no single operation tells
(attention, GELU, LayerNorm) a model calls by name.
"""

from mtl.cpu.attention import attend
from mtl.cpu.replace import with_kernels
from mtl.cpu.rows import dense, gelu, layer_norm

__all__ = ["attend", "dense", "gelu", "layer_norm", "with_kernels"]
