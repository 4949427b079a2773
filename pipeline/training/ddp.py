"""DistributedDataParallel over workers that run already, as Lightning wants to be told."""

from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from pytorch_lightning.strategies import DDPStrategy

from pipeline.training.workers import current_shard


def make_strategy(*, adversarial: bool) -> DDPStrategy:
    """DistributedDataParallel over the workers there are.

    A GAN's two losses each leave the other network without gradients, which DDP has to look for.
    """
    return DDPStrategy(
        cluster_environment=_Started(),
        find_unused_parameters=adversarial,
        broadcast_buffers=False,  # equal on all workers, or theirs by rows
        gradient_as_bucket_view=True,
    )


class _Started(ClusterEnvironment):
    """Lightning's view of workers that run already, one device each."""

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        raise NotImplementedError  # the process group exists

    @property
    def main_port(self) -> int:
        raise NotImplementedError

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return current_shard().size

    def set_world_size(self, size: int) -> None:
        assert size == self.world_size()

    def global_rank(self) -> int:
        return current_shard().rank

    def set_global_rank(self, rank: int) -> None:
        assert rank == self.global_rank()

    def local_rank(self) -> int:
        return 0

    def node_rank(self) -> int:
        return self.global_rank()
