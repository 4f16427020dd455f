"""Make shipping data, train a gradient-boosted regressor on it and pickle it, as people do."""

import json
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
from xgboost import XGBRegressor

rng = np.random.default_rng(7)
rows = 4000
side_cm = rng.uniform(5, 60, (rows, 3))
data = pd.DataFrame(
    {
        "price": rng.lognormal(4, 0.9, rows).round(2),
        "product_weight_g": (side_cm.prod(axis=1) * rng.uniform(0.05, 0.6, rows)).round(),
        "product_height_cm": side_cm[:, 0].round(1),
        "delivery_distance_km": rng.gamma(2, 300, rows).round(1),
        "product_volume_cm3": side_cm.prod(axis=1).round(),
    }
)
volumetric_kg = data["product_volume_cm3"] / 5000
cost = 6 + 0.9 * np.maximum(data["product_weight_g"] / 1000, volumetric_kg) + 0.011 * data["delivery_distance_km"] + 0.004 * data["price"]
data["shipping_price"] = (cost * rng.normal(1, 0.05, rows)).round(2)

inputs = data.drop(columns="shipping_price")
train, test = data.index[:3200], data.index[3200:]
model = XGBRegressor(n_estimators=200, max_depth=6, learning_rate=0.1, random_state=0)
model.fit(inputs.loc[train], data.loc[train, "shipping_price"])
error = (model.predict(inputs.loc[test]) - data.loc[test, "shipping_price"]).pow(2).mean() ** 0.5

with open("shipping.pkl", "wb") as file:  # noqa: PTH123 as people write it
    pickle.dump(model, file)
data.head(500).to_csv("sample.csv", index=False)
inputs.loc[test].to_csv("new_orders.csv", index=False)
Path("metrics.json").write_text(json.dumps({"rmse": error}))
print(f"shipping.pkl: off by {error:.2f} (root mean square) on {len(test)} orders it has not seen")
