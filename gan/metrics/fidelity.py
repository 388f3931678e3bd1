"""Inception's view of images, by torch-fidelity (the extra `eval`): its port of the network that FID is defined with.

torch-fidelity (Obukhov et al. 2020, https://github.com/toshas/torch-fidelity, Apache-2.0) brings the network, its
TensorFlow 1 resizing and the weights of 2015; what is computed from them is in this package, the same as on any other
embedding. Only this file imports it, and only when asked for.
"""

import hashlib
import io
import math
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gan.errors import UsageError, reason

FEATURES, SPLITS = 2048, 10


class Inception(nn.Module):
    """uint8 (N, H, W, 3) → float32 (N, 2048 + 1008): the last pooled features, then the logits without their bias."""

    def __init__(self, weights: Path | None):
        """`weights`: the file, or None to take it from PyTorch's cache or the internet. Raises UsageError."""
        super().__init__()
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3
        except ImportError:
            raise UsageError(
                "fid, kid, is and inception-prdc need torch-fidelity: pip install 'torch-fidelity>=0.4'."
            ) from None
        path = weights or download(URL_INCEPTION_V3)
        content = read_weights(path)
        self.sha256 = hashlib.sha256(content).hexdigest()
        try:
            self.network = FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=io.BytesIO(content)
            )
        except (RuntimeError, TypeError, AttributeError):
            raise UsageError(f"{path} does not hold the weights of torch-fidelity's Inception; {where()}.") from None

    def forward(self, pixels: Tensor) -> Tensor:
        """uint8 (N, H, W, 3) → float32 (N, 2048 + 1008), as above."""
        return torch.cat(self.network(pixels.permute(0, 3, 1, 2)), 1)

    def protocol(self) -> dict[str, Any]:
        """Which embedding this is."""
        return {"embedding": "Inception v3 of 2015, torch-fidelity", "weights_sha256": self.sha256}


def download(url: str) -> Path:
    """The file from PyTorch's cache, fetched if it is not there. Raises UsageError."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path))
        except OSError as error:  # URLError and HTTPError are OSErrors
            raise UsageError(f"cannot get Inception's weights ({reason(error)}); {where()}.") from None
    return path


def where() -> str:
    """What to do where the weights cannot be fetched."""
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    return f"fetch {URL_INCEPTION_V3} on a machine with internet and give it with --inception-weights FILE"


def read_weights(path: Path) -> bytes:
    """The file's bytes, looked through first: torch-fidelity would unpickle, and so run, whatever stands in them.
    Raises UsageError."""
    try:
        content = path.read_bytes()
        torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {reason(error)}.") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError):
        raise UsageError(f"{path} is damaged, or holds more than weights; {where()}.") from None
    return content


def inception_score(logits: Tensor) -> dict[str, float]:
    """(n, classes), n ≥ 10 → the score's mean and standard deviation over ten equal parts; from 1 to `classes`.

    exp of the mean of KL(p(y|x) ‖ p(y)); Salimans et al. 2016, https://arxiv.org/abs/1606.03498, section 4.
    """
    logs, scores = logits.double().log_softmax(1), []
    for part in range(SPLITS):
        rows = logs[part * len(logs) // SPLITS : (part + 1) * len(logs) // SPLITS]
        marginal = rows.logsumexp(0) - math.log(len(rows))
        scores.append((rows.exp() * (rows - marginal)).sum(1).mean().exp())
    values = torch.stack(scores)
    return {"is": float(values.mean()), "is_std": float(values.std(correction=0))}
