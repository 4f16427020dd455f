"""`save.py FILE SAMPLE.csv COLUMN...` saves a model to the folder `model` as MLflow's guide does, with a signature from a few rows."""

import sys

import joblib
import mlflow.sklearn
import pandas as pd
from mlflow.models import infer_signature

model = joblib.load(sys.argv[1])
rows = pd.read_csv(sys.argv[2])[sys.argv[3:]]
mlflow.sklearn.save_model(model, "model", signature=infer_signature(rows, model.predict(rows)), serialization_format="cloudpickle")
