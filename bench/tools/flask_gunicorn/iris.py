"""A Flask service for gunicorn, as its quickstart writes it."""

import warnings

import joblib
import numpy as np
from flask import Flask, jsonify, request

warnings.filterwarnings("ignore", message="X does not have valid feature names")
app = Flask(__name__)
model = joblib.load("iris.joblib")
FIELDS = ("sepal_length", "sepal_width", "petal_length", "petal_width")


@app.post("/predict")
def predict():
    iris = request.get_json()
    row = np.array([[float(iris[name]) for name in FIELDS]])
    return jsonify({"prediction": model.predict(row)[0]})
