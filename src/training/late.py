"""The order in which Lightning calls the callbacks of a run."""

from lightning.pytorch.callbacks import Checkpoint


class Late(Checkpoint):
    """A callback that is called after all others, when the metrics of the epoch are known.

    Lightning calls callbacks that derive from its Checkpoint last, in the order in which they are
    given. It has no other way to say so.
    """
