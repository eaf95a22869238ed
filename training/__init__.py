"""The training side of Tandem: fitting, and exporting what was fitted.

`training` imports `service`, never the other way.

    from training import export
    export(estimator, X, name="churn")
"""

from training.export import ExportedModel, export

__all__ = ["ExportedModel", "export"]
