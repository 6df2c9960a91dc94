"""Device functions of several Triton kernels. Formulas and constants are docs/numerics.md's.

They take float32 tiles of any shape. `fma` stands where docs/numerics.md has one; the compiler may
contract other products and sums, unless a launcher forbids it (`enable_fp_fusion=False`).
"""

import triton
import triton.language as tl


@triton.jit
def power_of_two(n):
    """2^n for an integer n of -126 to 127: n + 127 ends up in the exponent's bits."""
    raised = (n + 12583039.0).to(tl.int32, bitcast=True)  # 1.5 * 2^23 + 127
    return (raised << 23).to(tl.float32, bitcast=True)


@triton.jit
def exp(x):
    """e^x within 1 ULP; a NaN stays one."""
    x = tl.where(x > 89.0, 89.0, x)
    x = tl.where(x < -104.5, -104.5, x)
    n = tl.fma(x, 1.4426950216293335, 12582912.0) - 12582912.0  # 1 / ln 2; 1.5 * 2^23
    r = tl.fma(n, 1.9046542121259336e-09, tl.fma(n, -0.6931471824645996, x))
    q = tl.fma(r, 0.00019733438966795802, 0.0013935243478044868)
    q = tl.fma(q, r, 0.008333586156368256)
    q = tl.fma(q, r, 0.041666463017463684)
    q = tl.fma(q, r, 0.1666666567325592)
    q = tl.fma(q, r, 0.5)
    p = tl.fma(r * r, q, r) + 1.0
    first = (n * 0.5 + 12582912.0) - 12582912.0
    return p * power_of_two(first) * power_of_two(n - first)


@triton.jit
def silu(v):
    return tl.div_rn(v, 1.0 + exp(0.0 - v))


@triton.jit
def gelu(v):
    a = tl.abs(v)
    a = tl.where(a > 14.0, 14.0, a)
    q = tl.fma(a, 8.044497512571525e-09, -3.238066028643516e-07)
    q = tl.fma(q, a, 5.121179128764197e-06)
    q = tl.fma(q, a, -4.079402060597204e-05)
    q = tl.fma(q, a, 0.00015791189798619598)
    q = tl.fma(q, a, 6.566805677721277e-05)
    q = tl.fma(q, a, -0.004888744093477726)
    q = tl.fma(q, a, 0.03639699146151543)
    q = tl.fma(q, a, 0.31829214096069336)
    q = tl.fma(q, a, 0.7978864908218384)
    return tl.where(v < 0.0, 0.0, v) - 0.5 * a * exp(0.0 - q * a)


@triton.jit
def operand(x, DTYPE: tl.constexpr):
    """x as a factor of a product of DTYPE. Past float16's range it is the largest float16: what
    overflowed would be NaN after the next LayerNorm."""
    if x.dtype != tl.float16 and DTYPE == tl.float16:  # noqa: SIM300
        x = x.to(tl.float32)
        x = tl.where(x > 65504.0, 65504.0, x)
        x = tl.where(x < -65504.0, -65504.0, x)
    return x.to(DTYPE)


@triton.jit
def row_moments(
    p_rows,
    m_rows,
    eps,
    INPUTS: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Mean and 1 / sqrt(variance + eps) of rows that begin at p_rows [BR, 1] -> 2 x [BR, 1].

    The sums have BLOCK_K lanes, folded by a tree at the end.
    """
    o_inputs = tl.arange(0, BLOCK_K)[None, :]
    b_sum = tl.full((BLOCK_R, BLOCK_K), 0.0, tl.float32)
    for k in range(0, INPUTS, BLOCK_K):
        m_x = m_rows & (k + o_inputs < INPUTS)
        b_sum += tl.load(p_rows + k + o_inputs, mask=m_x, other=0.0).to(tl.float32)
    mean = tl.div_rn(tl.sum(b_sum, 1, keep_dims=True), INPUTS * 1.0)
    b_sum = tl.full((BLOCK_R, BLOCK_K), 0.0, tl.float32)
    for k in range(0, INPUTS, BLOCK_K):
        m_x = m_rows & (k + o_inputs < INPUTS)
        b_x = tl.load(p_rows + k + o_inputs, mask=m_x, other=0.0).to(tl.float32)
        b_sum += tl.where(m_x, b_x - mean, 0.0)
    mean += tl.div_rn(tl.sum(b_sum, 1, keep_dims=True), INPUTS * 1.0)
    b_sum = tl.full((BLOCK_R, BLOCK_K), 0.0, tl.float32)
    for k in range(0, INPUTS, BLOCK_K):
        m_x = m_rows & (k + o_inputs < INPUTS)
        b_x = tl.load(p_rows + k + o_inputs, mask=m_x, other=0.0).to(tl.float32)
        b_x = tl.where(m_x, b_x - mean, 0.0)
        b_sum += b_x * b_x
    variance = tl.div_rn(tl.sum(b_sum, 1, keep_dims=True), INPUTS * 1.0)
    return mean, tl.div_rn(1.0, tl.sqrt_rn(variance + eps))
