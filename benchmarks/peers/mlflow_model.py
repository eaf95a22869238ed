"""Writes the forest as an MLflow model. `python mlflow_model.py MODEL_FILE FOLDER`"""

import sys

import joblib
import mlflow

if __name__ == "__main__":
    # MLflow writes skops files, and wants the one type named that scikit-learn's trees need.
    trusted = ["sklearn.tree._tree.Tree"]
    model = joblib.load(sys.argv[1])
    mlflow.sklearn.save_model(model, sys.argv[2], pyfunc_predict_fn="predict_proba", skops_trusted_types=trusted)
