//! The API over gRPC, by a client on a real socket.

mod fleet;
mod jobs;
mod operations;
mod serving;
mod watching;
mod webhooks;

use std::{io, net::SocketAddr, time::Duration};

use futures::stream;
use prost_types::Duration as ProtoDuration;
use serde_json::value::RawValue;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Request, Status,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;
use windlass_api::{ApiOptions, Authentication};
use windlass_core::{JobId, Outcome, Scope};
use windlass_proto::v1::{
    EnqueueRequest, GetJobRequest, Job, JobState, NewJob, job_service_client::JobServiceClient,
};

use crate::{
    auth::scopes,
    support::{Api, soon},
};

struct Grpc {
    api: Api,
    channel: Channel,
    shutdown: CancellationToken,
    serving: JoinHandle<io::Result<()>>,
}

impl Grpc {
    async fn new(options: ApiOptions) -> Self {
        Self::over(options, |address| Endpoint::from_shared(format!("http://{address}")).unwrap()).await
    }

    /// With a client of this kind.
    async fn over(options: ApiOptions, endpoint: impl FnOnce(SocketAddr) -> Endpoint) -> Self {
        let api = Api::with(options.clone()).await;
        let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let grpc = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = grpc.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let serving =
            windlass_api::serve_with_grpc(http, grpc, api.client.clone(), options, shutdown.clone());
        let serving = tokio::spawn(serving);
        let channel = soon("a connection", endpoint(address).connect()).await.unwrap();
        Self { api, channel, shutdown, serving }
    }

    fn jobs(&self) -> JobServiceClient<Channel> {
        JobServiceClient::new(self.channel.clone())
    }

    /// One that asks for keys, and looks them up for every call.
    async fn guarded() -> Self {
        let options = ApiOptions {
            authentication: Authentication::Required { jwt: None },
            keys_fresh: Duration::ZERO,
            ..ApiOptions::default()
        };
        Self::new(options).await
    }

    /// What a call has in its metadata as `authorization`, with a key of its own.
    async fn bearer(&self, scope: Scope, tenant: Option<&str>) -> String {
        format!("Bearer {}", self.api.key(scopes(&[scope]), tenant).await.expose())
    }

    /// A job that is dead.
    async fn dead(&self) -> JobId {
        let id = self.api.job().await;
        self.api.finish(id, Outcome::Dead { error: "no".into() }).await;
        id
    }

    async fn state(&self, id: JobId) -> JobState {
        self.jobs().get(GetJobRequest { id: id.to_string() }).await.unwrap().into_inner().state()
    }

    async fn stop(self) {
        drop(self.channel);
        self.shutdown.cancel();
        soon("the end of serving", self.serving).await.unwrap().unwrap();
    }
}

fn mail(payload: &str) -> NewJob {
    NewJob { kind: "mail".into(), payload: payload.to_owned().into(), ..NewJob::default() }
}

fn enqueue(job: NewJob) -> Request<EnqueueRequest> {
    Request::new(EnqueueRequest { job: Some(job) })
}

fn with<T>(name: &'static str, value: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(name, value.parse().unwrap());
    request
}

fn succeeded(result: Option<&str>) -> Outcome {
    let result = result.map(|json| RawValue::from_string(json.into()).unwrap());
    Outcome::Succeeded { result, keep: None }
}

fn id(job: &Job) -> JobId {
    job.id.parse().unwrap()
}

/// The name of the problem, and what is wrong with which field.
fn reason(status: &Status) -> (String, Vec<String>) {
    let details = status.get_error_details();
    let fields =
        details.bad_request().map(|bad| bad.field_violations.iter().map(|v| v.field.clone()).collect());
    (details.error_info().map(|info| info.reason.clone()).unwrap_or_default(), fields.unwrap_or_default())
}
