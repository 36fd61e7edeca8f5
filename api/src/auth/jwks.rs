//! The keys of an issuer, fetched within bounds.

use std::{collections::HashMap, time::Duration};

use jsonwebtoken::{
    Algorithm, DecodingKey, Validation,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse},
};
use reqwest::{Client, Url, redirect};
use serde::{Deserialize, de::DeserializeOwned};

use super::jwt::JwtError;

/// How long the issuer has for an answer, and how long that may be.
const DEADLINE: Duration = Duration::from_secs(5);
const LARGEST: usize = 256 * 1024;
/// How many keys an issuer may have.
const MOST: usize = 100;

/// Where the keys of an issuer are.
pub(super) struct Source {
    http: Client,
    issuer: String,
    /// If its discovery document is not to be asked.
    keys: Option<Url>,
}

/// The keys of an issuer, by their ids.
pub(super) struct KeySet {
    keys: HashMap<String, VerifyingKey>,
    /// The only one, for tokens that name none.
    only: Option<VerifyingKey>,
}

/// A key, and what a token signed by it must be.
#[derive(Clone)]
pub(super) struct VerifyingKey {
    pub(super) key: DecodingKey,
    pub(super) validation: Validation,
}

impl KeySet {
    pub(super) fn get(&self, id: Option<&str>) -> Option<&VerifyingKey> {
        match id {
            Some(id) => self.keys.get(id),
            None => self.only.as_ref(),
        }
    }

    /// Those of the keys that we can use, for tokens as `validation` wants them.
    fn new(keys: Vec<serde_json::Value>, validation: &Validation) -> Self {
        let (mut named, mut all) = (HashMap::new(), Vec::new());
        for jwk in keys.into_iter().take(MOST) {
            // What we do not know is somebody else's.
            let Ok(jwk) = serde_json::from_value::<Jwk>(jwk) else { continue };
            let algorithms: Vec<Algorithm> =
                fitting(&jwk).into_iter().filter(|one| validation.algorithms.contains(one)).collect();
            let Ok(key) = DecodingKey::from_jwk(&jwk) else { continue };
            if algorithms.is_empty() {
                continue;
            }
            let key = VerifyingKey { key, validation: Validation { algorithms, ..validation.clone() } };
            all.push(key.clone());
            if let Some(id) = jwk.common.key_id {
                named.insert(id, key);
            }
        }
        let only = if all.len() == 1 { all.pop() } else { None };
        Self { keys: named, only }
    }
}

/// What a key may be used for: never with a secret, which who has the public keys would know.
fn fitting(jwk: &Jwk) -> Vec<Algorithm> {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};

    if jwk.common.public_key_use.as_ref().is_some_and(|what| *what != PublicKeyUse::Signature) {
        return Vec::new();
    }
    let algorithms = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => vec![RS256, RS384, RS512, PS256, PS384, PS512],
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => vec![ES256],
            EllipticCurve::P384 => vec![ES384],
            _ => Vec::new(),
        },
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => vec![EdDSA],
        _ => Vec::new(),
    };
    match jwk.common.key_algorithm {
        Some(only) => algorithms.into_iter().filter(|one| only == (*one).into()).collect(),
        None => algorithms,
    }
}

/// What goes wrong while keys are fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("{url}: {error}")]
    Http { url: Url, error: reqwest::Error },
    #[error("{url}: the answer has more than {LARGEST} bytes")]
    TooLarge { url: Url },
    #[error("{url}: {error}")]
    Form { url: Url, error: serde_json::Error },
    #[error("the discovery document is of the issuer {0:?}, which is not the one that api_jwt_issuer names")]
    Issuer(String),
    #[error("the discovery document names {0:?} for the keys; {1}")]
    KeysUrl(String, JwtError),
    #[error("the issuer has no key for the algorithms in api_jwt_algorithms")]
    NoKeys,
}

impl Source {
    pub(super) fn new(issuer: &str, keys: Option<&str>) -> Result<Self, JwtError> {
        secure(issuer, "api_jwt_issuer")?;
        let keys = keys.map(|keys| secure(keys, "api_jwt_jwks_url")).transpose()?;
        // Among the features of a build may be one by which reqwest leaves the choice to the process.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = Client::builder()
            .timeout(DEADLINE)
            // Wherever an issuer would send us to, it can name in its document.
            .redirect(redirect::Policy::none())
            .user_agent(concat!("windlass/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(JwtError::Client)?;
        Ok(Self { http, issuer: issuer.to_owned(), keys })
    }

    pub(super) async fn fetch(&self, validation: &Validation) -> Result<KeySet, FetchError> {
        #[derive(Deserialize)]
        struct Keys {
            keys: Vec<serde_json::Value>,
        }

        let url = match &self.keys {
            Some(url) => url.clone(),
            None => self.discover().await?,
        };
        let set = KeySet::new(self.get::<Keys>(url).await?.keys, validation);
        if set.keys.is_empty() && set.only.is_none() { Err(FetchError::NoKeys) } else { Ok(set) }
    }

    /// OpenID Connect Discovery 1.0, section 4.
    async fn discover(&self) -> Result<Url, FetchError> {
        #[derive(Deserialize)]
        struct Document {
            issuer: String,
            jwks_uri: String,
        }

        let text = format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'));
        let url = secure(&text, "api_jwt_issuer").map_err(|error| FetchError::KeysUrl(text, error))?;
        let document: Document = self.get(url).await?;
        if document.issuer != self.issuer {
            return Err(FetchError::Issuer(document.issuer));
        }
        secure(&document.jwks_uri, "its jwks_uri")
            .map_err(|error| FetchError::KeysUrl(document.jwks_uri, error))
    }

    async fn get<T: DeserializeOwned>(&self, url: Url) -> Result<T, FetchError> {
        // The error would name the URL a second time.
        let http = |error: reqwest::Error| FetchError::Http { url: url.clone(), error: error.without_url() };
        let answer = self.http.get(url.clone()).header("accept", "application/json").send().await;
        let mut answer = answer.and_then(reqwest::Response::error_for_status).map_err(http)?;
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(http)? {
            if body.len() + part.len() > LARGEST {
                return Err(FetchError::TooLarge { url });
            }
            body.extend_from_slice(&part);
        }
        serde_json::from_slice(&body).map_err(|error| FetchError::Form { url, error })
    }
}

/// A URL whose answer nobody on the way can change.
fn secure(text: &str, setting: &'static str) -> Result<Url, JwtError> {
    let url = Url::parse(text).ok().filter(|url| {
        let host = url.host_str().unwrap_or_default();
        let loopback = ["localhost", "127.0.0.1", "[::1]"].contains(&host);
        url.scheme() == "https" || url.scheme() == "http" && loopback
    });
    url.ok_or(JwtError::Url(setting))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_from_where_nobody_can_change_them() {
        for good in
            ["https://id.example/realms/a", "http://localhost:8080", "http://127.0.0.1:1/x", "http://[::1]:1"]
        {
            assert!(secure(good, "x").is_ok(), "{good}");
        }
        for bad in ["", "id.example", "http://id.example", "http://127.0.0.1.example", "file:///etc/passwd"] {
            assert!(secure(bad, "x").unwrap_err().to_string().contains('x'), "{bad}");
        }
    }
}
