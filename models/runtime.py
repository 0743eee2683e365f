"""Runs a bundle's graph on ONNX Runtime, sized for a small machine."""

from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from models.bundle import Bundle, BundleError
from models.conditioning import condition


@dataclass(frozen=True, slots=True, eq=False)
class Inference:
    """What the graph says of a batch.

    Attributes:
        leads: float32 [batch, 12, time], z-scores in the bundle's order of leads.
        logits: float32 [batch, classes].
        probabilities: float32 [batch, classes], calibrated.
    """

    leads: NDArray[np.float32]
    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32]


def session_options(threads: int) -> ort.SessionOptions:
    """How sessions run on a small machine.

    Spinning threads burn a core while no heart is being read. The arena keeps the largest batch's
    memory for ever. With the memory pattern, and without the arena, four of six processes measured
    fell into a mode a third slower at single windows.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    return options


class Runtime:
    """One inference session; ``infer`` may be called from any one thread at a time.

    Args:
        bundle: what to run.
        threads: cores for one inference. One is best for a gateway: the nets are small, and a
            second thread costs more in hand-over than it gains.

    Raises:
        BundleError: if the graph is missing, not the manifest's, does not load, or its inputs and
            outputs are not the contract's.
    """

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        self.bundle = bundle
        graph = bundle.read_graph()
        try:
            self._session = ort.InferenceSession(
                graph, session_options(threads), providers=["CPUExecutionProvider"]
            )
        except Exception as e:  # ONNX Runtime's own exceptions share no base class
            raise BundleError(f"{bundle.path}: graph does not load: {e}") from e
        outputs = {o.name: o.shape for o in self._session.get_outputs()}
        expected = {"leads", "logits", "probabilities"}
        if set(outputs) != expected or outputs["probabilities"][-1:] != [len(bundle.classes)]:
            raise BundleError(
                f"{bundle.path}: graph gives {outputs}, expected {sorted(expected)} "
                f"for {len(bundle.classes)} classes"
            )

    def prepare(self, microvolts: NDArray[np.floating], rate: float) -> NDArray[np.float32]:
        """Condition lead I [n] in µV at ``rate`` Hz for this bundle: float32 [time]."""
        manifest = self.bundle.manifest
        return condition(microvolts, rate, target_rate=manifest.rate, length=self.bundle.length)

    def infer(self, lead_one: NDArray[np.float32]) -> Inference:
        """Run the graph on prepared windows, float32 [batch, time]."""
        leads, logits, probabilities = self._session.run(
            ["leads", "logits", "probabilities"], {"lead_one": lead_one[:, None, :]}
        )
        return Inference(leads, logits, probabilities)
