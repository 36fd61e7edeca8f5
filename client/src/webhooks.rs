//! Webhooks, whose secrets are made here and sealed before they are kept.

use std::{fmt, str::FromStr, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::value::{RawValue, to_raw_value};
use sha2::Sha256;
use windlass_core::{JobId, NewWebhook, StoredSecret, Tenant, WebhookFilter, WebhookId, WebhookRecord};

use crate::{Client, ClientError, EnvelopeError, NoRandomness, Part};

/// What begins every secret, as Standard Webhooks has it.
const PREFIX: &str = "whsec_";
/// How long secrets are that are made here, and may be, in bytes.
const SECRET: usize = 32;
const ALLOWED: std::ops::RangeInclusive<usize> = 24..=64;

/// What a webhook's deliveries are signed with: `whsec_` and base64, as [Standard Webhooks](https://www.standardwebhooks.com)
/// has it. It never shows in `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret(Vec<u8>);

/// A text that is no secret of a webhook. It does not say what the text was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the secret of a webhook: whsec_ and 24 to 64 bytes in base64")]
pub struct InvalidWebhookSecret;

impl WebhookSecret {
    /// A new secret.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn generate() -> Result<Self, NoRandomness> {
        Ok(Self(crate::keys::random::<SECRET>()?.to_vec()))
    }

    /// All of it, for its owner's eyes.
    #[must_use]
    pub fn expose(&self) -> String {
        format!("{PREFIX}{}", BASE64_STANDARD.encode(&self.0))
    }

    /// The signature of a message with this id, sent at this time in seconds since 1970: `v1,` and base64.
    #[must_use]
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        // Keys of any length will do; hashes of other lengths than this one could not.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return String::new() };
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("whsec_***")
    }
}

impl FromStr for WebhookSecret {
    type Err = InvalidWebhookSecret;

    fn from_str(text: &str) -> Result<Self, InvalidWebhookSecret> {
        let bytes = text.strip_prefix(PREFIX).and_then(|text| BASE64_STANDARD.decode(text).ok());
        bytes.filter(|bytes| ALLOWED.contains(&bytes.len())).map(Self).ok_or(InvalidWebhookSecret)
    }
}

impl Client {
    /// Adds a webhook, with a secret that is seen this once. `None`: its tenant has
    /// [as many as it may](windlass_core::MOST_WEBHOOKS).
    ///
    /// # Errors
    /// What the store says; also when the system has no random numbers.
    pub async fn create_webhook(
        &self,
        tenant: Option<Tenant>,
        url: String,
        filter: WebhookFilter,
        enabled: bool,
    ) -> Result<Option<(WebhookId, WebhookSecret)>, ClientError> {
        let (id, secret) = (WebhookId::new(), WebhookSecret::generate()?);
        let stored = self.seal_secret(id, &secret)?;
        let webhook = NewWebhook { id, tenant, url, filter, enabled, secret: stored };
        let created = self.store().webhooks().create_webhook(&webhook).await?;
        Ok(created.then_some((id, secret)))
    }

    /// Gives a webhook another secret, which is seen this once; the one before it signs as well for `grace` more. `None`: there
    /// is no such webhook.
    ///
    /// # Errors
    /// As for [`create_webhook`](Self::create_webhook).
    pub async fn rotate_webhook(
        &self,
        id: WebhookId,
        grace: Duration,
    ) -> Result<Option<WebhookSecret>, ClientError> {
        let secret = WebhookSecret::generate()?;
        let stored = self.seal_secret(id, &secret)?;
        Ok(self.store().webhooks().rotate_webhook(id, &stored, grace).await?.then_some(secret))
    }

    /// Has a webhook told that someone tries it: the delivery, or `None` where there is no such webhook.
    ///
    /// # Errors
    /// What the store says.
    pub async fn test_webhook(&self, id: WebhookId) -> Result<Option<JobId>, ClientError> {
        let delivery = JobId::new();
        let made = self.store().webhooks().test_webhook(id, delivery).await?;
        self.nudge_relay();
        Ok(made.then_some(delivery))
    }

    /// The secrets that a webhook's deliveries are signed with, the newest first.
    ///
    /// # Errors
    /// One that is encrypted under a key that the settings do not have, or has been altered.
    pub fn webhook_secrets(&self, webhook: &WebhookRecord) -> Result<Vec<WebhookSecret>, ClientError> {
        let open = |stored: &StoredSecret| -> Result<WebhookSecret, ClientError> {
            let unknown = |_| EnvelopeError::UnknownForm;
            let sealed = RawValue::from_string(stored.expose().to_owned()).map_err(unknown)?;
            let text = self.envelope().unseal(owner(webhook.id), Part::Secret, sealed)?;
            let text: String = serde_json::from_str(text.get()).map_err(unknown)?;
            Ok(text.parse().map_err(|_| EnvelopeError::UnknownForm)?)
        };
        webhook.secrets.iter().map(open).collect()
    }

    fn seal_secret(&self, id: WebhookId, secret: &WebhookSecret) -> Result<StoredSecret, ClientError> {
        let text = to_raw_value(&secret.expose()).map_err(ClientError::Payload)?;
        let sealed = self.envelope().seal(owner(id), Part::Secret, text)?;
        Ok(StoredSecret::new(sealed.get()))
    }
}

/// To whom a secret is bound: a webhook's id is as unique as a job's.
fn owner(id: WebhookId) -> JobId {
    id.as_uuid().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_that_of_the_standard() {
        // The example of the reference implementations.
        let secret: WebhookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        let signature =
            secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_secret_is_read_as_it_is_shown_and_never_by_accident() {
        let secret = WebhookSecret::generate().unwrap();
        let text = secret.expose();
        assert_eq!(text.parse(), Ok(secret.clone()));
        assert_eq!(format!("{secret:?}"), "whsec_***");
        let short = format!("whsec_{}", BASE64_STANDARD.encode([1; 23]));
        for wrong in ["", "whsec_", "whsec_ü", &text[1..], &short] {
            assert_eq!(wrong.parse::<WebhookSecret>(), Err(InvalidWebhookSecret), "{wrong}");
        }
    }
}
