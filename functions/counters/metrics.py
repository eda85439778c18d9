"""Metrics: each invocation writes one log line in CloudWatch's embedded metric format.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

import os

from aws_lambda_powertools import Metrics
from aws_lambda_powertools.metrics import MetricUnit


def publish(counts: dict[str, int], milliseconds: dict[str, float] | None = None) -> None:
    """Publish metrics in the namespace Tally, with the dimension `stack`.

    Args:
        counts: the values of the metrics that are counts, by name.
        milliseconds: the values of the metrics that are durations, in milliseconds, by name.
    """
    metrics = Metrics(namespace="Tally", service="tally")
    metrics.add_dimension("stack", os.environ["STACK_NAME"])
    for name, count in counts.items():
        metrics.add_metric(name, MetricUnit.Count, count)
    for name, duration in (milliseconds or {}).items():
        metrics.add_metric(name, MetricUnit.Milliseconds, duration)
    metrics.flush_metrics()
