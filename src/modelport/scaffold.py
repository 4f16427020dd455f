"""The files of a new project: a modelport.toml and a train.py, made of what a model file says of itself."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from modelport.bundle import check_name, slug
from modelport.errors import UsageError
from modelport.frameworks import Card
from modelport.inspection.report import Inspection
from modelport.project import FILE

_SCRIPT, _METRICS, _REQUIREMENTS, _SAMPLE = "train.py", "metrics.json", "requirements.txt", "sample.csv"
_UNSUPERVISED = ("sklearn.cluster.", "sklearn.decomposition.", "sklearn.manifold.", "sklearn.mixture.", "sklearn.preprocessing.")


@dataclass(frozen=True)
class Asked:
    """What is known of the project: the flags of `init` by the same names, and what the model file says."""

    model: str | None = None
    """The model file's path, from the project's folder; None where there is none yet."""
    seen: Inspection | None = None
    """What that file holds."""
    name: str | None = None
    sample: str | None = None
    target: str | None = None


def files(asked: Asked, present: frozenset[str]) -> dict[str, str]:
    """The text of each file to write, by name. `present` names the files of the folder, which are not written again.

    UsageError when there is a modelport.toml, or a name that a bundle cannot have. There is no train.py for a model of which the file does
    not say how such a one is trained.
    """
    if FILE in present:
        raise UsageError(f"there is a {FILE} in this folder already", hint="Nothing is overwritten: change it, or take it away first.")
    script = _script(asked)
    made = {}
    if script is not None and _SCRIPT not in present:
        made[_SCRIPT] = script.text
        if _REQUIREMENTS not in present:
            made[_REQUIREMENTS] = "".join(f"{name}\n" for name in script.requirements)
    return {FILE: _toml(asked, present, made), **made}


def toml_string(text: str) -> str:
    """`text` as a basic string of TOML, which is one of JSON but for one character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _toml(asked: Asked, present: frozenset[str], made: Mapping[str, str]) -> str:
    model = asked.model or "model.joblib"
    name = check_name(asked.name or slug(Path(model).stem if asked.model else Path.cwd().name) or "model")
    lines = [
        "# What `modelport pack`, `serve` and `train` would be told by flags otherwise. Paths are from this folder.",
        f"name = {toml_string(name)}",
        f"model = {toml_string(model)}",
    ]
    sample = asked.sample or (_SAMPLE if _SAMPLE in present or not asked.model else None)
    if sample:
        lines.append(f"sample = {toml_string(sample)}")
    elif _SCRIPT in made:
        lines.append(f'# sample = "{_SAMPLE}"  # a few rows of the training data, once {_SCRIPT} has written them')
    if asked.target and asked.sample:
        lines.append(f"target = {toml_string(asked.target)}")
    lines.append(f"title = {toml_string(name.replace('-', ' ').replace('_', ' ').capitalize())}")
    if _SCRIPT in made or _SCRIPT in present:
        lines += ["", "[train]", f'command = "python {_SCRIPT}"']
        lines += [f'metrics = "{_METRICS}"'] if _SCRIPT in made else [f'# metrics = "{_METRICS}"  # an object of numbers that it writes']
        if _REQUIREMENTS in made or _REQUIREMENTS in present:
            lines.append(f'requirements = "{_REQUIREMENTS}"')
    features = asked.seen.card.features if asked.seen and asked.seen.card else ()
    lines += ["", "# Say of an input what the model does not know; again for the next one.", "# [[inputs]]"]
    lines += [f"# name = {toml_string(features[0] if features else 'age')}", '# kind = "number"', "# minimum = 0"]
    lines.append('# description = "what it is, and in which unit"')
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class _Script:
    text: str
    requirements: tuple[str, ...]


def _script(asked: Asked) -> _Script | None:
    """What trains such a model; None where the file does not say how that is done."""
    if asked.model is None:
        return _Script(_FIRST.lstrip(), ("joblib", "pandas", "scikit-learn"))
    card = asked.seen.card if asked.seen else None
    if asked.seen is None or card is None or card.cls.startswith(_UNSUPERVISED):
        return None
    parts = _same_again(asked.model, card) if asked.seen.format in ("pickle", "joblib") else _anew(asked.model, card)
    if parts is None:
        return None
    imports, model, keep, requirements = parts
    score = "accuracy" if card.classes or "Classifier" in card.cls else "r2"
    features = f"[{', '.join(map(json.dumps, card.features))}]" if card.features else "[name for name in rows.columns if name != TARGET]"
    text = _RETRAIN.format(
        imports="\n".join(sorted(["import pandas", "from sklearn.model_selection import train_test_split", *imports], key=_import_order)),
        target=json.dumps(asked.target or "target"),
        features=_wrapped(features),
        model=model,
        keep=keep,
        score=score,
    )
    return _Script(text.lstrip(), ("pandas", "scikit-learn", *requirements))


_Parts = tuple[list[str], str, str, tuple[str, ...]]
"""Import lines, the expression that makes the untrained model, the statement that keeps it, and what they need beside scikit-learn."""


def _same_again(path: str, card: Card) -> _Parts | None:
    """A pickle of an estimator: the same class and hyperparameters again."""
    if card.framework not in ("sklearn", "xgboost", "lightgbm", "catboost") or card.cls.endswith("Booster"):
        return None
    own = {"xgboost": "xgboost", "lightgbm": "lightgbm", "catboost": "catboost"}.get(card.framework)
    same = f"clone(joblib.load({json.dumps(path)}))  # its steps and hyperparameters, untrained"
    imports = ["import joblib", "from sklearn.base import clone"]
    return imports, same, f"joblib.dump(model, {json.dumps(path)})", ("joblib", *([own] if own else []))


def _anew(path: str, card: Card) -> _Parts | None:
    """A file in a library's own format: a model of that library with as many trees."""
    if card.framework not in _NATIVE:
        return None
    prefix, trees, keep = _NATIVE[card.framework]
    cls = f"{prefix}{'Classifier' if card.classes or _CLASSIFIES.match(str(card.details.get('objective', ''))) else 'Regressor'}"
    model = f"{cls}({trees}={card.details.get('trees') or 100})"
    return [f"from {card.framework} import {cls}"], model, f"{keep}({json.dumps(path)})", (card.framework,)


_NATIVE = {
    "xgboost": ("XGB", "n_estimators", "model.save_model"),
    "lightgbm": ("LGBM", "n_estimators", "model.booster_.save_model"),
    "catboost": ("CatBoost", "iterations", "model.save_model"),
}
"""How the classes of a library are called before what they do, their number of trees, and what keeps a model in the library's format."""
_CLASSIFIES = re.compile("binary|multi|logloss|cross", re.IGNORECASE)
"""Objectives of classifiers."""


def _import_order(line: str) -> tuple[bool, str]:
    return line.startswith("from"), line


def _wrapped(features: str) -> str:
    return features if len(features) <= 100 else "[\n    " + features[1:-1].replace(", ", ",\n    ") + ",\n]"


_FIRST = '''
"""Train the model that modelport.toml names. `modelport train` runs this, and packs what it has written.

It begins with Fisher's irises, which come with scikit-learn: read your own data in their place.
"""

import json
from pathlib import Path

import joblib
from sklearn.datasets import load_iris
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import train_test_split

iris = load_iris(as_frame=True)  # your own: pandas.read_csv("data.csv")
features = iris.data.rename(columns=lambda name: name.removesuffix(" (cm)").replace(" ", "_"))
target = iris.target.map(dict(enumerate(iris.target_names)))

train_x, test_x, train_y, test_y = train_test_split(features, target, test_size=0.2, random_state=0)
model = HistGradientBoostingClassifier(random_state=0).fit(train_x, train_y)

joblib.dump(model, "model.joblib")
train_x.head(100).to_csv("sample.csv", index=False)
Path("metrics.json").write_text(json.dumps({"accuracy": model.score(test_x, test_y)}))
'''

_RETRAIN = '''
"""Train the model that modelport.toml names anew. `modelport train` runs this, and packs what it has written.

It reads data.csv: a column for each input, and the one to be predicted.
"""

import json
from pathlib import Path

{imports}

TARGET = {target}  # the column of data.csv that the model predicts

rows = pandas.read_csv("data.csv")
FEATURES = {features}
train, test = train_test_split(rows, test_size=0.2, random_state=0)

model = {model}
model.fit(train[FEATURES], train[TARGET])

{keep}
train[FEATURES].head(100).to_csv("sample.csv", index=False)
Path("metrics.json").write_text(json.dumps({{"{score}": float(model.score(test[FEATURES], test[TARGET]))}}))
'''
