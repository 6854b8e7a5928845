"""Steps of a training as CUDA graphs: launched as one, where hundreds of small kernels wait for Python."""

from __future__ import annotations

from collections.abc import Callable

import torch

Step = Callable[[bool, torch.Tensor, torch.Tensor], dict[str, torch.Tensor]]

EAGER = 3
"""Steps of each kind that run before it is captured: they make what a step allocates once."""


class Graphs:
    """A step on CUDA, captured in two kinds: with and without an update of the autoencoder.

    Its random numbers must all come from `generator`, whose seed may change between steps. The losses that it
    returns are overwritten by the next step of the same kind.
    """

    def __init__(self, step: Step, generator: torch.Generator) -> None:
        self._step, self._generator = step, generator
        self._eager = {True: 0, False: 0}
        self._graphs: dict[bool, tuple[torch.cuda.CUDAGraph, dict[str, torch.Tensor]]] = {}
        self._inputs: tuple[torch.Tensor, torch.Tensor] | None = None

    def __call__(self, learns: bool, x: torch.Tensor, u: torch.Tensor) -> dict[str, torch.Tensor]:
        """Run the step on inputs x (B, M) and parameters u (B, U)."""
        if self._inputs is None:
            self._inputs = x.clone(), u.clone()
        for own, new in zip(self._inputs, (x, u), strict=True):
            own.copy_(new)
        if learns in self._graphs:
            graph, losses = self._graphs[learns]
            graph.replay()
            return losses
        self._eager[learns] += 1
        if self._eager[learns] > EAGER:
            graph = torch.cuda.CUDAGraph()
            graph.register_generator_state(self._generator)
            with torch.cuda.graph(graph):
                losses = self._step(learns, *self._inputs)
            self._graphs[learns] = graph, losses
            graph.replay()
            return losses
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            losses = self._step(learns, *self._inputs)
        torch.cuda.current_stream().wait_stream(aside)
        return losses
