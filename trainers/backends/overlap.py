"""All-reduces of gradients that go on behind what is computed next, until somebody waits.

DDP hands over each bucket of gradients as soon as it is complete, and itself waits at the end of
the backward. Here its communication hook answers at once, so that the wait can come later.
"""

from __future__ import annotations

from collections import deque

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel


class Reduction:
    """The averaging over ranks of one player's gradients, from its backward to `wait`."""

    def __init__(self, player: DistributedDataParallel, travels_as: torch.dtype | None):
        """player: made with gradient_as_bucket_view; travels_as: None for the gradients' dtype."""
        self.travels_as = travels_as
        self.under_way: deque[tuple[dist.Work, Tensor, Tensor]] = deque()
        """(handle, what travels, the gradients that it becomes) of each bucket."""
        # DDP compares annotations, which are text in this file, with types; so this has none.
        player.register_comm_hook(self, lambda reduction, bucket: reduction.start(bucket))

    def start(self, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        """Send a bucket on its way.

        The answer is the bucket itself, as DDP's own example of a hook has it: DDP then copies
        nothing, and the parameters' gradients, which are views of it, become the mean later."""
        assert bucket.index() > 0 or not self.under_way, "the last gradients were never waited for"
        gradients = bucket.buffer()
        sent = gradients
        if self.travels_as is not None:
            sent = torch.empty_like(gradients, dtype=self.travels_as)
        # One pass over the gradients, with the very factor that DDP takes without a hook.
        torch.mul(gradients, 1 / dist.get_world_size(), out=sent)
        self.under_way.append((dist.all_reduce(sent, async_op=True), sent, gradients))
        answer: torch.futures.Future[Tensor] = torch.futures.Future()
        answer.set_result(gradients)
        return answer

    def wait(self) -> None:
        """The gradients are the mean over ranks from here on; on a GPU, for its later work.

        Raises what the collective raises when another rank is gone; on a GPU the host learns of it
        when it next waits for the device."""
        while self.under_way:
            work, sent, gradients = self.under_way.popleft()
            work.wait()
            if sent is not gradients:
                gradients.copy_(sent)
