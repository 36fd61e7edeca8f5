use std::{fmt, time::Duration};

use jsonwebtoken::{Algorithm, Validation, decode, decode_header, errors::ErrorKind};
use serde_json::{Map, Value};
use windlass_client::JwtAlgorithm;
use windlass_core::{Scope, Scopes, Tenant};

use super::{
    Identity,
    cached::{Cached, Times},
    jwks::{KeySet, Source},
    signatures,
};
use crate::problem::Problem;

/// A longer token is not looked at.
const LONGEST: usize = 16 * 1024;
/// How scopes may be called in tokens that are for others as well.
const PREFIX: &str = "windlass:";
/// How much of a subject is shown in the log.
const SUBJECT: usize = 100;

/// Whose tokens are taken, and how they are read.
#[derive(Debug, Clone)]
pub struct JwtOptions {
    /// The issuer, as it is in the tokens' `iss`: an OpenID Connect issuer, unless `jwks_url` is given.
    pub issuer: String,
    /// What must be in `aud`, any of it.
    pub audience: Vec<String>,
    /// Where the issuer's keys are, instead of where its discovery document says.
    pub jwks_url: Option<String>,
    /// The claim with the scopes, by name or, where it begins with `/`, by JSON pointer.
    pub scopes_claim: String,
    /// The claim with the tenant, likewise. Where it is set, a token without it is refused.
    pub tenant_claim: Option<String>,
    /// How far clocks may be apart.
    pub leeway: Duration,
    /// Which signatures are taken.
    pub algorithms: Vec<JwtAlgorithm>,
    /// How old the issuer's keys may be before they are fetched again; also how long a withdrawn key is good.
    pub keys_fresh: Duration,
    /// How often they are fetched at most, also for a token whose key is not among them.
    pub keys_pause: Duration,
    /// How old they may be while the issuer does not answer.
    pub keys_stale: Duration,
}

impl JwtOptions {
    /// Tokens of this issuer for this audience.
    #[must_use]
    pub fn new(issuer: impl Into<String>, audience: impl Into<String>) -> Self {
        Self {
            issuer: issuer.into(),
            audience: vec![audience.into()],
            jwks_url: None,
            scopes_claim: "scope".into(),
            tenant_claim: None,
            leeway: Duration::from_secs(30),
            algorithms: vec![JwtAlgorithm::RS256, JwtAlgorithm::ES256, JwtAlgorithm::EdDSA],
            keys_fresh: Duration::from_secs(600),
            keys_pause: Duration::from_secs(30),
            keys_stale: Duration::from_secs(3600),
        }
    }
}

/// Settings for tokens that cannot work.
#[derive(Debug, thiserror::Error)]
pub enum JwtError {
    /// A URL is none, or could be answered by anyone on the way.
    #[error("{0} must be an https URL, or an http URL of this very machine")]
    Url(&'static str),
    /// Without an audience, a token for any other service would be taken.
    #[error("api_jwt_audience must say whom the issuer's tokens are for")]
    Audience,
    /// No signature would be taken.
    #[error("api_jwt_algorithms must have at least one")]
    Algorithms,
    /// The system lacks what HTTPS needs.
    #[error("no HTTPS client can be made: {0}")]
    Client(#[source] reqwest::Error),
}

/// Reads the JSON Web Tokens of one issuer. Its keys are fetched with the first token.
pub struct Jwt {
    options: JwtOptions,
    /// What every token must be.
    validation: Validation,
    source: Source,
    keys: Cached<KeySet>,
}

impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwt").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Jwt {
    /// Takes tokens as the options say.
    ///
    /// # Errors
    /// Options that cannot work.
    pub fn new(options: JwtOptions) -> Result<Self, JwtError> {
        signatures::install();
        let algorithms: Vec<Algorithm> = options.algorithms.iter().copied().map(algorithm).collect();
        let Some(first) = algorithms.first() else { return Err(JwtError::Algorithms) };
        if options.audience.is_empty() {
            return Err(JwtError::Audience);
        }
        let mut validation = Validation::new(*first);
        validation.algorithms = algorithms;
        validation.set_issuer(&[&options.issuer]);
        validation.set_audience(&options.audience);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.validate_nbf = true;
        validation.leeway = options.leeway.as_secs();
        let source = Source::new(&options.issuer, options.jwks_url.as_deref())?;
        let keys = Cached::new(Times {
            fresh: options.keys_fresh,
            pause: options.keys_pause,
            stale: options.keys_stale.max(options.keys_fresh),
        });
        Ok(Self { options, validation, source, keys })
    }

    pub(super) async fn identify(&self, token: &str) -> Result<Identity, Problem> {
        if token.len() > LONGEST {
            return Err(Problem::unauthorized("the token is too long"));
        }
        let header = decode_header(token).map_err(|error| refused(&error))?;
        // Extensions that must be understood, none of which we know.
        if header.crit.is_some() {
            return Err(Problem::unauthorized("the token has extensions that are not known here"));
        }
        let id = header.kid.as_deref();
        let fetch = async {
            let set = self.source.fetch(&self.validation).await;
            set.inspect_err(|error| tracing::warn!(%error, "the issuer's keys cannot be fetched")).ok()
        };
        let keys = self.keys.get(|keys| keys.get(id).is_some(), fetch).await;
        let keys = keys.ok_or_else(|| Problem::unavailable("the issuer of tokens does not answer", 5))?;
        let key = keys.get(id).ok_or_else(|| Problem::unauthorized("the issuer has no such key"))?;
        let token = decode::<Map<String, Value>>(token, &key.key, &key.validation);
        self.read(&token.map_err(|error| refused(&error))?.claims)
    }

    fn read(&self, claims: &Map<String, Value>) -> Result<Identity, Problem> {
        let subject: String =
            claims.get("sub").and_then(Value::as_str).unwrap_or_default().chars().take(SUBJECT).collect();
        let tenant = match &self.options.tenant_claim {
            None => None,
            Some(name) => Some(claim(claims, name).and_then(tenant).ok_or_else(|| {
                Problem::unauthorized(format!("the token has no tenant, which is to be in its claim {name}"))
            })?),
        };
        let scopes = claim(claims, &self.options.scopes_claim).map(scopes).unwrap_or_default();
        Ok(Identity { subject: format!("jwt:{subject}").into(), scopes, tenant })
    }
}

fn algorithm(algorithm: JwtAlgorithm) -> Algorithm {
    match algorithm {
        JwtAlgorithm::RS256 => Algorithm::RS256,
        JwtAlgorithm::RS384 => Algorithm::RS384,
        JwtAlgorithm::RS512 => Algorithm::RS512,
        JwtAlgorithm::PS256 => Algorithm::PS256,
        JwtAlgorithm::PS384 => Algorithm::PS384,
        JwtAlgorithm::PS512 => Algorithm::PS512,
        JwtAlgorithm::ES256 => Algorithm::ES256,
        JwtAlgorithm::ES384 => Algorithm::ES384,
        JwtAlgorithm::EdDSA => Algorithm::EdDSA,
    }
}

/// A claim by its name or JSON pointer.
fn claim<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let Some(pointer) = name.strip_prefix('/') else { return claims.get(name) };
    let unescaped = |part: &str| part.replace("~1", "/").replace("~0", "~");
    let (first, rest) = pointer.split_once('/').map_or((pointer, None), |(first, rest)| (first, Some(rest)));
    let value = claims.get(&unescaped(first))?;
    rest.map_or(Some(value), |rest| value.pointer(&format!("/{rest}")))
}

fn tenant(value: &Value) -> Option<Tenant> {
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

/// Those of the names that are scopes of ours.
fn scopes(value: &Value) -> Scopes {
    let scope = |name: &str| name.strip_prefix(PREFIX).unwrap_or(name).parse::<Scope>().ok();
    match value {
        Value::String(text) => text.split_whitespace().filter_map(scope).collect(),
        Value::Array(names) => names.iter().filter_map(Value::as_str).filter_map(scope).collect(),
        _ => Scopes::default(),
    }
}

/// Why a token is not taken, as far as it helps its owner.
fn refused(error: &jsonwebtoken::errors::Error) -> Problem {
    Problem::unauthorized(match error.kind() {
        ErrorKind::ExpiredSignature => "the token has expired",
        ErrorKind::ImmatureSignature => "the token is not good yet",
        ErrorKind::InvalidIssuer => "the token is from another issuer",
        ErrorKind::InvalidAudience => "the token is for another audience",
        ErrorKind::MissingRequiredClaim(_) => "the token must have exp, iss and aud",
        ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => {
            "the token is signed by an algorithm that is not taken here"
        }
        _ => "the token is not valid",
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn claims_are_found_by_name_and_pointer() {
        let claims =
            json!({"a.b": 1, "https://x/y": 2, "realm": {"roles": ["read", "windlass:operate", 5, "x"]}});
        let Value::Object(claims) = claims else { panic!() };
        for (name, found) in
            [("a.b", true), ("https://x/y", true), ("/realm/roles", true), ("/https:~1~1x~1y", true)]
        {
            assert_eq!(claim(&claims, name).is_some(), found, "{name}");
        }
        for name in ["a", "/realm/none", "realm/roles", "", "/"] {
            assert_eq!(claim(&claims, name), None, "{name}");
        }
        let found = scopes(claim(&claims, "/realm/roles").unwrap());
        assert_eq!(found.to_string(), "read operate");
        assert_eq!(scopes(&json!("email  windlass:admin")).to_string(), "admin");
        assert_eq!(scopes(&json!({"read": true})), Scopes::default());
    }

    #[test]
    fn tenants_are_texts_or_numbers() {
        assert_eq!(tenant(&json!(42)).unwrap().as_str(), "42");
        for wrong in [json!(""), json!(null), json!(["a"]), json!("a\nb")] {
            assert_eq!(tenant(&wrong), None, "{wrong}");
        }
    }
}
