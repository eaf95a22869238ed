"""What an operator has said of a model: how close, from which engine, and whether its file may be opened."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Fidelity = Literal["exact", "close"]
Pickle = Literal["lazy", "never", "always"]


class ModelRules(BaseModel):
    """Of one model; what is None is left to the server's own setting."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fidelity: Fidelity | None = Field(None, description="exact: within 1e-12; close: labels equal, 1e-5 relative")
    pickle: Pickle | None = Field(None, description="whether the joblib file may be opened")
    engine: str | None = Field(None, description="one engine by name instead of the cheapest: onnx, estimator, …")

    def over(self, server: ModelRules) -> ModelRules:
        """These rules, with the server's where there are none."""
        return ModelRules(
            fidelity=self.fidelity or server.fidelity,
            pickle=self.pickle or server.pickle,
            engine=self.engine or server.engine,
        )
