"""One-step posterior draws, exact weights, evidence and a verdict for any NumPyro model."""

__all__: list[str] = []
