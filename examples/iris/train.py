"""Train a support vector machine on Fisher's irises and keep it with joblib, as people do."""

import json
from pathlib import Path

import joblib
from sklearn.datasets import load_iris
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC

iris = load_iris(as_frame=True)
names = {"sepal length (cm)": "sepal_length", "sepal width (cm)": "sepal_width", "petal length (cm)": "petal_length"}
flowers = iris.data.rename(columns={**names, "petal width (cm)": "petal_width"})
species = iris.target.map(dict(enumerate(iris.target_names))).astype(object)

train_x, test_x, train_y, test_y = train_test_split(flowers, species, test_size=0.2, random_state=0, stratify=species)
model = SVC(kernel="linear").fit(train_x, train_y)

joblib.dump(model, "iris.joblib")
train_x.to_csv("sample.csv", index=False)
accuracy = model.score(test_x, test_y)
Path("metrics.json").write_text(json.dumps({"accuracy": accuracy}))
print(f"iris.joblib: {accuracy:.0%} of {len(test_x)} unseen flowers right")
