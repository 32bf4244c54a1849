"""The DAGs of the lab: a burst of small tasks into a pool of three slots, and a task that fails when told to.

`burst_fanout` is started by hand with {"n": COUNT, "seconds": HOW_LONG}. `flaky_ingest` is started by hand
and fails while the Airflow Variable `source_is_broken` is "yes".
"""

import time

from airflow.sdk import DAG, Variable, get_current_context, task

with DAG("burst_fanout", schedule=None, catchup=False, max_active_tasks=64, tags=["lab"]):

    @task(pool="default_pool")
    def parts() -> list[int]:
        return list(range(int(get_current_context()["params"].get("n", 9))))

    @task(pool="extract_pool", max_active_tis_per_dag=64)
    def crunch(part: int) -> int:
        time.sleep(float(get_current_context()["params"].get("seconds", 8)))
        return part

    crunch.expand(part=parts())

with DAG("flaky_ingest", schedule=None, catchup=False, tags=["lab"]):

    @task(pool="default_pool", retries=0)
    def fetch() -> None:
        if Variable.get("source_is_broken", default="no") == "yes":
            raise RuntimeError("the source is broken")

    @task(pool="default_pool")
    def store() -> None:
        pass

    fetch() >> store()
