use std::error::Error;
use std::sync::{Mutex, MutexGuard, PoisonError};

use google_cloud_auth::credentials::{Builder, CacheableResource, Credentials};
use tonic::codegen::http::Extensions;
use tonic::metadata::MetadataMap;

use super::problem::Problem;

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
                Err(Problem::Outage(format!("no login yet: {}", chain(&error))))
            }
            Err(error) => {
                *lock(found) = None;
                Err(no_login(&error))
            }
        }
    }
}

fn find() -> Result<Credentials, Problem> {
    Builder::default().with_scopes([SCOPE]).build().map_err(|error| no_login(&error))
}

fn no_login(error: &(dyn Error + 'static)) -> Problem {
    Problem::config(
        format!("broker_url names Pub/Sub, and no login to it can be had: {}", chain(error)),
        "set up application default credentials (GOOGLE_APPLICATION_CREDENTIALS, or the account of this machine)",
    )
}

/// The error with its causes, which tell what is to be mended.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// Never held across an await.
fn lock(found: &Mutex<Option<Credentials>>) -> MutexGuard<'_, Option<Credentials>> {
    found.lock().unwrap_or_else(PoisonError::into_inner)
}
