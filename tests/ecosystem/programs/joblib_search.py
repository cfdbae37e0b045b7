"""scikit-learn through joblib on a cluster finds what it finds in one process."""

import warnings

import joblib
import numpy as np
import ray
import sklearn
from ray.util.joblib import register_ray
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def search():
    return GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)),
        {"logisticregression__C": [0.01, 0.1, 1.0, 10.0]},
        cv=5,
        n_jobs=-1,
    )


def main():
    warnings.simplefilter("error")
    ray.init(num_cpus=2, log_to_driver=False)
    register_ray()
    samples, labels = make_classification(2000, 20, n_informative=6, random_state=3)

    with joblib.parallel_backend("ray"):
        found = search().fit(samples, labels)
        scores = cross_val_score(LogisticRegression(), samples, labels, cv=8, n_jobs=-1)
        forest = RandomForestClassifier(40, n_jobs=-1, random_state=5).fit(samples, labels)
        squares = joblib.Parallel()(joblib.delayed(pow)(n, 2) for n in range(500))

    assert squares == [n * n for n in range(500)]
    with joblib.parallel_config("sequential"):
        alone = search().fit(samples, labels)
        alone_scores = cross_val_score(LogisticRegression(), samples, labels, cv=8)
        alone_forest = RandomForestClassifier(40, random_state=5).fit(samples, labels)
    assert found.best_params_ == alone.best_params_
    np.testing.assert_allclose(
        found.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"]
    )
    np.testing.assert_allclose(scores, alone_scores)
    np.testing.assert_array_equal(forest.predict(samples), alone_forest.predict(samples))
    print(f"scikit-learn {sklearn.__version__}: best {found.best_params_}, {scores.mean():.3f}")


if __name__ == "__main__":
    main()
