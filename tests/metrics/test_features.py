import numpy as np
import torch

from gan.metrics.features import RandomNetwork


def images(count: int, side: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8))


def test_the_weights_never_change() -> None:
    """Values that were published are compared with later ones. They are the same at every resolution."""
    small, large = RandomNetwork(16), RandomNetwork(64)
    assert small.protocol()["weights_sha256"] == "f4f4a9b44164b1c4d4e2c753e81e0ff79a381324d5a660a33827682154b2323d"
    assert all(value.equal(dict(large.named_buffers())[name]) for name, value in small.named_buffers())


def test_their_variance_is_two_over_the_inputs() -> None:
    for weight in RandomNetwork(64).buffers():
        inputs = weight[0].numel()
        assert abs(weight.var() * inputs / 2 - 1) < 0.1
        assert abs(weight.mean()) < 3 * (2 / inputs / weight.numel()) ** 0.5


def test_by_hand() -> None:
    """The two scales of an 8×8 image, pixel by pixel."""
    network, image = RandomNetwork(8), images(1, 8)
    x, wanted = image[0].double().numpy().transpose(2, 0, 1) / 127.5 - 1, []
    for weight in network.buffers():
        wide, side = np.pad(x, ((0, 0), (1, 1), (1, 1)), "reflect"), x.shape[-1]
        w = weight.double().numpy()
        x = np.array([[[(wide[:, i : i + 3, j : j + 3] * kernel).sum() for j in range(side)] for i in range(side)]
                      for kernel in w])  # fmt: skip
        x = np.where(x < 0, 0.2 * x, x)
        half = side // 2
        wanted.append(x.reshape(32, 2, half, 2, half).mean((2, 4)).reshape(-1))
        x = x.reshape(32, half, 2, half, 2).mean((2, 4))
    np.testing.assert_allclose(network(image)[0], np.concatenate(wanted), rtol=1e-4, atol=1e-5)


def test_an_image_is_embedded_by_itself() -> None:
    network, batch = RandomNetwork(32), images(5, 32)
    assert network(batch).shape == (5, 32 + 32 + 2 * 4 * 32)
    assert network(batch)[3:].allclose(network(batch[3:]), atol=1e-6)
    assert not network(batch)[0].allclose(network(batch)[1], atol=1e-2)
