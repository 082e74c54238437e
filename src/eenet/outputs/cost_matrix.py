"""Quality of answers where mistakes are not equally bad."""

import torch
from torch import Tensor


def cost_matrix_quality(answers: Tensor, labels: Tensor, matrix: Tensor) -> Tensor:
    """Quality of answers under a matrix of misclassification costs.

    Put it into `ExitOutputs(quality=...)` and every policy optimizes and reports it. A matrix
    with zeros on its diagonal and ones elsewhere gives accuracy; rows multiplied by weights give
    class weights.

    Args:
        answers: Logits `[E, N, C]` (floating point) or predictions `[E, N]` (int64).
        labels: `[N]`, int64.
        matrix: `[C, C]`; `matrix[y, a]` is the cost of answering a where y is true.

    Returns:
        `[E, N]` float32 in [0, 1]: 1 for the matrix's least cost, 0 for its largest.
    """
    matrix = torch.as_tensor(matrix, dtype=torch.float32, device=answers.device)
    quality = qualities(matrix, answers.shape[-1] if answers.is_floating_point() else None)
    classes = len(quality)
    if answers.is_floating_point():
        answers = answers.argmax(-1)
    wanted, shape = tuple(answers.shape[1:]), tuple(labels.shape)
    ensure(shape == wanted, f"labels must be {list(wanted)} like the answers, got {shape}")
    for name, value in (("labels", labels), ("answers", answers)):
        inside = not value.numel() or 0 <= int(value.min()) <= int(value.max()) < classes
        ensure(inside, f"{name} must lie in [0, {classes - 1}], the classes of the matrix")
    return quality[labels, answers]


def qualities(matrix: Tensor, classes: int | None) -> Tensor:
    """Quality `[C, C]` in [0, 1] of a matrix of costs, checked."""
    shape, size = tuple(matrix.shape), len(matrix) if matrix.dim() else 0
    square = shape == (size, size) and bool(matrix.isfinite().all())
    ensure(square, f"matrix must be [classes, classes] and finite, got {shape}")
    fits = classes in (None, size)
    ensure(fits, f"matrix is for {size} classes, the logits have {classes}")
    low, high = matrix.float().min(), matrix.float().max()
    ensure(low < high, f"matrix holds only the number {float(low):g}: no answer beats another")
    return (high - matrix.float()) / (high - low)


def ensure(condition: bool | Tensor, message: str) -> None:
    """Raises a ValueError unless a condition holds."""
    if not condition:
        raise ValueError(message)
