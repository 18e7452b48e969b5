"""Attraction and dispersion: an image is predicted as its neighbours are, and otherwise than other images."""

from torch import Tensor

from scale_ray.losses.term import full_precision


@full_precision
def attraction(probabilities: Tensor, neighbours: Tensor) -> Tensor:
    """-sum_k p_i . q_ik over the neighbours k of image i; mean over the images.

    Yang et al., Attracting and Dispersing, NeurIPS 2022 (https://arxiv.org/abs/2205.04183): attraction.

    Args:
        probabilities: (N, K).
        neighbours: (N, M, K), probabilities of the M neighbours of every image; detached here.

    Returns:
        Scalar from -M to 0.

    Raises:
        ValueError: the shapes do not fit.

    Examples:
        >>> attraction(torch.tensor([[0.5, 0.5]]), torch.tensor([[[1.0, 0.0], [0.5, 0.5]]])).item()
        -1.0
    """
    if neighbours.ndim != 3 or probabilities.shape != (len(neighbours), neighbours.shape[2]):
        raise ValueError(
            f"shapes do not fit: probabilities {tuple(probabilities.shape)} must be (N, K), neighbours "
            f"{tuple(neighbours.shape)} (N, M, K)"
        )
    return -(probabilities * neighbours.detach().sum(dim=1)).sum(dim=1).mean()


@full_precision
def dispersion(probabilities: Tensor) -> Tensor:
    """sum_m p_i . p_m over the other images m of the batch; mean over the images i.

    The second term of the same objective, before its weight.

    Args:
        probabilities: (N, K); both factors get a gradient, as in the authors' code.

    Returns:
        Scalar from 0 to N - 1.

    Raises:
        ValueError: the probabilities are not (N, K).

    Examples:
        >>> dispersion(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])).item()  # 1, 1 and 0
        0.6666666865348816
    """
    if probabilities.ndim != 2:
        raise ValueError(f"probabilities {tuple(probabilities.shape)} must be (N, K)")
    products = probabilities @ probabilities.T
    return (products.sum() - products.diagonal().sum()) / len(probabilities)
