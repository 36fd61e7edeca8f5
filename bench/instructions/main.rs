//! A hot path, walked so many times, for whoever counts the instructions: `scripts/instructions`.

use std::{env, process};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, header::CONTENT_TYPE},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use windlass::{
    Client, JobId, Priority, Settings, UnknownKinds,
    driver::{Lane, Message},
    prelude::*,
};
use windlass_api::ApiOptions;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// How many jobs are accepted by one call.
const GROUP: usize = 100;

#[derive(Debug, Clone, Serialize, Deserialize, Job)]
#[job(kind = "instructions.noop")]
struct Noop {
    /// Two hundred bytes of JSON.
    text: String,
}

impl Noop {
    fn new() -> Self {
        Self { text: "x".repeat(189) }
    }
}

async fn noop(_: Noop, ran: State<mpsc::UnboundedSender<()>>) -> Result<(), JobError> {
    // Nobody listens after the last one.
    let _ = ran.send(());
    Ok(())
}

// One thread: how threads meet would change the count.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [path, times, file] = &*arguments else {
        eprintln!("usage: instructions message|enqueue|poll|accept|run TIMES DATABASE-FILE");
        process::exit(2);
    };
    let times: usize = times.parse()?;
    if path == "message" {
        return messages(times);
    }
    let settings = Settings {
        store_url: format!("sqlite:{file}").into(),
        broker_url: "memory:".to_owned().into(),
        ..Settings::default()
    };
    let client = Client::connect(&settings).await?;
    client.store().migrate().await?;
    // No worker has made the kind known.
    let options = ApiOptions { unknown_kinds: UnknownKinds::Accept, ..ApiOptions::default() };
    let router = windlass_api::router(client.clone(), options);
    match &**path {
        "enqueue" => {
            for _ in 0..times {
                enqueue(&router).await?;
            }
        }
        "poll" => {
            let id = enqueue(&router).await?;
            for _ in 0..times {
                ask(&router, Request::get(format!("/v1/jobs/{id}")).body(Body::empty())?).await?;
            }
        }
        "accept" => accept(&client, times).await?,
        // What it takes to accept them is in the count as well.
        "run" => {
            accept(&client, times).await?;
            run(&client, &settings, times).await?;
        }
        _ => return Err(format!("there is no path {path}").into()),
    }
    client.close().await;
    Ok(())
}

/// A message is written and read.
fn messages(times: usize) -> Result<(), Error> {
    for _ in 0..times {
        let message = Message {
            job_id: JobId::new(),
            attempt: 1,
            lane: Lane { queue: "default".parse()?, priority: Priority::Normal },
            kind: Noop::KIND.parse()?,
            trace: None,
            ordering_key: None,
        };
        assert_eq!(Message::decode(&message.encode())?, message);
    }
    Ok(())
}

/// One job by `POST /v1/jobs`, but for what the network takes.
async fn enqueue(router: &Router) -> Result<String, Error> {
    let body = serde_json::json!({"kind": Noop::KIND, "payload": Noop::new()}).to_string();
    let request = Request::post("/v1/jobs").header(CONTENT_TYPE, "application/json").body(body.into())?;
    let answer: serde_json::Value = serde_json::from_slice(&ask(router, request).await?)?;
    Ok(answer["id"].as_str().ok_or("no id")?.to_owned())
}

async fn ask(router: &Router, request: Request<Body>) -> Result<Vec<u8>, Error> {
    let response = router.clone().oneshot(request).await?;
    let (status, body) = (response.status(), to_bytes(response.into_body(), 1 << 20).await?);
    if !status.is_success() {
        return Err(format!("{status}: {}", String::from_utf8_lossy(&body)).into());
    }
    Ok(body.into())
}

/// `times` is a multiple of a group.
async fn accept(client: &Client, times: usize) -> Result<(), Error> {
    for _ in 0..times / GROUP {
        for answer in client.enqueue_all((0..GROUP).map(|_| client.enqueue(Noop::new()))).await {
            answer?;
        }
    }
    Ok(())
}

async fn run(client: &Client, settings: &Settings, times: usize) -> Result<(), Error> {
    let (running, mut ran) = mpsc::unbounded_channel::<()>();
    let worker = Worker::new(client.clone(), settings.into()).state(running).handle(noop);
    let stop = CancellationToken::new();
    let working = tokio::spawn(worker.run_until(stop.clone()));
    for _ in 0..times {
        ran.recv().await.ok_or("the worker has ended")?;
    }
    stop.cancel();
    Ok(working.await??)
}
