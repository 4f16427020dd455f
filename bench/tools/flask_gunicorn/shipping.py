"""A Flask service for gunicorn, as its quickstart writes it."""

import pickle
from pathlib import Path

import numpy as np
from flask import Flask, jsonify, request

app = Flask(__name__)
model = pickle.loads(Path("shipping.pkl").read_bytes())
FIELDS = ("price", "product_weight_g", "product_height_cm", "delivery_distance_km", "product_volume_cm3")


def values(order):
    return [float(order[name]) for name in FIELDS]


@app.post("/predict")
def predict():
    return jsonify({"prediction": float(model.predict(np.array([values(request.get_json())]))[0])})


@app.post("/predict_many")
def predict_many():
    prices = model.predict(np.array([values(order) for order in request.get_json()]))
    return jsonify([{"prediction": price} for price in prices.tolist()])
