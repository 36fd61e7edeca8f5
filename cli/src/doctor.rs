use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{TimeDelta, Utc};
use clap::Args;
use serde_json::{Value, json};
use windlass::{
    Envelope, JobId, Kind, Priorities, Priority, QueueName, SecretUrl, Settings,
    driver::{self, Broker, BrokerError, Lane, Message, Store, Subscription},
};

use crate::{Failure, operate::print_json};

/// Check the settings and every server that they name, and say what to do about what is wrong.
///
/// One message goes through the broker, in a queue of its own called windlass-doctor, which stays. Exit code 1 if a check
/// has failed.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How long a server may take for its answer, and a message for its way.
const PATIENCE: Duration = Duration::from_secs(30);
/// How far this machine's clock may be from the store's. Delays and the order of lists go by the first, leases by the other.
const SKEW: TimeDelta = TimeDelta::seconds(2);
const QUEUE: &str = "windlass-doctor";

/// What one check has found.
#[derive(Debug)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    detail: String,
    /// What to do about it.
    remedy: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ok,
    Warning,
    Failed,
}

impl Verdict {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}

impl Finding {
    fn ok(check: &'static str, detail: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, detail: detail.into(), remedy: None }
    }

    fn warning(check: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Warning, detail: detail.into(), remedy: Some(remedy.into()) }
    }

    fn failed(check: &'static str, detail: impl ToString, remedy: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Failed, detail: detail.to_string(), remedy: Some(remedy.into()) }
    }
}

impl Doctor {
    pub(crate) async fn run(self, settings: Settings) -> Result<(), Failure> {
        // That they could be read is why we are here.
        let mut findings = vec![Finding::ok("settings", "can be read")];
        let envelope = envelope(&settings).await;
        findings.extend(envelope);
        findings.extend(store(&settings).await);
        let servers = [
            Some(("broker_url", settings.broker())),
            settings.broker_from().map(|url| ("broker_from_url", url)),
        ];
        for (setting, url) in servers.into_iter().flatten() {
            findings.push(broker(setting, &url).await);
        }
        if let Some(url) = &settings.shared_url {
            findings.push(shared(url).await);
        }
        if self.json {
            print_json(&as_json(&findings));
        } else {
            for Finding { check, verdict, detail, remedy } in &findings {
                println!("{:<8} {check:<9} {detail}", verdict.as_str());
                if let Some(remedy) = remedy {
                    println!("{:18} -> {remedy}", "");
                }
            }
        }
        let failed = findings.iter().filter(|finding| finding.verdict == Verdict::Failed).count();
        match failed {
            0 => Ok(()),
            1 => Err(Failure::running("a check has failed")),
            more => Err(Failure::running(format!("{more} checks have failed"))),
        }
    }
}

fn as_json(findings: &[Finding]) -> Value {
    let checks = findings.iter().map(|finding| {
        json!({
            "check": finding.check, "verdict": finding.verdict.as_str(), "detail": finding.detail,
            "remedy": finding.remedy,
        })
    });
    json!({ "checks": checks.collect::<Vec<_>>() })
}

/// Keys of encryption, and the store for large payloads.
async fn envelope(settings: &Settings) -> Option<Finding> {
    let envelope: Envelope = match settings.envelope() {
        Ok(envelope) => envelope,
        Err(error) => {
            return Some(Finding::failed("objects", error, "correct encryption_keys and objects_url"));
        }
    };
    settings.objects_url.as_ref()?;
    Some(match tokio::time::timeout(PATIENCE, envelope.check()).await {
        Ok(Ok(())) => Finding::ok("objects", "the object store takes what is given to it"),
        Ok(Err(error)) => {
            Finding::failed("objects", error, "check objects_url, its rights, and whether the server runs")
        }
        Err(_) => Finding::failed("objects", "no answer", "check objects_url, and whether the server runs"),
    })
}

async fn store(settings: &Settings) -> Vec<Finding> {
    let url = &settings.store_url;
    let remedy =
        "check store_url (WINDLASS_STORE_URL), whether the server runs, and that this machine may reach it";
    let opened = async {
        let store = driver::open_store(url.expose(), &settings.store_options()).await?;
        let begun = Instant::now();
        store.ping().await?;
        Ok::<_, driver::StoreError>((store, begun.elapsed()))
    };
    let (store, took) = match tokio::time::timeout(PATIENCE, opened).await {
        Ok(Ok(opened)) => opened,
        // Its own remedy is within.
        Ok(Err(error @ driver::StoreError::Config { .. })) => {
            return vec![Finding::failed(
                "store",
                format!("{url}: {error}"),
                "do as it says, then run this again",
            )];
        }
        Ok(Err(error)) => return vec![Finding::failed("store", format!("{url}: {error}"), remedy)],
        Err(_) => {
            return vec![Finding::failed("store", format!("{url}: no answer within {PATIENCE:?}"), remedy)];
        }
    };
    let detail = format!("{url}: answers in {}, and its tables are this release's", millis(took));
    let mut findings = vec![Finding::ok("store", detail)];
    findings.push(clock(&store).await);
    findings.push(workers(&store).await);
    findings
}

async fn clock(store: &Arc<dyn Store>) -> Finding {
    let before = Utc::now();
    // Of no job: it writes nothing, and tells the store's time.
    let inserted = match store.insert(&[]).await {
        Ok(inserted) => inserted,
        Err(error) => return Finding::failed("clock", error, "mend what is wrong with the store first"),
    };
    let after = Utc::now();
    // Somewhere between the two it was that time; the nearer end is what is sure.
    let skew = match inserted.at {
        at if at < before => before - at,
        at if at > after => at - after,
        _ => TimeDelta::zero(),
    };
    let shown = millis(skew.to_std().unwrap_or_default());
    if skew <= SKEW {
        return Finding::ok("clock", format!("within {shown} of the store's"));
    }
    Finding::failed(
        "clock",
        format!("{shown} off the store's"),
        "let NTP set the clocks of this machine and of the database server",
    )
}

async fn workers(store: &Arc<dyn Store>) -> Finding {
    let remedy = "start one, with the same store_url and broker_url; jobs wait until then";
    match store.operations().workers(None, 1000).await {
        Ok(workers) => match workers.iter().filter(|worker| worker.alive).count() {
            0 => Finding::warning("workers", "none is alive", remedy),
            1 => Finding::ok("workers", "one is alive"),
            alive => Finding::ok("workers", format!("{alive} are alive")),
        },
        Err(error) => Finding::failed("workers", error, "mend what is wrong with the store first"),
    }
}

async fn broker(setting: &'static str, url: &SecretUrl) -> Finding {
    let variable = format!("WINDLASS_{}", setting.to_uppercase());
    let failed = |what: &str, error: &BrokerError| {
        let remedy = match error {
            BrokerError::Config { .. } => "do as it says, then run this again".to_owned(),
            _ => format!(
                "check {setting} ({variable}), whether the server runs, and that this machine may reach it"
            ),
        };
        Finding::failed("broker", format!("{url}: {what}: {error}"), remedy)
    };
    let broker = match driver::open_broker(url.expose()).await {
        Ok(broker) => broker,
        Err(error) => return failed("cannot be opened", &error),
    };
    let begun = Instant::now();
    let way = async {
        broker.ping().await.map_err(|error| failed("does not answer", &error))?;
        let answered = begun.elapsed();
        let way = round_trip(&*broker).await.map_err(|error| failed("no message gets through", &error))?;
        Ok::<_, Finding>((answered, way))
    };
    let finding = match tokio::time::timeout(PATIENCE, way).await {
        Ok(Ok((answered, way))) if url.expose().starts_with("memory:") => Finding::warning(
            "broker",
            format!("{url}: a message took {} within this process", millis(answered + way)),
            format!(
                "it reaches no other process: set {setting} ({variable}) unless `windlass dev` is all that runs"
            ),
        ),
        Ok(Ok((answered, way))) => {
            let (answered, way) = (millis(answered), millis(way));
            Finding::ok(
                "broker",
                format!("{url}: answers in {answered}; a message took {way} from publish to receipt"),
            )
        }
        Ok(Err(finding)) => finding,
        Err(_) => Finding::failed(
            "broker",
            format!("{url}: no message came through within {PATIENCE:?}"),
            format!(
                "see the broker's own log, and that the user in {setting} may make, read and write queues"
            ),
        ),
    };
    broker.close().await;
    finding
}

/// What instances share beside the store. Nothing stops without it.
async fn shared(url: &SecretUrl) -> Finding {
    match driver::reach_shared(url.expose(), PATIENCE).await {
        Ok(took) => Finding::ok("shared", format!("{url}: answers in {}", millis(took))),
        Err(problem) => Finding::warning(
            "shared",
            format!("{url}: {problem}"),
            "check shared_url (WINDLASS_SHARED_URL), whether the server runs, and that this machine may reach it; \
             until then each instance counts and reads for itself",
        ),
    }
}

/// How long a message takes from being published until it is in hand.
async fn round_trip(broker: &dyn Broker) -> Result<Duration, BrokerError> {
    let (Ok(queue), Ok(kind)) = (QUEUE.parse::<QueueName>(), QUEUE.parse::<Kind>()) else {
        return Err(BrokerError::Closed);
    };
    let lane = Lane { queue, priority: Priority::default() };
    let mut subscription = broker.subscribe(std::slice::from_ref(&lane), 16, Priorities::default()).await?;
    let job_id = JobId::new();
    let message = Message { job_id, attempt: 1, lane, kind, trace: None, ordering_key: None };
    let begun = Instant::now();
    broker.publish(&[message]).await.into_iter().collect::<Result<Vec<()>, _>>()?;
    // What another doctor has left there goes as well: it announces no job.
    while !take(&mut *subscription, job_id).await? {}
    Ok(begun.elapsed())
}

async fn take(subscription: &mut dyn Subscription, wanted: JobId) -> Result<bool, BrokerError> {
    let deliveries = subscription.receive(16).await?;
    let tags: Vec<_> = deliveries.iter().map(|delivery| delivery.tag).collect();
    subscription.ack(&tags).await?;
    Ok(deliveries.iter().any(|delivery| delivery.message.job_id == wanted))
}

fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}
