"""What every op of the core owes its users, stated once. A test class names its op, its twin and its inputs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor


def tensors_of(result) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else [r for r in result if isinstance(r, Tensor)]


class OpTester:
    """Subclasses define `op`, `twin` and `inputs`; each test below then runs for every case in `cases`.

    The tolerance of float32 is 2e-5 relative to the largest value: kernels and twins add up the same few hundred
    terms in different orders, about sqrt(300) · 2⁻²³ each way.
    """

    cases: tuple = ({},)
    tolerance_f32 = 2e-5
    differentiable = True
    twice_differentiable = False

    def op(self, *inputs, **case):
        raise NotImplementedError

    def twin(self, *inputs, **case):
        raise NotImplementedError

    def inputs(self, dtype: torch.dtype, n: int, **case) -> tuple:
        """Fresh random inputs with about n items; floating-point tensors among them are differentiated."""
        raise NotImplementedError

    # ------------------------------------------------------------------ helpers

    def _leaves(self, inputs) -> list[Tensor]:
        flat = [t for i in inputs for t in (i if isinstance(i, list | tuple) else [i])]
        return [t for t in flat if isinstance(t, Tensor) and t.is_floating_point() and t.requires_grad]

    def _every_case(self):
        return enumerate(self.cases)

    # ------------------------------------------------------------------ tests

    @pytest.mark.parametrize("n", [0, 1, 7, 1000])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_agrees_with_twin(self, dtype, n):
        tolerance = self.tolerance_f32 if dtype is torch.float32 else 1e-12
        for k, case in self._every_case():
            torch.manual_seed(k)
            inputs = self.inputs(dtype, n, **case)
            for got, want in zip(
                tensors_of(self.op(*inputs, **case)), tensors_of(self.twin(*inputs, **case)), strict=True
            ):
                scale = max(1.0, float(want.detach().abs().max())) if want.numel() and want.is_floating_point() else 1.0
                torch.testing.assert_close(
                    got, want, rtol=tolerance, atol=tolerance * scale, msg=lambda m, c=case: f"{c}: {m}"
                )

    def test_gradients_agree_with_twin(self):
        if not self.differentiable:
            pytest.skip("not differentiable")
        for k, case in self._every_case():
            torch.manual_seed(k)
            inputs = self.inputs(torch.float64, 200, **case)
            leaves = self._leaves(inputs)
            results = []
            for function in (self.op, self.twin):
                outputs = [t for t in tensors_of(function(*inputs, **case)) if t.requires_grad]
                generator = torch.Generator(torch.get_default_device()).manual_seed(1)
                scalar = sum((t * torch.randn(t.shape, generator=generator, dtype=t.dtype)).sum() for t in outputs)
                results.append(torch.autograd.grad(scalar, leaves))
            for got, want in zip(*results, strict=True):
                torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)

    def test_gradcheck(self):
        if not self.differentiable:
            pytest.skip("not differentiable")
        for k, case in self._every_case():
            torch.manual_seed(k)
            inputs = self.inputs(torch.float64, 5, **case)
            leaves = self._leaves(inputs)

            def outputs(*_, inputs=inputs, case=case):
                return tuple(t for t in tensors_of(self.op(*inputs, **case)) if t.requires_grad)

            # Positions sit away from cell faces by construction of `inputs`, so central differences are exact enough.
            assert torch.autograd.gradcheck(outputs, leaves, eps=1e-6, atol=1e-6, rtol=1e-5)
            if self.twice_differentiable:
                assert torch.autograd.gradgradcheck(outputs, leaves, eps=1e-6, atol=1e-5, rtol=1e-4)

    def test_same_bits_twice_and_on_any_number_of_threads(self, monkeypatch):
        """On a CPU always; on a GPU where torch is asked for it."""
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            self._compare_bits()
        finally:
            torch.use_deterministic_algorithms(False)

    def _compare_bits(self):
        for k, case in self._every_case():
            results = []
            for threads in (1, 2, 2):
                torch.manual_seed(k)
                before = torch.get_num_threads()
                torch.set_num_threads(threads)
                inputs = self.inputs(torch.float32, 3000, **case)
                outputs = tensors_of(self.op(*inputs, **case))
                differentiable = [t for t in outputs if t.requires_grad]
                grads = (
                    torch.autograd.grad(sum(t.sum() for t in differentiable), self._leaves(inputs))
                    if differentiable
                    else ()
                )
                torch.set_num_threads(before)
                results.append([*outputs, *grads])
            for other in results[1:]:
                assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True)), case
