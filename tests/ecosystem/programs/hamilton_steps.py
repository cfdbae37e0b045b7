"""The functions of hamilton_graph.py: a parameter's name is that of the function it comes from."""

import pandas as pd
from hamilton.htypes import Collect, Parallelizable


def spend_per_signup(spend: pd.Series, signups: pd.Series) -> pd.Series:
    return spend / signups


def mean_spend(spend: pd.Series) -> pd.Series:
    return spend.rolling(2).mean()


def number(upto: int) -> Parallelizable[int]:
    yield from range(upto)


def square(number: int) -> int:
    return number * number


def total(square: Collect[int]) -> int:
    return sum(square)
