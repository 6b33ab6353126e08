"""Orthogonalising many equal-shaped matrices at once: the heart of Muon.

A matrix with the singular value decomposition U S Vᵀ is moved towards U Vᵀ by a few odd polynomials
a X + b (X Xᵀ) X + c (X Xᵀ)² X, which need nothing but matrix products (Newton–Schulz iteration). A
stack [N, m, n] goes through batched products: for small matrices that is what makes it fast.

Wide matrices take the *Gram iteration*: every polynomial is a polynomial of R = X Xᵀ [m, m], so the
iteration runs on R alone, gathers the product Q of its factors, and touches the m × n matrix
only at the beginning and the end. With n ≥ 2 m this does fewer operations for the same result.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Coefficients = tuple[float, float, float]

# Keller Jordan, "Muon: an optimizer for hidden layers in neural networks" (2024): steep at zero,
# so that five steps lift small singular values; large ones end between about 0.7 and 1.2.
KELLER_JORDAN: Coefficients = (3.4445, -4.7750, 2.0315)

# Amsel, Persson, Musco & Gower, "The Polar Express" (2025), arXiv:2505.16932: the best polynomial
# for each step in turn, for singular values between 1e-3 and 1.
POLAR_EXPRESS: tuple[Coefficients, ...] = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.875, -1.25, 0.375),
)

# The polynomials above send values up to nearly 2, and beyond 2 the next ones are so steep that
# nothing comes back. Half precision rounds by up to 0.4 % and so gets there.
_HALF_PRECISION_CUSHION = 1.01

# A CPU works through a stack in pieces of so many numbers (1 MiB): what the iteration touches again
# and again then stays in the cache, which takes a sixth off its time.
_CACHED_NUMBERS = 1 << 18
_SMALLEST_NORM = 1e-7  # to divide by: a matrix of zeros stays zero


def orthogonalise(
    matrices: Float[Tensor, "N rows columns"],
    coefficients: Sequence[Coefficients],
    *,
    safety: float = 1.0,
) -> Float[Tensor, "N rows columns"]:
    """Return matrices with (nearly) the same singular vectors and singular values near 1.

    Args:
        matrices: a stack of N matrices of one shape, in the precision to compute in.
        coefficients: one polynomial (a, b, c) a step.
        safety: times the Frobenius norm is what each matrix is divided by first. A little more
            than 1 keeps rounding from pushing values out of the interval that the Polar Express
            polynomials were made for; beyond it they are steep.
    """
    piece = max(1, _CACHED_NUMBERS // matrices.shape[1:].numel())
    if matrices.device.type == "cpu" and matrices.shape[0] > piece:
        pieces = matrices.split(piece)
        return torch.cat([orthogonalise(each, coefficients, safety=safety) for each in pieces])
    tall = matrices.shape[-2] > matrices.shape[-1]
    X = matrices.mT if tall else matrices
    norms = torch.linalg.vector_norm(X, dim=(-2, -1), keepdim=True)
    X = X / (norms * safety).clamp_min(_SMALLEST_NORM)
    rows, columns = X.shape[-2:]
    # Squaring halves the digits that small singular values keep: too few in half precision.
    use_gram = columns >= 2 * rows and len(coefficients) > 1 and X.dtype.itemsize >= 4
    X = _iterate_gram(X, coefficients) if use_gram else _iterate(X, coefficients)
    return X.mT if tall else X


def _iterate(
    X: Float[Tensor, "N m n"], coefficients: Sequence[Coefficients]
) -> Float[Tensor, "N m n"]:
    """Apply the polynomials to the matrices themselves."""
    for a, b, c in coefficients:
        R = torch.bmm(X, X.mT)
        polynomial = torch.baddbmm(R, R, R, beta=b, alpha=c)  # b R + c R²
        X = torch.baddbmm(X, polynomial, X, beta=a)
    return X


def _iterate_gram(
    X: Float[Tensor, "N m n"], coefficients: Sequence[Coefficients]
) -> Float[Tensor, "N m n"]:
    """Apply the polynomials to R = X Xᵀ and their product Q to the matrices once."""
    R = torch.bmm(X, X.mT)
    Q: Tensor | None = None
    for index, (a, b, c) in enumerate(coefficients):
        W = torch.baddbmm(R, R, R, beta=b, alpha=c)
        W.diagonal(dim1=-2, dim2=-1).add_(a)  # W = a I + b R + c R²
        Q = W if Q is None else torch.bmm(W, Q)
        if index < len(coefficients) - 1:  # (W X)(W X)ᵀ = W R W, for W is symmetric
            R = torch.bmm(torch.bmm(W, R), W)
    assert Q is not None
    return torch.bmm(Q, X)


def iteration_flops(rows: int, columns: int, steps: int) -> float:
    """Return the operations of orthogonalising one matrix directly, without the Gram iteration."""
    m, n = min(rows, columns), max(rows, columns)
    return float(steps * (4 * m * m * n + 2 * m**3))


def polar_express(steps: int) -> tuple[Coefficients, ...]:
    """Return the polynomials of `steps` steps; the last one is repeated beyond the table's end."""
    last = POLAR_EXPRESS[-1]
    return tuple(
        POLAR_EXPRESS[index] if index < len(POLAR_EXPRESS) else last for index in range(steps)
    )


def cushioned(
    coefficients: Sequence[Coefficients], factor: float = _HALF_PRECISION_CUSHION
) -> tuple[Coefficients, ...]:
    """Return polynomials of x / factor, all but the last: what the Polar Express does in bfloat16.

    What rounding pushes out of a polynomial's interval, by up to `factor`, is in it again.
    """
    return (
        *((a / factor, b / factor**3, c / factor**5) for a, b, c in coefficients[:-1]),
        *coefficients[-1:],
    )


def newton_schulz(steps: int) -> tuple[Coefficients, ...]:
    """Return Keller Jordan's polynomial, `steps` times."""
    return (KELLER_JORDAN,) * steps
