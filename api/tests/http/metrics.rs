//! The page for Prometheus.

use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::json;
use windlass_api::{ApiOptions, MetricsPage};
use windlass_core::Outcome;

use crate::support::{Api, enqueue};

/// The value of a series, by its whole name.
fn value(page: &str, series: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

#[tokio::test]
async fn what_is_done_is_counted() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    // All that this test does runs on its thread.
    let _here = metrics::set_default_local_recorder(&recorder);
    let page = MetricsPage::new(move || handle.render());
    let api = Api::with(ApiOptions { metrics: Some(page), ..ApiOptions::default() }).await;
    let id = api.job().await;
    api.finish(
        id,
        Outcome::Succeeded { result: serde_json::value::to_raw_value(&1).unwrap().into(), keep: None },
    )
    .await;
    let waiting = api.job().await;
    // The second answer comes from memory.
    for _ in 0..2 {
        assert_eq!(api.get(&format!("/v1/jobs/{id}")).await.json()["state"], "succeeded");
    }
    api.enqueue(json!({"kind": "unknown", "payload": 1}).to_string()).await.problem(422);
    api.send(enqueue().header("content-encoding", "rot13").body("".into()).unwrap()).await.problem(415);
    api.get(&format!("/v1/jobs/{waiting}/nowhere")).await.problem(404);
    api.get("/v1/jobs/no-id").await.problem(400);

    let page = api.get("/metrics").await;
    assert_eq!(page.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let page = String::from_utf8(page.body.to_vec()).unwrap();
    let requests = |method: &str, route: &str, status: &str| {
        let labels = format!(r#"method="{method}",route="{route}",status="{status}""#);
        value(&page, &format!("windlass_http_requests_total{{{labels}}}"))
    };
    assert_eq!(requests("POST", "/v1/jobs", "202"), Some(2.0), "{page}");
    assert_eq!(requests("POST", "/v1/jobs", "422"), Some(1.0), "{page}");
    assert_eq!(requests("POST", "/v1/jobs", "415"), Some(1.0), "{page}");
    assert_eq!(requests("GET", "/v1/jobs/{id}", "200"), Some(2.0), "{page}");
    assert_eq!(requests("GET", "/v1/jobs/{id}", "400"), Some(1.0), "{page}");
    assert_eq!(requests("other", "other", "404"), Some(1.0), "{page}");
    for (series, wanted) in [
        (r#"windlass_http_request_duration_seconds_count{method="POST",route="/v1/jobs"}"#, 4.0),
        ("windlass_http_enqueues_bound", 512.0),
        ("windlass_http_requests_in_flight", 1.0),
        ("windlass_http_requests_waiting", 0.0),
        ("windlass_http_body_bytes", 0.0),
        ("windlass_jobs_accepted_total", 2.0),
        ("windlass_messages_published_total", 2.0),
        (r#"windlass_reads_total{source="memory"}"#, 1.0),
        (r#"windlass_queue_jobs{queue="letters",state="queued"}"#, 2.0),
        ("windlass_queue_jobs_complete", 1.0),
    ] {
        assert_eq!(value(&page, series), Some(wanted), "{series}: {page}");
    }
    // No id, nor anything else that a client makes up, is a label.
    assert!(!page.contains(&id.to_string()) && !page.contains("nowhere"), "{page}");
}

#[tokio::test]
async fn there_is_no_page_where_nothing_is_collected() {
    Api::new().await.get("/metrics").await.problem(404);
}
