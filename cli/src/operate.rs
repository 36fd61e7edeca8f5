//! What the commands for operators have in common: they ask the API, which runs within this process on the store of the
//! settings, so that both say and refuse the same.

use std::sync::Arc;

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Method, Request, header},
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};
use tower::ServiceExt as _;
use windlass::{Client, ClientOptions, Settings, driver};

use crate::{Failure, api};

/// The API on the store of the settings.
pub(crate) struct Operator {
    client: Client,
    router: Router,
}

impl Operator {
    /// Opens the store, which must be there. What is to be published is left to the processes that serve and work.
    pub(crate) async fn open(settings: &Settings) -> Result<Self, Failure> {
        let store = driver::open_store(settings.store_url.expose(), &settings.store_options()).await?;
        store.ping().await?;
        let broker = driver::open_broker(settings.broker().expose()).await?;
        let options = ClientOptions { relays: false, ..settings.client_options() };
        let envelope = settings.envelope().map_err(windlass::ClientError::from)?;
        let client = Client::with_envelope(Arc::clone(&store), broker, options, envelope);
        let router = windlass_api::router(client.clone(), api::open_options(settings));
        Ok(Self { client, router })
    }

    /// What the API works with.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// What the API answers; a problem is a failure of the command.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value, Failure> {
        self.call_with(method, path, None, body).await
    }

    /// The same under an idempotency key.
    pub(crate) async fn call_with(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: Option<Value>,
    ) -> Result<Value, Failure> {
        let mut request =
            Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, "application/json");
        if let Some(key) = key {
            let escaped = key.replace('\\', "\\\\").replace('"', "\\\"");
            request = request.header("idempotency-key", format!("\"{escaped}\""));
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let request = request.body(body).map_err(Failure::usage)?;
        let response = self.router.clone().oneshot(request).await.map_err(Failure::running)?;
        let status = response.status();
        let bytes = to_bytes(response.into_body(), usize::MAX).await.map_err(Failure::running)?;
        let answer: Value = match bytes.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&bytes).map_err(Failure::running)?,
        };
        if status.is_success() {
            return Ok(answer);
        }
        let detail = answer["detail"].as_str().unwrap_or_default();
        Err(if status.is_client_error() { Failure::usage(detail) } else { Failure::running(detail) })
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.call(Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Option<Value>) -> Result<Value, Failure> {
        self.call(Method::POST, path, body).await
    }

    pub(crate) async fn close(self) {
        self.client.close().await;
    }
}

/// JSON given on the command line: the text itself, `@` with the name of a file, or `-` for standard input.
pub(crate) fn json_argument(what: &str, argument: &str) -> Result<Value, Failure> {
    let unreadable = |error| Failure::usage(format!("{what} {argument}: {error}"));
    let text = match argument.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file).map_err(unreadable)?,
        None if argument == "-" => std::io::read_to_string(std::io::stdin()).map_err(unreadable)?,
        None => argument.to_owned(),
    };
    serde_json::from_str(&text).map_err(|error| {
        Failure::usage(format!("{what} is not JSON: {error}; write JSON, @FILE, or - for standard input"))
    })
}

/// Labels of the form `name:value`, as a body has them.
pub(crate) fn labels(labels: &[String]) -> Result<Value, Failure> {
    let mut read = Map::new();
    for label in labels {
        let (name, value) =
            label.split_once(':').ok_or_else(|| Failure::usage("--label: write name:value"))?;
        read.insert(name.to_owned(), value.into());
    }
    Ok(Value::Object(read))
}

/// A part of a path, or a parameter of a query, as it must be written there.
pub(crate) fn escaped(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// For machines: the answer as it is.
pub(crate) fn print_json(answer: &Value) {
    println!("{answer:#}");
}

/// For people: a table, with columns as wide as what is in them.
pub(crate) fn print_table<const N: usize>(head: [&str; N], rows: Vec<[String; N]>) {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or_default()
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let print = |cells: [&str; N]| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        println!("{}", padded.collect::<Vec<_>>().join("  ").trim_end());
    };
    print(head);
    for row in &rows {
        print(std::array::from_fn(|column| row[column].as_str()));
    }
}

/// A value as it stands in a table. What comes from others must not move the cursor.
pub(crate) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect(),
        other => other.to_string(),
    }
}
