use std::{fmt, fmt::Write as _, str::FromStr};

use sha2::{Digest as _, Sha256};
use windlass_core::KeyId;

/// What begins every key, for scanners that look for secrets in code:
/// `wl_[0-9a-f]{12}_[0-9a-f]{72}`.
const PREFIX: &str = "wl_";
/// The id and the secret in bytes, and how much of a hash over all before it is the check.
const ID: usize = 6;
const SECRET: usize = 32;
const CHECK: usize = 4;

/// A key for the HTTP API with its secret: `wl_`, its id, `_`, the secret and a check, all in hexadecimal digits. The
/// store has a hash of the secret only, so this is seen once.
pub struct ApiKey {
    id: KeyId,
    secret: [u8; SECRET],
}

/// A text that is no key. It does not say what the text was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a key: it begins with wl_, and has been copied as a whole if its check fits")]
pub struct InvalidApiKey;

/// The system has no random numbers to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random numbers: {0}")]
pub struct NoRandomness(getrandom::Error);

impl ApiKey {
    /// A new key.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn generate() -> Result<Self, NoRandomness> {
        let id: [u8; ID] = random()?;
        let secret = random()?;
        // Digits are what an id consists of.
        id_of(&hex(&id)).map_or(Err(NoRandomness(getrandom::Error::UNEXPECTED)), |id| Ok(Self { id, secret }))
    }

    /// A new secret for the key of this id.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn rotate(id: KeyId) -> Result<Self, NoRandomness> {
        Ok(Self { id, secret: random()? })
    }

    /// Its id, which is no secret.
    #[must_use]
    pub const fn id(&self) -> &KeyId {
        &self.id
    }

    /// What the store keeps of the secret. It has 256 random bits, so that a plain hash is as good as a slow one.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.secret).into()
    }

    /// All of it, for its owner's eyes.
    #[must_use]
    pub fn expose(&self) -> String {
        let text = format!("{PREFIX}{}_{}", self.id, hex(&self.secret));
        let check = check(&text);
        text + &check
    }

    /// Whether a text is meant to be a key, be it right or not.
    #[must_use]
    pub fn is_meant(text: &str) -> bool {
        text.starts_with(PREFIX)
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl FromStr for ApiKey {
    type Err = InvalidApiKey;

    fn from_str(text: &str) -> Result<Self, InvalidApiKey> {
        let parse = || {
            let (rest, given) = text.split_at_checked(text.len().checked_sub(2 * CHECK)?)?;
            let (id, secret) = rest.strip_prefix(PREFIX)?.split_once('_')?;
            let key = Self { id: id_of(id)?, secret: bytes(secret)? };
            (check(rest) == given).then_some(key)
        };
        parse().ok_or(InvalidApiKey)
    }
}

fn id_of(text: &str) -> Option<KeyId> {
    text.parse().ok()
}

/// So many random bytes.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(NoRandomness)?;
    Ok(bytes)
}

fn check(text: &str) -> String {
    hex(&Sha256::digest(text)[..CHECK])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // A String takes whatever it is given.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Lower-case digits, two for each byte.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N || digits.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_is_shown() {
        let key = ApiKey::generate().unwrap();
        let text = key.expose();
        assert_eq!(text.len(), 88);
        assert!(ApiKey::is_meant(&text));
        let read: ApiKey = text.parse().unwrap();
        assert_eq!((read.id(), read.hash()), (key.id(), key.hash()));
        let other = ApiKey::rotate(key.id().clone()).unwrap();
        assert_ne!((other.hash(), other.expose()), (key.hash(), text));
    }

    #[test]
    fn what_was_copied_wrongly_is_no_key() {
        let text = ApiKey::generate().unwrap().expose();
        let swapped = text.replacen(&text[3..4], if &text[3..4] == "0" { "1" } else { "0" }, 1);
        for wrong in [
            "",
            "wl_",
            "wl__",
            "ü",
            &text[1..],
            &text[..87],
            &swapped,
            &text.to_uppercase(),
            &format!("{text} "),
        ] {
            assert!(wrong.parse::<ApiKey>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn secrets_do_not_show() {
        let key = ApiKey::generate().unwrap();
        let secret = &key.expose()[16..];
        let shown = format!("{key:?} {:?}", "x".parse::<ApiKey>());
        assert!(shown.contains(key.id().as_str()) && !shown.contains(secret), "{shown}");
    }
}
