"""Which of the processes of a run this is."""

import os


def main_process() -> bool:
    """True in the process that saves the run.

    Of several, it is the one that a launcher gave rank 0.
    """
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        if name in os.environ:
            return os.environ[name] == "0"
    return True
