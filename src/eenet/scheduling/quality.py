"""What is optimised where it is not plain accuracy."""

import torch
from torch import Tensor


def cost_matrix_quality(answers: Tensor, labels: Tensor, matrix: Tensor) -> Tensor:
    """Quality of answers under a matrix of misclassification costs.

    Put it into `ExitOutputs(quality=...)` and every policy optimises and reports it. A matrix
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
    if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.isfinite().all():
        raise ValueError(f"matrix must be [classes, classes] and finite, got {tuple(matrix.shape)}")
    classes = len(matrix)
    if answers.is_floating_point():
        if (given := answers.shape[-1]) != classes:
            raise ValueError(f"matrix is for {classes} classes, the logits have {given}")
        answers = answers.argmax(-1)
    if labels.shape != answers.shape[1:]:
        shapes = f"[{answers.shape[1]}] like the answers, got {tuple(labels.shape)}"
        raise ValueError(f"labels must be {shapes}")
    for name, value in (("labels", labels), ("answers", answers)):
        if value.numel() and not 0 <= int(value.min()) <= int(value.max()) < classes:
            raise ValueError(f"{name} must lie in [0, {classes - 1}], the classes of the matrix")
    low, high = matrix.min(), matrix.max()
    if low == high:
        raise ValueError(f"matrix holds only the number {float(low):g}: no answer beats another")
    return ((high - matrix) / (high - low))[labels, answers]
