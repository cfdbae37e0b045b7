"""Apache Hamilton: a graph of functions, each node a task; and a map over a list, each item one."""

import hamilton.version
import hamilton_steps
import pandas as pd
import ray
from hamilton import base, driver
from hamilton.plugins import h_ray


def main():
    spend = pd.Series([10.0, 10, 20, 40, 40, 50])
    signups = pd.Series([1.0, 10, 50, 100, 200, 400])
    wanted = ["spend_per_signup", "mean_spend"]

    ray.init(num_cpus=2, log_to_driver=False)
    adapter = h_ray.RayGraphAdapter(result_builder=base.PandasDataFrameResult())
    graph = driver.Driver({"spend": spend, "signups": signups}, hamilton_steps, adapter=adapter)
    ours = graph.execute(wanted)
    alone = driver.Driver({"spend": spend, "signups": signups}, hamilton_steps).execute(wanted)
    pd.testing.assert_frame_equal(ours, alone)
    ray.shutdown()

    mapped = (
        driver.Builder()
        .enable_dynamic_execution(allow_experimental_mode=True)
        .with_modules(hamilton_steps)
        .with_remote_executor(h_ray.RayTaskExecutor(num_cpus=2))
        .build()
    )
    assert mapped.execute(["total"], inputs={"upto": 30})["total"] == sum(n * n for n in range(30))
    version = ".".join(map(str, hamilton.version.VERSION[:3]))
    print(f"hamilton {version}: the graph and the map as in one process")


if __name__ == "__main__":
    main()
