//! Who makes a request, what they may do, and for whom.

mod cached;
mod jwks;
mod jwt;
mod key_ring;
mod signatures;
mod tenants;

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, HeaderValue, header, request::Parts},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use windlass_client::ApiKey;
use windlass_core::{Scope, Scopes, Tenant};

pub use self::jwt::{Jwt, JwtError, JwtOptions};
use self::key_ring::KeyRing;
use crate::{Service, problem::Problem};

/// Whether requests need a key or token.
#[derive(Debug, Clone, Default)]
pub enum Authentication {
    /// Whoever reaches the API may do everything.
    #[default]
    Off,
    /// `Authorization: Bearer …` with an API key of the store, or a JSON Web Token where an issuer is given.
    Required {
        /// Whose tokens are taken beside API keys.
        jwt: Option<Arc<Jwt>>,
    },
}

/// The subject of everyone, without authentication.
const ANYONE: &str = "anyone";

/// Who makes a request: an extension of every request to a route that is not open to all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `key:` with the id of an API key, `jwt:` with the subject of a token; `anyone` without authentication.
    pub subject: Arc<str>,
    /// What they may do.
    pub scopes: Scopes,
    /// For whom, if not for everyone: nothing of others exists for them.
    pub tenant: Option<Tenant>,
}

impl Identity {
    fn anyone() -> Self {
        Self { subject: ANYONE.into(), scopes: [Scope::Admin].into_iter().collect(), tenant: None }
    }

    /// Whether it is somebody in particular.
    pub(crate) fn is_known(&self) -> bool {
        &*self.subject != ANYONE
    }
}

/// What a route asks of those who use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) scope: Scope,
    pub(crate) reach: Reach,
}

/// Whose a route's things are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Each tenant's own: the route shows and changes nothing else for them.
    Tenant,
    /// The whole fleet's: not for those who act for one tenant.
    Fleet,
}

/// What the API has for telling who somebody is.
pub(crate) struct Gatekeeper {
    authentication: Authentication,
    keys: KeyRing,
}

impl Gatekeeper {
    pub(crate) fn new(authentication: Authentication, fresh: Duration) -> Self {
        Self { authentication, keys: KeyRing::new(fresh) }
    }

    async fn identify(&self, service: &Service, headers: &HeaderMap) -> Result<Identity, Problem> {
        let Authentication::Required { jwt } = &self.authentication else { return Ok(Identity::anyone()) };
        let token = bearer(headers)?;
        match jwt {
            _ if ApiKey::is_meant(token) => self.keys.identify(service.client.store().keys(), token).await,
            Some(jwt) => jwt.identify(token).await,
            None => Err(Problem::unauthorized("the token is no API key, and no other tokens are taken here")),
        }
    }
}

/// Lets a request through to its route, or not.
pub(crate) async fn admit(
    State((service, access)): State<(Arc<Service>, Access)>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let identity = service.gatekeeper.identify(&service, request.headers()).await?;
    tracing::Span::current().record("subject", &*identity.subject);
    let words = service.rates.admit(&service, &identity).await;
    if let Some(refused) = words.refused() {
        return Ok(refused);
    }
    if !identity.scopes.allow(access.scope) {
        return Err(Problem::missing_scope(access.scope));
    }
    if let (Some(tenant), Reach::Fleet) = (&identity.tenant, access.reach) {
        return Err(Problem::not_for_tenants(tenant));
    }
    request.extensions_mut().insert(identity);
    let mut response = next.run(request).await;
    words.tell(response.headers_mut());
    // A cache is not to give one's answer to another.
    response.headers_mut().append(header::VARY, HeaderValue::from_static("authorization"));
    Ok(response)
}

/// The token of `Authorization: Bearer …`.
fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or_else(Problem::no_token)?;
    let token = value.to_str().ok().and_then(|value| value.split_once(' '));
    match token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) {
        Some((_, token)) if values.next().is_none() => Ok(token.trim()),
        _ => Err(Problem::no_token()),
    }
}

/// For handlers. Without it, a route must not show anything.
impl<S: Send + Sync> FromRequestParts<S> for Identity {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        parts.extensions.get().cloned().ok_or_else(|| {
            tracing::error!(path = parts.uri.path(), "a route asks who uses it, but lets everyone in");
            Problem::internal().into_response()
        })
    }
}
