from __future__ import annotations

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from service.observability.counts import Counts, observe
from service.observability.exposition import expose
from service.observability.families import SECONDS

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
GAUGES = {("tandem_queue_rows", ()): 7.0}


def counts() -> Counts:
    found = Counts()
    found.add("tandem_predictions_total", ("shop", "3", "ok"), 2)
    found.add("tandem_predictions_total", ("former", "1", "ok"), 5)
    found.add("tandem_engine_calls_total", ('a "b"\\\n',))
    for seconds in (0.0002, 0.0002, 0.7, 99.0):
        observe(found.histogram("tandem_stage_duration_seconds", ("shop", "queue")), SECONDS, seconds)
    return found


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        pytest.param("", "text/plain; version=0.0.4; charset=utf-8", id="nothing said"),
        pytest.param("*/*", "text/plain; version=0.0.4; charset=utf-8", id="anything"),
        pytest.param("text/html", "text/plain; version=0.0.4; charset=utf-8", id="a browser"),
        pytest.param(
            f"{OPENMETRICS};q=0.9,text/plain;version=0.0.4;q=0.2",
            "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores",
            id="Prometheus",
        ),
    ],
)
def test_form_is_the_one_that_the_scraper_takes(accept: str, content_type: str) -> None:
    content, found = expose(accept, counts(), GAUGES, ["shop"])

    assert found == content_type
    assert content.endswith(b"# EOF\n") == ("openmetrics" in content_type)


@pytest.mark.parametrize(("accept", "read"), [("", read_text), (OPENMETRICS, read_openmetrics)])
def test_scraper_reads_what_was_counted(accept: str, read: object) -> None:
    content, _ = expose(accept, counts(), GAUGES, ["shop"])

    families = read(content.decode())  # type: ignore[operator]
    samples = {
        (s.name, *(label for _, label in sorted(s.labels.items()))): s.value
        for family in families
        for s in family.samples
    }
    assert samples["tandem_predictions_total", "shop", "ok", "3"] == 2
    assert samples["tandem_engine_calls_total", 'a "b"\\\n'] == 1
    assert samples["tandem_queue_rows",] == 7
    queue = {le: samples["tandem_stage_duration_seconds_bucket", le, "shop", "queue"] for le in ("0.0001", "0.00025")}
    assert queue == {"0.0001": 0, "0.00025": 2}
    assert samples["tandem_stage_duration_seconds_bucket", "1.0", "shop", "queue"] == 3
    assert samples["tandem_stage_duration_seconds_bucket", "+Inf", "shop", "queue"] == 4
    assert samples["tandem_stage_duration_seconds_count", "shop", "queue"] == 4
    assert samples["tandem_stage_duration_seconds_sum", "shop", "queue"] == pytest.approx(99.7004)


def test_models_that_are_gone_are_not_shown() -> None:
    content, _ = expose("", counts(), GAUGES, ["shop"])

    assert b"former" not in content
