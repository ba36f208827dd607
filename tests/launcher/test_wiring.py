"""What only a GPU can run out of ends in a sentence, too."""

import pytest
import torch

from launcher.failures import memory_errors
from trainers.errors import TrainingError


def test_a_gpu_that_is_too_small_is_told_with_the_remedy() -> None:
    with pytest.raises(TrainingError, match=r"does not suffice \(no 2 GiB left\): buy more"):
        with memory_errors("buy more"):
            raise torch.OutOfMemoryError("no 2 GiB left\nand much more text")
