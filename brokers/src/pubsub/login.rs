use std::error::Error;
use std::sync::{Mutex, MutexGuard, PoisonError};

use google_cloud_auth::credentials::{Builder, CacheableResource, Credentials};
use tokio::net::lookup_host;
use tonic::codegen::http::Extensions;
use tonic::metadata::MetadataMap;

use super::problem::Problem;

/// Where the machines of Google Cloud, and only they, find their login. The library takes its absence for an outage.
const METADATA: &str = "metadata.google.internal";
const SCOPE: &str = "https://www.googleapis.com/auth/pubsub";

/// What shows the service who calls.
pub(super) enum Login {
    /// To an emulator.
    None,
    /// Application default credentials. Found anew after they were refused, so that a file put right is read without
    /// a restart: the library gives up for good.
    Google(Mutex<Option<Credentials>>),
}

impl Login {
    /// To be called within a Tokio runtime.
    pub(super) fn google() -> Result<Self, Problem> {
        // An error means that this process has chosen already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Ok(Self::Google(Mutex::new(Some(find()?))))
    }

    pub(super) async fn headers(&self) -> Result<MetadataMap, Problem> {
        let Self::Google(found) = self else { return Ok(MetadataMap::new()) };
        let known = lock(found).clone();
        let credentials = match known {
            Some(credentials) => credentials,
            None => lock(found).insert(find()?).clone(),
        };
        match credentials.headers(Extensions::new()).await {
            Ok(CacheableResource::New { data, .. }) => Ok(MetadataMap::from_headers(data)),
            // Never the answer to a question that names no version.
            Ok(CacheableResource::NotModified) => Ok(MetadataMap::new()),
            Err(error) if error.is_transient() => {
                let why = chain(&error, 2);
                if why.contains(METADATA) && lookup_host((METADATA, 80)).await.is_err() {
                    *lock(found) = None;
                    return Err(no_login("there is none, and this is no machine of Google Cloud"));
                }
                Err(Problem::Outage(format!("no login yet: {why}")))
            }
            Err(error) => {
                *lock(found) = None;
                Err(no_login(&chain(&error, 1)))
            }
        }
    }
}

fn find() -> Result<Credentials, Problem> {
    Builder::default().with_scopes([SCOPE]).build().map_err(|error| no_login(&error.to_string()))
}

fn no_login(why: &str) -> Problem {
    Problem::config(
        format!("broker_url names Pub/Sub, and no login to it can be had: {why}"),
        "set up application default credentials (GOOGLE_APPLICATION_CREDENTIALS, or the account of the machine)",
    )
}

/// What is wrong, without the outermost errors, which only say at length that something is.
fn chain(error: &(dyn Error + 'static), outer: usize) -> String {
    let mut texts = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        texts.push(cause.to_string());
        next = cause.source();
    }
    texts[outer.min(texts.len() - 1)..].join(": ")
}

/// Never held across an await.
fn lock(found: &Mutex<Option<Credentials>>) -> MutexGuard<'_, Option<Credentials>> {
    found.lock().unwrap_or_else(PoisonError::into_inner)
}
