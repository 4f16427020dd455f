"""Columns of values as the matrix or the frame that a model takes, and values as plain Python ones."""

from __future__ import annotations

from typing import Any, Iterable, Mapping, Sequence

import numpy as np


def matrix(arrays: Sequence[Any], by_column: bool = False) -> Any:
    """Arrays of shape (rows,) as one matrix (rows, columns): float64, missing values as NaN; of objects when one holds strings.

    `by_column` lays it out as a pandas frame does: BLAS adds up in another order then, and the last digit is that of the frame.
    """
    if any(array.dtype == object for array in arrays):
        if any(isinstance(value, str) for array in arrays if array.dtype == object for value in array):
            return np.column_stack([_with_nan(array.astype(object)) for array in arrays])
        arrays = [array.astype(np.float64) if array.dtype == object else array for array in arrays]
    try:
        joined = np.concatenate(arrays, dtype=np.float64, casting="unsafe")
    except TypeError:  # numpy before 1.20 takes no dtype there
        joined = np.concatenate([array.astype(np.float64) for array in arrays])
    rows = joined.reshape(len(arrays), -1).T
    return rows if by_column else np.ascontiguousarray(rows)


def frame(arrays: Sequence[Any], names: Sequence[str], categories: Mapping[str, Sequence[Any]] | None = None) -> Any:
    """Arrays as a pandas DataFrame: what is missing as NaN, the columns in `categories` as pandas categoricals, what is in none as missing.

    Columns of objects that are all booleans, integers or floats get that dtype, as they would have had when they were read from a file.
    """
    import pandas as pd

    if not categories and all(array.dtype == np.float64 for array in arrays):
        return pd.DataFrame(matrix(arrays, by_column=True), columns=list(names), copy=False)
    data: dict[str, Any] = {}
    for name, array in zip(names, arrays):
        if categories and name in categories:
            places = {value: place for place, value in enumerate(categories[name])}
            data[name] = pd.Categorical.from_codes([places.get(value, -1) for value in array.tolist()], categories=list(categories[name]))
        else:
            data[name] = _narrowed(array) if array.dtype == object else array
    return pd.DataFrame(data)


def _with_nan(array: Any) -> Any:
    """An array of objects with NaN for None, as pandas has it."""
    out = array.copy()
    out[[value is None for value in array]] = np.nan
    return out


def _narrowed(array: Any) -> Any:
    kinds = {type(value) for value in array}
    if kinds == {bool}:
        return array.astype(bool)
    if kinds == {int}:
        return array.astype(np.int64)
    if kinds <= {int, float, type(None)} and kinds != {type(None)}:
        return array.astype(np.float64)
    return _with_nan(array)


def numbered(count: int) -> tuple[str, ...]:
    """The names of columns that have none: x0, x1, ..."""
    return tuple(f"x{index}" for index in range(count))


def plain(values: Iterable[Any]) -> tuple[Any, ...]:
    """Labels as plain Python values of the same type: 'setosa', 0, True, 1.5."""
    return tuple(value.item() if isinstance(value, np.generic) else value for value in values)


def rounded(value: Any) -> float | None:
    """A number to four digits, for an example; None when it is not a finite number."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return float(f"{number:.4g}") if np.isfinite(number) else None
