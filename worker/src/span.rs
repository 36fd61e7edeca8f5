use tracing::Span;
use windlass_core::ClaimedJob;

/// The span that an attempt runs in: layers, handler, and what is said of the outcome. With the cargo feature
/// `opentelemetry`, and a subscriber that exports there, it is a child of the span that the job was enqueued in.
pub(crate) fn attempt(job: &ClaimedJob) -> Span {
    let trace = job.trace.as_ref();
    let span = tracing::info_span!(
        "attempt",
        job_id = %job.id, kind = %job.kind, queue = %job.queue, attempt = job.attempt,
        traceparent = trace.map(|trace| trace.as_str()),
    );
    #[cfg(feature = "opentelemetry")]
    if let Some(trace) = trace {
        set_parent(&span, trace);
    }
    span
}

#[cfg(feature = "opentelemetry")]
fn set_parent(span: &Span, trace: &windlass_core::TraceParent) {
    use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;

    // Checked for form when it was made.
    let mut parts = trace.as_str().split('-').skip(1);
    let mut next = || parts.next().unwrap_or_default();
    let (Ok(trace_id), Ok(span_id), Ok(flags)) =
        (TraceId::from_hex(next()), SpanId::from_hex(next()), u8::from_str_radix(next(), 16))
    else {
        return;
    };
    let enqueue = SpanContext::new(trace_id, span_id, TraceFlags::new(flags), true, TraceState::default());
    // It has no parent to be set when no such subscriber is there, or the span is filtered out.
    let _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(enqueue));
}
