//! The metrics layer, and a recorder to see what it records.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, SharedString, Unit,
};
use windlass_core::{RetryPolicy, State};
use windlass_worker::{Context, Handling, JobError, middleware::MetricsLayer};

use crate::support::{Bench, Notes, Task, options, run, until};

/// How often each metric with its labels was recorded.
#[derive(Debug, Clone, Default)]
struct Recorder(Arc<Mutex<BTreeMap<String, u64>>>);

struct Metric {
    name: String,
    recorder: Recorder,
}

impl Recorder {
    fn metric(&self, key: &Key) -> Arc<Metric> {
        let labels = key.labels().map(|label| format!(" {}={}", label.key(), label.value()));
        let name = format!("{}{}", key.name(), labels.collect::<String>());
        Arc::new(Metric { name, recorder: self.clone() })
    }

    fn seen(&self) -> Vec<(String, u64)> {
        self.0.lock().unwrap().clone().into_iter().collect()
    }
}

impl metrics::Recorder for Recorder {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.metric(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.metric(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.metric(key))
    }
}

impl CounterFn for Metric {
    fn increment(&self, by: u64) {
        *self.recorder.0.lock().unwrap().entry(self.name.clone()).or_default() += by;
    }

    fn absolute(&self, _: u64) {
        panic!("nothing is counted elsewhere")
    }
}

impl GaugeFn for Metric {
    fn increment(&self, by: f64) {
        assert_eq!(by, 1.0);
        *self.recorder.0.lock().unwrap().entry(self.name.clone()).or_default() += 1;
    }

    fn decrement(&self, by: f64) {
        assert_eq!(by, 1.0);
        *self.recorder.0.lock().unwrap().get_mut(&self.name).unwrap() -= 1;
    }

    fn set(&self, _: f64) {
        panic!("nothing is measured elsewhere")
    }
}

impl HistogramFn for Metric {
    fn record(&self, seconds: f64) {
        assert!((0.0..60.0).contains(&seconds), "{seconds}");
        CounterFn::increment(self, 1);
    }
}

#[tokio::test]
async fn the_metrics_layer_counts_by_kind_queue_and_outcome() {
    let recorder = Recorder::default();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let (bench, notes) = (Bench::new().await, Notes::default());
    let runs = notes.clone();
    let handler = move |task: Task, ctx: Context| {
        let run = runs.begin(ctx.job_id());
        async move {
            let _run = run;
            match task.number {
                0 => Ok("well"),
                1 => Err(JobError::retry("failed")),
                2 => Err(JobError::discard("never")),
                3 if ctx.labels().is_empty() => Err(JobError::snooze(Duration::from_secs(3600))),
                4 => panic!("in the handler"),
                5 => {
                    ctx.cancelled().cancelled().await;
                    Err(JobError::retry("told"))
                }
                _ => std::future::pending().await,
            }
        }
    };
    let mut hasty = options();
    hasty.abort_after = Duration::from_millis(1);
    let handling = Handling::of(handler).retry(RetryPolicy::fixed(Duration::from_secs(3600)));
    let running = run(bench.worker_with(hasty).layer(MetricsLayer::new()).handle_with(handling));
    let mut ids = Vec::new();
    for number in 0..7 {
        ids.push(bench.client.enqueue(Task { number }).await.unwrap());
    }
    until("all have begun", async || notes.runs() == 7).await;
    for id in &ids[5..] {
        bench.client.cancel(*id).await.unwrap();
    }
    let states = [
        State::Succeeded,
        State::Retrying,
        State::Dead,
        State::Scheduled,
        State::Retrying,
        State::Cancelled,
        State::Cancelled,
    ];
    for (id, state) in ids.iter().zip(states) {
        bench.reaches(*id, state).await;
    }
    running.stop().await;

    // With the layer or without, the worker counts what became of attempts.
    let mut attempts = recorder.seen();
    attempts.retain(|(metric, _)| metric.starts_with("windlass_attempt"));
    let ended = |metric: &str| {
        [("cancelled", 2), ("dead", 1), ("retry", 2), ("snoozed", 1), ("succeeded", 1)]
            .map(|(outcome, count)| (format!("{metric} outcome={outcome}"), count))
    };
    let mut expected = ended("windlass_attempt_duration_seconds").to_vec();
    expected.push(("windlass_attempts_running".to_owned(), 0));
    expected.extend(ended("windlass_attempts_total"));
    assert_eq!(attempts, expected);

    // The client counts what it reads.
    let mut seen = recorder.seen();
    seen.retain(|(metric, _)| metric.starts_with("windlass_handler"));
    let ended = |metric: &str| {
        [("discarded", 1), ("failed", 2), ("snoozed", 1), ("stopped", 2), ("succeeded", 1)].map(
            |(outcome, count)| (format!("{metric} kind=test.task queue=default outcome={outcome}"), count),
        )
    };
    let mut expected = ended("windlass_handler_duration_seconds").to_vec();
    expected.extend(ended("windlass_handlers_ended_total"));
    expected.push(("windlass_handlers_started_total kind=test.task queue=default".to_owned(), 7));
    assert_eq!(seen, expected);
}
