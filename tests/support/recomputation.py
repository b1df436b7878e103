"""A kind of recomputation that does not come with Athanor."""

from athanor.workloads.recomputation import Recomputation


class FeedForwardAgain(Recomputation):
    """The feed-forward network, or the experts, are worked out again from their input."""

    def kept(self, row):
        return 0.0 if row.feed_forward else 1.0

    def run_again(self, layer):
        layer.feed_forward()


OWN = f"{__name__}:FeedForwardAgain"
